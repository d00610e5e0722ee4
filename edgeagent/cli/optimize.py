"""`edgeagent optimize`: find the quantization of a model that meets targets on a device."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from edgeagent.catalog.sizing.speed import Rates
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.sizes import Size
from edgeagent.cli.shared.terminal import show_table
from edgeagent.cli.shared.text_options import context_option, special_option, threads_option
from edgeagent.device.probe import probe
from edgeagent.device.profile import reference_device
from edgeagent.device.profile_files import load
from edgeagent.errors import InvalidParameter

if TYPE_CHECKING:
    from edgeagent.optimize.candidates import Workers
    from edgeagent.optimize.search import SearchResult
    from edgeagent.optimize.targets import Targets

INPUT = click.Path(path_type=Path, dir_okay=False, exists=True)
UNMET = 3


@click.command()
@click.argument("model", type=INPUT)
@click.option("--text", "texts", type=INPUT, multiple=True, required=True, metavar="FILE",
              help="Calibration and tuning: UTF-8 text, or chats as JSON lines; may be "
              "repeated.")  # fmt: skip
@click.option("--held-out", type=INPUT, multiple=True, required=True, metavar="FILE",
              help="Text that candidates are measured on, and that nothing was tuned on; may be "
              "repeated.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
              help="Directory of the result, the report and the work, to go on with.")  # fmt: skip
@click.option("--max-size", type=Size(), metavar="SIZE", help="Largest file, such as 120MB.")
@click.option("--min-decode", type=click.FloatRange(0, min_open=True), metavar="TOK_S",
              help="Least decode rate of one sequence where nothing delays it.")  # fmt: skip
@click.option("--max-kld", type=click.FloatRange(0, min_open=True), metavar="NATS",
              help="Largest mean KL divergence from the F16 file.")  # fmt: skip
@click.option("--profile", metavar="NAME",
              help="Predict decode rates for the machine of this profile. Default: measure "
              "them here.")  # fmt: skip
@context_option
@click.option("--calibration-chunks", type=click.IntRange(1), default=32, show_default=True)
@click.option("--tuning-chunks", type=click.IntRange(1), default=4, show_default=True)
@click.option("--held-out-chunks", type=click.IntRange(1), default=16, show_default=True)
@click.option("--layers-together", type=click.IntRange(1), default=3, show_default=True,
              help="Neighbouring layers whose tensors of one kind are probed together.")  # fmt: skip
@special_option
@click.option("--limit", "limit_s", type=click.FloatRange(1), metavar="S",
              help="Begin no candidate after so many seconds; the same command goes on.")  # fmt: skip
@click.option("--time-again", is_flag=True,
              help="Time the candidates again that were timed beside other programs.")  # fmt: skip
@click.option("--workers", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="Measure candidates one after another here, or over a Ray cluster whose nodes have the "
              "same files under the same paths.")  # fmt: skip
@click.option("--ray-address", metavar="ADDRESS",
              help="The cluster, such as auto for the running one. Default: two workers on this "
              "machine, which disturb each other's timing.")  # fmt: skip
@click.option("--mixtures", metavar="TYPES",
              help="Mixtures of llama.cpp to measure, such as Q8_0,Q4_K_M; default: twelve.")  # fmt: skip
@click.option("--depth", type=click.IntRange(64, 65536), default=384, show_default=True, metavar="TOKENS",
              help="How many tokens are in the context when decode rates are timed. The KV cache and flash "
              "attention count for more with long ones.")  # fmt: skip
@threads_option
def optimize(
    model: Path, texts: tuple[Path, ...], held_out: tuple[Path, ...], out: Path, max_size: int | None,
    min_decode: float | None, max_kld: float | None, profile: str | None, n_ctx: int,
    calibration_chunks: int, tuning_chunks: int, held_out_chunks: int, layers_together: int, special: bool,
    limit_s: float | None, time_again: bool, workers: str, ray_address: str | None, mixtures: str | None,
    depth: int,
    threads: int | None,
) -> None:  # fmt: skip
    """Find the smallest loss of quality for MODEL (F16, or the finest file there is) within targets.

    \b
        edgeagent optimize model-F16.gguf --text wiki.txt --text chats.jsonl --held-out other.txt \\
            --max-size 120MB --min-decode 30 --max-kld 0.05 --out optimized

    Candidates are the mixtures of llama.cpp and mixed precision: each tensor gets the type that its measured
    sensitivity is worth. DIR has the chosen file, its recipe, report.html, report.md and a catalog entry. An
    interrupted search goes on where it was, with the same result. Where the targets cannot be met, the report
    says which one is to blame, and the exit status is 3.
    """
    from edgeagent.optimize.quantize import check_source
    from edgeagent.optimize.search import search
    from edgeagent.optimize.search_options import UNIFORM, SearchOptions
    from edgeagent.optimize.targets import Targets

    device = probe()
    targets = Targets(max_size, min_decode, max_kld)
    rates = rates_of(profile) if profile else None
    n_threads = threads or max(1, device.capacity.n_performance_cores)
    check_source(model)
    options = SearchOptions(
        calibration=texts, held_out=held_out, targets=targets, rates=rates, n_ctx=n_ctx,
        n_threads=n_threads,
        calibration_chunks=calibration_chunks, tuning_chunks=tuning_chunks, held_out_chunks=held_out_chunks,
        layers_together=layers_together, special=special, limit_s=limit_s, time_again=time_again,
        depth=depth, mixtures=tuple(mixtures.upper().split(",")) if mixtures else UNIFORM,
    )  # fmt: skip
    with timed_progress() as tell, chosen_workers(workers, ray_address) as over:
        found = asyncio.run(search(model, out, options, tell, over))
    where = (
        f"predicted for {profile}"
        if profile
        else f"measured on {device.cpu.model or 'this device'}"
    )
    about = [
        f"Decode rates are {where}, with {options.n_threads} threads, behind {depth} tokens, on "
        f"{time.strftime('%Y-%m-%d')}.",
        f"Held-out text: {', '.join(path.name for path in held_out)}, at most {held_out_chunks} chunks of "
        f"{n_ctx} tokens.",
        f"Calibration: {', '.join(path.name for path in texts)}.",
    ]
    _leave(found, targets, about, out)
    if found.chosen is None:
        raise click.exceptions.Exit(UNMET)


def rates_of(name: str) -> Rates:
    """The published rates of the typical machine of a profile. Raises: SettingsError."""
    machine = reference_device(load(name))
    return Rates(machine.memory_gb_per_s * 1e9, machine.gemm_gflop_per_s)


@contextmanager
def chosen_workers(workers: str, address: str | None) -> Iterator[Workers | None]:
    """What measures the candidates; None: this process, one after another. Raises: InvalidParameter."""
    if workers == "local":
        if address is not None:
            raise InvalidParameter("--ray-address is that of --workers ray: give both, or none.")
        yield None
        return
    from edgeagent.optimize.ray_workers import cluster, over_ray

    with cluster(address) as ray:
        yield partial(over_ray, ray)


def _leave(found: SearchResult, targets: Targets, about: list[str], out: Path) -> None:
    from edgeagent.catalog.gguf.header import read_header
    from edgeagent.optimize.report import (
        COLUMNS,
        rows_of,
        verdict,
        write_catalog_entry,
        write_report,
    )

    write_report(found, targets, about, out)
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows_of(found, targets):
        table.add_row(*row)
    show_table(table)
    for note in found.notes:
        click.echo(f"Note: {note}")
    click.echo(verdict(found, targets))
    if found.chosen is not None:
        path = out / f"{found.source.stem}-{found.chosen.file}.gguf"
        licence = read_header(found.source).metadata.get("general.license")
        model_id = re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.")[:64]
        write_catalog_entry(model_id, path, found.chosen, str(licence or "unknown"), out)
        click.echo(f"{path}, with its recipe, report.html and catalog.toml beside it.")
