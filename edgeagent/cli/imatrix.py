"""`edgeagent imatrix`: which weights of a model matter, by a calibration text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.text_options import context_option, special_option, threads_option
from edgeagent.device.probe import probe

FILE = click.Path(path_type=Path, dir_okay=False)
INPUT = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("model", type=INPUT)
@click.option("--text", "texts", type=INPUT, multiple=True, required=True, metavar="FILE",
              help="UTF-8 text, or chats as JSON lines (.jsonl); may be repeated.")  # fmt: skip
@click.option(
    "--out", type=FILE, required=True, metavar="FILE", help="The matrix to write or to go on with."
)
@context_option
@click.option(
    "--chunks", type=click.IntRange(1), help="At most so many chunks, from all texts in turn."
)
@special_option
@threads_option
def imatrix(
    model: Path, texts: tuple[Path, ...], out: Path, n_ctx: int, chunks: int | None, special: bool,
    threads: int | None,
) -> None:  # fmt: skip
    """Collect the importance matrix of MODEL (F16 or F32) over a calibration text.

    \b
        edgeagent imatrix model-F16.gguf --text wiki.txt --text chats.jsonl --out model.imatrix.gguf

    The matrix says how large the activations of each column were; `edgeagent quantize --imatrix` and
    llama-quantize weight errors by it. A matrix of one kind of text overfits it: mix texts, and chats like
    those that the model will have, one {"messages": [{"role": "user", "content": "..."}]} a line. An
    interrupted command goes on where it was.
    """
    inspect_apart(model)
    from edgeagent.optimize.imatrix import collect

    n_threads = threads or max(1, probe().capacity.n_performance_cores)
    with timed_progress() as tell:
        found = asyncio.run(
            collect(
                model,
                texts,
                out,
                n_ctx=n_ctx,
                max_chunks=chunks,
                n_threads=n_threads,
                special=special,
                tell=tell,
            )
        )
    click.echo(
        f"{out}: {len(found.sums)} matrices, {found.n_chunks} chunks of {found.chunk_tokens} tokens."
    )
