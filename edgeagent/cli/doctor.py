"""`edgeagent doctor`: the device, its profile, all settings with their origins, and problems."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from edgeagent.catalog.sizing.speed import error_of
from edgeagent.cli.shared.configured_library import library_of, model_to_install
from edgeagent.cli.shared.confinement import confinement_problems, confinement_table
from edgeagent.cli.shared.egress_table import show_egress
from edgeagent.cli.shared.measured_rates import (
    Prediction,
    model_to_measure,
    n_threads_of,
    predictions,
)
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.outdated_libraries import find_outdated
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.tensor_table import tensor_table, tensor_tree
from edgeagent.cli.shared.terminal import PlainConsole
from edgeagent.device.benchmark import DeviceBenchmark
from edgeagent.device.configuration import Configuration
from edgeagent.device.measurement import Measurement
from edgeagent.device.tensor_rates import TensorRates
from edgeagent.errors import EdgeAgentError
from edgeagent.settings.setting_names import FIELDS, value_of
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.recovery import earlier
from edgeagent.types.version import VERSION
from edgeagent.worker.sandbox_probe import gather

LIBRARIES = (
    "llama-cpp-python", "litestar", "uvicorn", "h11", "msgspec", "pydantic", "numpy", "jinja2",
    "cryptography", "multipart", "sqlcipher3",
)  # fmt: skip


@click.command()
@click.option("--measure", is_flag=True, help="Measure this device now, in under 30 seconds.")
@click.option("--egress", "shows_egress", is_flag=True,
              help="Show the upstreams and the sockets of the running daemon and its workers instead, and "
              "what could get out; status 1 if one leads to a machine that is no upstream.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@settings_options
def doctor(
    config: Path | None, measure: bool, shows_egress: bool, as_json: bool, **flags: Any
) -> int:
    """Show the device, its profile and the settings with their origins, and check for problems."""
    found = configured(config, **flags)
    if shows_egress:
        return show_egress(found.settings, as_json=as_json)
    measuring = DeviceBenchmark(found.device, found.settings.state_dir)
    figures = _measure(found, measuring) if measure else measuring.kept()
    tensors = measuring.tensor_rates(n_threads_of(found))
    evidence = gather()
    problems = _problems(found) + find_outdated() + confinement_problems(evidence)
    if as_json:
        tree = _as_json(found, figures, tensors, problems) | {
            "confinement": msgspec.to_builtins(evidence)
        }
        click.echo(json.dumps(tree, indent=1, default=str))
        return 0
    # Without a terminal nothing is cut: paths are long, and scripts read this output.
    console = PlainConsole(width=None if os.isatty(1) else 500)
    console.print(f"edgeagent {VERSION}, Python {platform.python_version()}, {platform.platform()}")
    console.print(_device_table(found))
    console.print(_settings_table(found))
    console.print(_libraries_table())
    console.print(confinement_table(evidence))
    if figures is not None:
        console.print(_figures_table(figures))
        if tensors is not None:
            console.print(tensor_table(tensors.rates))
        if checked := predictions(found, figures, tensors):
            console.print(_prediction_table(checked))
    else:
        console.print("Not measured yet: `edgeagent doctor --measure` takes 30 seconds.")
    for problem in problems:
        console.print(Text.assemble(("! ", "yellow"), printable(problem)))
    if not problems:
        console.print("No problems found.")
    return 0


def _measure(found: Configuration, measuring: DeviceBenchmark) -> Measurement:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        return measuring.run(
            model_to_measure(found),
            lambda what, share: bar.update(task, completed=share, description=f"{what:<24}"),
        )


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def _device_table(found: Configuration) -> Table:
    device = found.device
    capacity = device.capacity
    table = _table("device", "")
    rows = {
        "board": device.board.model,
        "processor": f"{device.cpu.model} ({device.system.architecture})",
        "cores": f"{capacity.n_threads_max} usable, {capacity.n_performance_cores} of them fast",
        "features": ", ".join(device.cpu.features),
        "memory": f"{_gib(capacity.ram_usable_bytes)} usable, {_gib(capacity.ram_available_bytes)} available",
        "storage": f"{device.storage.kind}, {_gib(device.storage.free_bytes)} free",
        "hottest": device.thermal.hottest_c,
        "profile": f"{found.profile.name} v{found.profile.version}: {found.reason}",
        "memory budget": found.budget.explain(),
    }
    for name, value in rows.items():
        table.add_row(name, str(value) if value is not None else "not known")
    for note in device.notes:
        table.add_row("note", note)
    return table


def _settings_table(found: Configuration) -> Table:
    table = _table("setting", "value", "origin")
    settings = found.settings
    for name in FIELDS:
        value = value_of(settings, name)
        if name == "models.dir" and value is None:
            value = settings.effective_models_dir
        table.add_row(name, "" if value is None else str(value), found.resolved.origins[name])
    return table


def _libraries_table() -> Table:
    table = _table("library", "version")
    for name in LIBRARIES:
        try:
            table.add_row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(name, "missing")
    return table


def _figures_table(figures: Measurement) -> Table:
    """The measured rates, with the decode speed as a share of the memory bandwidth."""
    table = _table("measured", "")
    for rate in figures.memory_gb_per_s:
        table.add_row(f"memory read, {rate.n_threads} threads", f"{rate.value:.1f} GB/s")
    for rate in figures.gemm_gflop_per_s:
        table.add_row(f"float32 products, {rate.n_threads} threads", f"{rate.value:.0f} GFLOP/s")
    if figures.disk_read_mb_per_s is not None:
        table.add_row("disk read", f"{figures.disk_read_mb_per_s:.0f} MB/s")
    model = figures.model
    if model is not None:
        for n, tok_s in model.decode_tok_s.items():
            table.add_row(f"decode, {n} threads ({model.model})", f"{tok_s:.1f} tokens/s")
        best = figures.best_memory_gb_per_s
        if best:
            reached = max(model.decode_tok_s.values()) * model.weights_bytes / 1e9
            table.add_row(
                "decode reads", f"{reached:.1f} GB/s, {100 * reached / best:.0f}% of the bandwidth"
            )
        curve = ", ".join(f"{k}: {t:.2f}" for k, t in model.batch_curve.items())
        table.add_row("step with k sequences over one", curve)
        for n, tok_s in model.prefill_tok_s.items():
            table.add_row(f"prefill, chunks of {n}", f"{tok_s:.0f} tokens/s")
        for name, rates in model.options.items():
            table.add_row(
                name, f"prefill {rates.prefill_tok_s:.0f}, decode {rates.decode_tok_s:.1f} tokens/s"
            )
    for note in figures.notes:
        table.add_row("note", note)
    return table


def _prediction_table(predictions: list[Prediction]) -> Table:
    """Predicted and measured rates of the measured model."""
    table = _table(
        "predicted, tokens/s", "from the machine", "error", "with its pace", "error", "measured"
    )
    for each in predictions:
        error = f"{100 * error_of(each.foretold, each.measured):+.0f}%"
        with_pace = f"{100 * error_of(each.with_pace, each.measured):+.0f}%"
        table.add_row(
            each.name, f"{each.foretold:.0f}", error, f"{each.with_pace:.0f}",
            "sets it" if each.sets_pace else with_pace, f"{each.measured:.0f}",
        )  # fmt: skip
    return table


def _problems(found: Configuration) -> list[str]:
    settings = found.settings
    problems = []
    directory = settings.effective_models_dir
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        problems.append(
            f"{directory} is not writable, so no model can be installed: set --models-dir or --state-dir."
        )
    problems += [notice.message for notice in earlier(StoreFiles(settings.store_dir))]
    try:
        ids = [model.id for model in library_of(settings).installed()]
    except EdgeAgentError as exc:
        return [*problems, exc.message]
    wanted = model_to_install(settings)
    if settings.models.default not in ids and wanted not in ids:
        problems.append(
            f"The default model {settings.models.default} is not installed: "
            f"`edgeagent models install {wanted}`."
        )
    return problems


def _as_json(
    found: Configuration,
    figures: Measurement | None,
    tensors: TensorRates | None,
    problems: list[str],
) -> dict[str, Any]:
    settings = found.settings
    return {
        "version": VERSION,
        "device": msgspec.to_builtins(found.device),
        "profile": {
            "name": found.profile.name,
            "reason": found.reason,
            "considered": msgspec.to_builtins(found.considered),
        },
        "settings": {
            name: {"value": value_of(settings, name), "origin": found.resolved.origins[name]}
            for name in FIELDS
        },
        "measured": msgspec.to_builtins(figures, str_keys=True) if figures is not None else None,
        "tensor_types": tensor_tree(tensors.rates) if tensors is not None else None,
        "problems": problems,
    }


def _gib(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else f"{n_bytes / 2**30:.1f} GiB"
