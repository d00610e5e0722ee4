"""`edgeagent tune`: find the engine flags that a model runs fastest with on this device."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.cli.shared.configured_library import library_of
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.terminal import show_table
from edgeagent.cli.shared.text_options import context_option
from edgeagent.device.benchmark import DeviceBenchmark

INPUT = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("model")
@click.option("--text", "texts", type=INPUT, multiple=True, metavar="FILE",
              help="UTF-8 text to measure what a coarser KV cache loses; without, it stays f16.")  # fmt: skip
@click.option("--max-kld", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True,
              metavar="NATS", help="Largest mean KL divergence that a coarser cache may make.")  # fmt: skip
@context_option
@click.option("--chunks", type=click.IntRange(1), default=4, show_default=True)
@click.option("--max-threads", type=click.IntRange(1, 256),
              help="Most threads to try. Default: one per usable core.")  # fmt: skip
@settings_options
def tune(
    model: str, texts: tuple[Path, ...], max_kld: float, n_ctx: int, chunks: int, max_threads: int | None,
    config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Measure how the installed MODEL runs fastest here: threads, batch, flash attention, repacking, KV.

    \b
        edgeagent tune smollm2-135m-instruct --text notes.txt

    The flags are kept with the measurements of this device, and the next load of the model uses them, except
    where your own settings say something else. Another kernel, llama.cpp or model file has to be measured
    again. Measure on a quiet machine; it takes a few minutes.
    """
    configuration = configured(config, **flags)
    path = library_of(configuration.settings).resolve(model).path
    inspect_apart(path)
    from edgeagent.optimize.flag_search import fastest_flags

    n_cores = max_threads or configuration.device.capacity.n_threads_max
    with timed_progress() as tell:
        trials = asyncio.run(
            fastest_flags(
                path,
                n_cores,
                texts=texts,
                max_kld=max_kld,
                n_ctx=n_ctx,
                max_chunks=chunks,
                tell=tell,
            )
        )
    table = Table("threads", "batch", "KV", "flash attention", "repack", "request", "", box=None)
    for trial in trials:
        notes = ["faster"] if trial.is_kept and trial is not trials[0] else []
        notes += [f"mean KLD {trial.kld:.4g}"] if trial.kld is not None else []
        notes += (
            [f"beside {trial.others_cores:.1f} busy cores"] if trial.others_cores > 0.25 else []
        )
        tried = trial.flags
        table.add_row(
            str(tried.n_threads), str(tried.n_batch), tried.kv_type, tried.flash_attention,
            "yes" if tried.repack else "no", f"{trial.seconds:.3f} s", ", ".join(notes),
        )  # fmt: skip
    show_table(table)
    best = [trial for trial in trials if trial.is_kept][-1]
    benchmark = DeviceBenchmark(configuration.device, configuration.settings.state_dir)
    benchmark.engine_flags.save(path, best.flags)
    gain = 1 - best.seconds / trials[0].seconds
    click.echo(
        f"Kept for the next load of {model}: {gain:.0%} less time for a request than as usual."
    )
