"""`edgeagent evaluate`: measure model files, alone or against a reference."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.terminal import show_table
from edgeagent.cli.shared.text_options import special_option, threads_option
from edgeagent.device.probe import probe
from edgeagent.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeagent.optimize.efficiency import Part, Prices
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
@special_option
@click.option("--runs", type=click.IntRange(0, 100), default=3, show_default=True,
              help="Timed runs of each model, each in a fresh process; 0 measures no speed.")  # fmt: skip
@click.option("--suite", "suite_files", type=MODEL, multiple=True, metavar="FILE",
              help="Tasks with known answers, one JSON object a line; may be repeated.")  # fmt: skip
@click.option("--price-per-kwh", type=click.FloatRange(0), metavar="PRICE",
              help="Price of energy, for the cost of 1,000 requests.")  # fmt: skip
@click.option("--price-per-hour", type=click.FloatRange(0), metavar="PRICE",
              help="Price of an hour of the device without energy, in the same currency.")  # fmt: skip
@click.option("--weights", metavar="NAME=N,...",
              help="Weights of the efficiency score: quality, decode, ttft, memory, energy.")  # fmt: skip
@threads_option
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
    csv_file: Path | None, png_file: Path | None, suite_files: tuple[Path, ...],
    price_per_kwh: float | None, price_per_hour: float | None, weights: str | None,
) -> None:  # fmt: skip
    """Measure MODELS: size, bits, load time, memory, speed, perplexity, KL divergence, solved tasks.

    \b
        edgeagent evaluate small.gguf --text wiki.txt
        edgeagent evaluate q4.gguf q5.gguf --against f16.gguf --text wiki.txt --png plots.png

    Perplexity is that of llama-perplexity: the text is cut into chunks, and the second half of each is
    predicted. The KL divergence is how far the predictions are from those of the reference, in nats (0:
    equal). Speeds are medians of the runs; the spread is in the JSON and CSV files. Measure on a quiet
    machine.

    Tasks are asked through the API of a daemon of their own. Their kinds:

    \b
        {"kind": "choice", "prompt": "...", "choices": ["a", "b"], "answer": "a"}
        {"kind": "exact", "prompt": "...", "answers": ["Paris"]}
        {"kind": "summary", "prompt": "...", "reference": "..."}           scored by ROUGE-L
        {"kind": "schema", "prompt": "...", "schema": {}, "expected": {}}  expected may be left out
        {"kind": "call", "prompt": "...", "tools": [], "expected": {"name": "f", "arguments": {}}}

    A request, for its energy and cost, is a prompt of 384 tokens with 48 more. Energy comes from RAPL,
    current sensors or a battery, and is unmeasured where none can be read.
    """
    if against is not None and not texts:
        raise InvalidParameter(
            "--against compares predictions on a text: give --text FILE as well."
        )
    for path in (*models, *([against] if against else [])):
        inspect_apart(path)
    from edgeagent.optimize.efficiency import Prices, read_weights, scored
    from edgeagent.optimize.evaluate import EvaluationOptions
    from edgeagent.optimize.evaluate import evaluate as measure
    from edgeagent.optimize.suites import read_suite
    from edgeagent.optimize.task_accuracy import measure_suites

    wanted = read_weights(weights)
    suites = [read_suite(path) for path in suite_files]

    device = probe()
    n_threads = threads or max(1, device.capacity.n_performance_cores)
    options = EvaluationOptions(
        texts=texts, n_ctx=n_ctx, max_chunks=chunks, n_runs=runs, n_threads=n_threads, special=special,
        kv_type=kv_type, flash_attention=flash_attention, repack=repack,
    )  # fmt: skip
    with timed_progress() as tell:
        found = asyncio.run(measure(models, against, options, tell))
        if suites:
            found = [
                replace(one, suites=measure_suites(one.path, suites, n_threads, max(1, runs), tell))
                for one in found
            ]
    prices = Prices(price_per_kwh, price_per_hour)
    found, parts = scored(found, prices, wanted)
    about = {
        "machine": device.cpu.model, "n_threads": options.n_threads, "n_ctx": options.n_ctx,
        "texts": [path.name for path in options.texts], "kv_type": options.kv_type,
        "flash_attention": options.flash_attention, "repack": options.repack, "prices": asdict(prices),
        "efficiency": [asdict(part) for part in parts],
    }  # fmt: skip
    _write(found, about, json_file, csv_file, png_file)
    _show(found)
    _show_tasks(found)
    _show_score(found, parts, prices)


def _write(
    found: Sequence[ModelFigures], about: dict[str, Any], json_file: Path | None, csv_file: Path | None,
    png_file: Path | None,
) -> None:  # fmt: skip
    from edgeagent.optimize import figure_files

    if json_file is not None:
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


def _show_tasks(found: Sequence[ModelFigures]) -> None:
    if not any(one.suites for one in found):
        return
    table = Table("model", "suite", "tasks", "score", "ROUGE-1", "ROUGE-2", "answer", box=None)
    for one in found:
        for suite in one.suites:
            rouges = ["" if r is None else f"{r:.3f}" for r in (suite.rouge_1, suite.rouge_2)]
            took = suite.latency_ms
            table.add_row(
                one.name, suite.suite, str(suite.n_tasks),
                f"{suite.accuracy:.1%} ± {suite.error:.1%}", *rouges,
                f"{took.median:.0f} ms ({took.low:.0f} to {took.high:.0f})",
            )  # fmt: skip
    show_table(table)


def _show_score(found: Sequence[ModelFigures], parts: Sequence[Part], prices: Prices) -> None:
    if any(one.runs for one in found) and not any(one.spread("energy_j") for one in found):
        click.echo(
            "Energy: unmeasured; no RAPL counter, current sensor or battery can be read here."
        )
        if prices.per_kwh is not None:
            click.echo(
                "Cost: not computed; leave --price-per-kwh out for that of the device alone."
            )
    if parts:
        told = ", ".join(f"{part.name} {part.weight:.2f} ({part.metric})" for part in parts)
        click.echo(f"Efficiency: each part relative to the best model here, weighted: {told}.")
