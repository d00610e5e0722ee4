"""`edgeagent models recommend`: which models fit this device or another one, before any download."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from edgeagent.catalog.recommendation import (
    Ranking,
    Recommendation,
    Requirements,
    TargetDevice,
    select,
)
from edgeagent.catalog.sizing.memory import KvType
from edgeagent.catalog.sizing.repack import repacked_types
from edgeagent.catalog.sizing.speed import Rates
from edgeagent.cli.shared.configured_library import catalog_of
from edgeagent.cli.shared.measured_rates import n_threads_of, rates_measured
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.sizes import Size
from edgeagent.cli.shared.tensor_table import tensor_table, tensor_tree
from edgeagent.cli.shared.terminal import PlainConsole
from edgeagent.device.benchmark import DeviceBenchmark
from edgeagent.device.budget import budget
from edgeagent.device.capacity import HasCapacity
from edgeagent.device.configuration import Configuration, profile_folders
from edgeagent.device.microbenchmarks import measure
from edgeagent.device.probe import Device
from edgeagent.device.profile import Profile, ReferenceMachine, reference_device
from edgeagent.device.profile_files import load
from edgeagent.device.tensor_rates import TensorRates
from edgeagent.errors import InstallFailed

TASKS = ("chat", "assistant", "embedding", "rerank")
MEASURE_LIMIT_S = 3.0
SHOWN_REFUSALS = 5
TABLE_WIDTH = 112
# The daemon beside its workers: 45 MB of its own, measured, and some for its clients. The libraries
# that it shares with a worker are counted there.
DAEMON_BYTES = 50_000_000
# faster-whisper in int8 with its libraries. Estimates: 150 MB and a byte and a half a parameter.
SPEECH_BYTES = {"none": 0, "tiny": 210_000_000, "base": 260_000_000, "small": 520_000_000}
_KV_TYPES: tuple[KvType, ...] = ("f16", "q8_0")
_MB = 1e6


@click.command()
@click.option(
    "--task",
    type=click.Choice(TASKS),
    default="chat",
    show_default=True,
    help="What the model is for.",
)
@click.option("--domain", metavar="NAME", help="Prefer models made for this domain.")
@click.option(
    "--language", metavar="CODE", help="Only models that support this language, such as en or de."
)
@click.option(
    "--n-ctx", type=click.IntRange(128, 1 << 20), metavar="N", help="Smallest context in tokens."
)
@click.option(
    "--budget",
    "budget_",
    type=Size(),
    metavar="SIZE",
    help="Memory for the model, such as 600MB or 1.5GiB. Default: from the profile.",
)
@click.option("--with-speech", is_flag=True, help="Reserve memory for the profile's speech model.")
@click.option("--all", "all_", is_flag=True, help="Show all variants and all refusals.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options
def recommend(
    config: Path | None,
    task: str,
    domain: str | None,
    language: str | None,
    n_ctx: int | None,
    budget_: int | None,
    with_speech: bool,
    all_: bool,
    as_json: bool,
    profile: str | None,
    **flags: Any,
) -> None:
    """Show which models fit, how fast they will be, and why others do not fit.

    Applies to this device, or with --profile to a typical machine of that profile. Rates are predicted
    from memory bandwidth, matrix throughput and the speed of tensor types, as measured by `doctor
    --measure`, measured now (takes some seconds), or published for the profile.
    """
    here = configured(config, **flags)
    if profile is None:
        chosen = here.profile
        rates, source = rates_here(here)
        if rates.tensors and not as_json:
            PlainConsole().print(tensor_table(rates.tensors))
        target = target_of(
            chosen, here.device, rates, budget_bytes=budget_, with_speech=with_speech
        )
    else:
        chosen = load(profile, profile_folders(here.settings))
        reference = reference_device(chosen)
        source = reference.source
        rates = rates_of(reference)
        target = target_of(chosen, reference, rates, budget_bytes=budget_, with_speech=with_speech)
    ranking = ranked(here, target, Requirements(task, domain, language, n_ctx))
    if as_json:
        click.echo(as_text(chosen, target, source, ranking))
    else:
        show(chosen, target, source, ranking, all_)


def ranked(here: Configuration, target: TargetDevice, needs: Requirements) -> Ranking:
    """The models of the catalog for a target."""
    return select(catalog_of(here.settings).entries.values(), target, needs)


def best_here(here: Configuration, needs: Requirements) -> Recommendation:
    """What this device should run. Raises: InstallFailed where nothing fits."""
    rates, _ = rates_here(here)
    target = target_of(here.profile, here.device, rates)
    best = ranked(here, target, needs).best
    if best is None:
        raise InstallFailed(
            f"No model for {needs.task!r} fits the {target.budget_bytes / _MB:,.0f} MB that profile "
            f"{here.profile.name} leaves: `edgeagent models recommend` says what is missing."
        )
    return best


def rates_of(reference: ReferenceMachine) -> Rates:
    """The published rates of a profile's typical machine."""
    return Rates(reference.memory_gb_per_s * 1e9, reference.gemm_gflop_per_s)


def rates_here(here: Configuration, *, times_types_twice: bool = False) -> tuple[Rates, str]:
    """Rates of this machine with the threads of its profile, and where they come from.

    What `doctor --measure` or the daemon's first idle minute has kept, with the pace of the model that
    was measured; else the machine alone is measured now, for some seconds. The profile's typical
    machine where measuring brings nothing. `times_types_twice`: tensor types are measured once more, and
    the higher figures count.
    """
    benchmark = DeviceBenchmark(here.device, here.settings.state_dir)
    kept = benchmark.kept()
    found = kept or measure(here.device, limit_s=MEASURE_LIMIT_S)
    types = tensor_rates_of(here, benchmark)
    if times_types_twice:
        types = benchmark.run_tensors(n_threads_of(here), _no_progress, before=types)
    rates = rates_measured(here, found, types)
    if rates is None:
        return rates_of(reference_device(here.profile)), "the profile: measuring brought no result"
    if kept is None:
        return rates, "measured now"
    day = datetime.datetime.fromtimestamp(kept.measured_utc_ms / 1e3, datetime.UTC).date()
    said = f"measured on {day}"
    if found.model is not None and rates.decode_pace != 1.0:
        said += f", {rates.decode_pace:.2f} of the predicted rate with {found.model.model}"
    return rates, said


def rates_kept(here: Configuration) -> Rates | None:
    """Rates of this machine as they were measured before; None if they were not."""
    benchmark = DeviceBenchmark(here.device, here.settings.state_dir)
    kept, tensors = benchmark.kept(), benchmark.tensor_rates(n_threads_of(here))
    return rates_measured(here, kept, tensors) if kept is not None else None


def tensor_rates_of(here: Configuration, benchmark: DeviceBenchmark) -> TensorRates:
    """The speed of tensor types with the threads of the profile: kept, or measured now and kept."""
    n_threads = n_threads_of(here)
    return benchmark.tensor_rates(n_threads) or benchmark.run_tensors(n_threads, _no_progress)


def _no_progress(what: str, share: float) -> None: ...


def target_of(
    profile: Profile,
    machine: HasCapacity,
    rates: Rates,
    *,
    budget_bytes: int | None = None,
    with_speech: bool = False,
) -> TargetDevice:
    """What selection wants to know of a probed device or a profile's typical machine.

    The budget is the profile's less the daemon itself and, if asked for, speech; or as given.
    """
    chosen = profile.settings(machine)
    if budget_bytes is None:
        speech = SPEECH_BYTES[profile.speech.model] if with_speech else 0
        budget_bytes = max(0, budget(profile, machine).n_bytes - DAEMON_BYTES - speech)
    if isinstance(machine, Device):
        architecture = machine.system.architecture or ""
        features, free = machine.cpu.features, machine.storage.free_bytes
    else:
        assert isinstance(machine, ReferenceMachine)
        architecture, features, free = machine.architecture, machine.features, None
    first = _KV_TYPES.index("q8_0" if chosen["engine.kv_type"] == "q8_0" else "f16")
    return TargetDevice(
        budget_bytes=budget_bytes,
        n_threads=int(str(chosen["engine.n_threads"])),
        rates=rates,
        n_ctx=int(str(chosen["engine.n_ctx"])),
        n_seq=int(str(chosen["engine.n_seq"])),
        n_batch=int(str(chosen["engine.n_batch"])),
        kv_types=_KV_TYPES[first:],
        latency_target_ms=float(profile.engine.step_budget_ms),
        repacked=repacked_types(architecture, features),
        storage_free_bytes=free,
    )


def as_text(profile: Profile, target: TargetDevice, source: str, ranking: Ranking) -> str:
    """The ranking as one JSON object."""
    return msgspec.json.encode(
        {
            "profile": profile.name,
            "budget_bytes": target.budget_bytes,
            "rates_source": source,
            "tensor_types": tensor_tree(target.rates.tensors),
            "choices": [
                asdict(choice) | {"total_bytes": choice.memory.total_bytes}
                for choice in ranking.choices
            ],
            "refusals": [asdict(refusal) for refusal in ranking.refusals],
        }
    ).decode()


def show(profile: Profile, target: TargetDevice, source: str, ranking: Ranking, all_: bool) -> None:
    """Print the table of choices and the nearest refusals."""
    console = PlainConsole()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(
        f"Profile {profile.name}: {target.budget_bytes / _MB:,.0f} MB for a model,"
        f" {target.n_threads} threads, {target.rates.bandwidth_bytes_per_s / 1e9:.1f} GB/s,"
        f" {target.rates.gflops:.0f} GFLOP/s ({source})"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("model", "quant", "n_ctx", "KV", "seqs"):
        table.add_column(name, no_wrap=True)
    for name in ("MB", "weights", "KV MB", "other", "tok/s", "prefill"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for choice in ranking.choices if all_ else ranking.one_per_model():
        table.add_row(*_row(choice))
    console.print(table if ranking.choices else "Nothing fits.")
    refusals = [r for r in ranking.refusals if all_ or r.n_missing_bytes is not None]
    shown = refusals if all_ else refusals[:SHOWN_REFUSALS]
    for refusal in shown:
        console.print(f"not {refusal.model_id} {refusal.quant}: {refusal.reason}", soft_wrap=True)
    if len(ranking.refusals) > len(shown):
        click.echo(f"{len(ranking.refusals) - len(shown)} more are refused; --all shows why.")
    if ranking.best is not None:
        click.echo(f"edgeagent models install {ranking.best.model_id} --quant {ranking.best.quant}")


def _row(choice: Recommendation) -> tuple[str, ...]:
    memory = choice.memory
    other = memory.compute_bytes + memory.overhead_bytes + memory.template_bytes
    return (
        choice.model_id, choice.quant, str(choice.n_ctx), choice.kv_type, str(choice.n_seq),
        f"{memory.total_bytes / _MB:,.0f}", f"{memory.weights_bytes / _MB:,.0f}",
        f"{memory.kv_bytes / _MB:,.0f}", f"{other / _MB:,.0f}",
        f"{choice.decode_tokens_per_s:.1f}", f"{choice.prefill_tokens_per_s:.0f}",
        "" if choice.is_fast_enough else "slow",
    )  # fmt: skip
