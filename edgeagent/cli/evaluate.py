"""`edgeagent evaluate`: measure model files, alone or against a reference."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.terminal import show_table
from edgeagent.device.probe import probe
from edgeagent.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeagent.optimize.figures import ModelFigures

FILE = click.Path(path_type=Path, dir_okay=False)
MODEL = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("models", nargs=-1, required=True, type=MODEL)
@click.option("--against", type=MODEL, metavar="FILE",
              help="The reference, usually the F16 file: KL divergence to it is measured.")  # fmt: skip
@click.option("--text", "texts", type=MODEL, multiple=True, metavar="FILE",
              help="UTF-8 text for perplexity and KL divergence; may be repeated.")  # fmt: skip
@click.option("--ctx", "n_ctx", type=click.IntRange(16, 1 << 20), default=512, show_default=True,
              help="Tokens of a chunk of text; the second half of each is scored.")  # fmt: skip
@click.option("--chunks", type=click.IntRange(1), default=40, show_default=True,
              help="At most so many chunks of all texts together.")  # fmt: skip
@click.option(
    "--special", is_flag=True, help="The texts have names of special tokens, such as <|im_start|>."
)
@click.option("--runs", type=click.IntRange(0, 100), default=3, show_default=True,
              help="Timed runs of each model, each in a fresh process; 0 measures no speed.")  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Threads. Default: one per performance core."
)
@click.option("--kv-type", type=click.Choice(["f16", "q8_0", "q4_0"]), default="f16", show_default=True,
              help="Type of the KV cache.")  # fmt: skip
@click.option("--flash-attention", type=click.Choice(["auto", "on", "off"]), default="auto",
              show_default=True, help="Flash attention.")  # fmt: skip
@click.option("--repack/--no-repack", default=True, show_default=True,
              help="Let llama.cpp store weights in the layout of its kernels.")  # fmt: skip
@click.option(
    "--json", "json_file", type=FILE, metavar="FILE", help="Write all figures of all runs as JSON."
)
@click.option(
    "--csv", "csv_file", type=FILE, metavar="FILE", help="Write one line per model as CSV."
)
@click.option(
    "--png", "png_file", type=FILE, metavar="FILE", help="Write plots of quality and speed by size."
)
def evaluate(
    models: tuple[Path, ...], against: Path | None, texts: tuple[Path, ...], n_ctx: int, chunks: int,
    special: bool, runs: int, threads: int | None, kv_type: Literal["f16", "q8_0", "q4_0"],
    flash_attention: Literal["auto", "on", "off"], repack: bool, json_file: Path | None,
    csv_file: Path | None, png_file: Path | None,
) -> None:  # fmt: skip
    """Measure MODELS: size, bits, load time, memory, speed, perplexity, KL divergence.

    \b
        edgeagent evaluate small.gguf --text wiki.txt
        edgeagent evaluate q4.gguf q5.gguf --against f16.gguf --text wiki.txt --png plots.png

    Perplexity is that of llama-perplexity: the text is cut into chunks, and the second half of each is
    predicted. The KL divergence is how far the predictions are from those of the reference, in nats (0:
    equal). Speeds are medians of the runs; the spread is in the JSON and CSV files. Measure on a quiet
    machine.
    """
    if against is not None and not texts:
        raise InvalidParameter(
            "--against compares predictions on a text: give --text FILE as well."
        )
    for path in (*models, *([against] if against else [])):
        inspect_apart(path)
    from edgeagent.optimize.evaluate import EvaluationOptions
    from edgeagent.optimize.evaluate import evaluate as measure

    device = probe()
    n_threads = threads or max(1, device.capacity.n_performance_cores)
    options = EvaluationOptions(
        texts=texts, n_ctx=n_ctx, max_chunks=chunks, n_runs=runs, n_threads=n_threads, special=special,
        kv_type=kv_type, flash_attention=flash_attention, repack=repack,
    )  # fmt: skip
    with timed_progress() as tell:
        found = asyncio.run(measure(models, against, options, tell))
    _write(found, options, device.cpu.model, json_file, csv_file, png_file)
    _show(found)


def _write(
    found: Sequence[ModelFigures], options: Any, machine: str | None, json_file: Path | None,
    csv_file: Path | None, png_file: Path | None,
) -> None:  # fmt: skip
    from edgeagent.optimize import figure_files

    if json_file is not None:
        about = {
            "machine": machine, "n_threads": options.n_threads, "n_ctx": options.n_ctx,
            "texts": [path.name for path in options.texts], "kv_type": options.kv_type,
            "flash_attention": options.flash_attention, "repack": options.repack,
        }  # fmt: skip
        figure_files.write_json(found, about, json_file)
    if csv_file is not None:
        figure_files.write_csv(found, csv_file)
    if png_file is not None:
        figure_files.draw(found, png_file)


def _show(found: Sequence[ModelFigures]) -> None:
    from edgeagent.optimize.figures import METRICS, best_by_metric
    from edgeagent.optimize.quietness import is_quiet

    metrics = [m for m in METRICS if any(m.value(one) is not None for one in found)]
    table = Table("model", *(m.title for m in metrics), "types", box=None, pad_edge=False)
    for one in found:
        values = [m.value(one) for m in metrics]
        cells = ["" if v is None else m.shown(v) for m, v in zip(metrics, values, strict=True)]
        table.add_row(one.name, *cells, one.bits.described())
    show_table(table)
    loads = [run.others_cores for one in found for run in one.runs]
    busy = [load for load in loads if load is not None and not is_quiet(load)]
    if busy:
        click.echo(
            f"Note: other programs used up to {max(busy):.1f} cores during {len(busy)} of {len(loads)} timed "
            "runs: measure speeds again on a quiet machine."
        )
    best = best_by_metric(found)
    if best:
        titles = {m.name: m.title for m in metrics}
        told = "; ".join(f"{titles[name]}: {model}" for name, model in best.items())
        click.echo(f"Best by metric: {told}.")
