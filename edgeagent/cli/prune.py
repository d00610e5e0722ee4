"""`edgeagent prune`: leave out tokens that a domain never uses, and layers that are missed least."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.text_options import context_option, special_option, threads_option
from edgeagent.device.probe import probe

FILE = click.Path(path_type=Path, dir_okay=False)
INPUT = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group()
def prune() -> None:
    """Leave parts of a model out: tokens that a domain never uses, whole layers, heads and channels."""


@prune.command()
@click.argument("source", type=INPUT)
@click.argument("target", type=FILE)
@click.option("--text", "texts", type=INPUT, multiple=True, required=True, metavar="FILE",
              help="The domain: UTF-8 text, or chats as JSON lines; may be repeated.")  # fmt: skip
@special_option
def vocabulary(source: Path, target: Path, texts: tuple[Path, ...], special: bool) -> None:
    """Write SOURCE as TARGET with the tokens of the texts, all bytes and all special tokens.

    \b
        edgeagent prune vocabulary model.gguf smaller.gguf --text english.txt --text chats.jsonl

    Texts of the domain are split as before, others into smaller pieces. The logits of kept tokens do not
    change. Any quantization will do.
    """
    inspect_apart(source)
    from edgeagent.optimize.pruning import prune_vocabulary

    found, n_before = asyncio.run(prune_vocabulary(source, target, texts, special=special))
    before, after = source.stat().st_size, target.stat().st_size
    click.echo(
        f"{target}: {len(found.ids)} of {n_before} tokens, {megabytes(after)} instead of {megabytes(before)}."
    )


@prune.command()
@click.argument("source", type=INPUT)
@click.argument("target", type=FILE)
@click.option("--text", "texts", type=INPUT, multiple=True, required=True, metavar="FILE",
              help="What the layers are missed on: UTF-8 text, or chats as JSON lines.")  # fmt: skip
@click.option(
    "--n", "n_dropped", type=click.IntRange(1), required=True, help="How many layers to leave out."
)
@click.option("--max-kld", type=click.FloatRange(0, min_open=True), metavar="NATS",
              help="Stop before the mean KL divergence passes this.")  # fmt: skip
@context_option
@click.option("--chunks", type=click.IntRange(1), default=4, show_default=True,
              help="At most so many chunks of all texts together.")  # fmt: skip
@special_option
@threads_option
def layers(
    source: Path, target: Path, texts: tuple[Path, ...], n_dropped: int, max_kld: float | None, n_ctx: int,
    chunks: int, special: bool, threads: int | None,
) -> None:  # fmt: skip
    """Write SOURCE (F16) as TARGET without the layers that are missed least.

    \b
        edgeagent prune layers model-F16.gguf smaller-F16.gguf --text wiki.txt --n 3

    After each layer that is left out, the divergence without every other one is measured again. Beside
    TARGET, its recipe says which layers are gone.
    """
    inspect_apart(source)
    from edgeagent.optimize.pruning import prune_layers

    n_threads = threads or max(1, probe().capacity.n_performance_cores)
    with timed_progress() as tell:
        dropped = asyncio.run(
            prune_layers(
                source, target, texts, n_dropped, max_kld=max_kld, n_ctx=n_ctx, max_chunks=chunks,
                special=special, n_threads=n_threads, tell=tell,
            )
        )  # fmt: skip
    for one in dropped:
        click.echo(f"Layer {one.layer} left out: mean KL divergence {one.kld:.4g}.")
    click.echo(f"{target}: {megabytes(target.stat().st_size)}.")


@prune.command()
@click.argument("source", type=INPUT)
@click.argument("target", type=FILE)
@click.option("--text", "texts", type=INPUT, multiple=True, required=True, metavar="FILE",
              help="What heads and channels are missed on: UTF-8 text, or chats as JSON lines.")  # fmt: skip
@click.option("--share", type=click.FloatRange(0, 0.9, min_open=True), required=True,
              help="Share of the parameters of the layers to leave out, such as 0.1.")  # fmt: skip
@click.option("--steps", "n_steps", type=click.IntRange(1, 100), default=4, show_default=True,
              help="Steps; activations are measured again before each.")  # fmt: skip
@click.option("--max-kld", type=click.FloatRange(0, min_open=True), metavar="NATS",
              help="Stop before the mean KL divergence passes this.")  # fmt: skip
@context_option
@click.option("--chunks", type=click.IntRange(1), default=4, show_default=True,
              help="Chunks that divergences are measured on.")  # fmt: skip
@click.option("--statistics-chunks", type=click.IntRange(1), default=32, show_default=True,
              help="Chunks after those that activations are measured on.")  # fmt: skip
@special_option
@threads_option
def width(
    source: Path, target: Path, texts: tuple[Path, ...], share: float, n_steps: int, max_kld: float | None,
    n_ctx: int, chunks: int, statistics_chunks: int, special: bool, threads: int | None,
) -> None:  # fmt: skip
    """Write SOURCE (F16) as TARGET with fewer attention heads and feed-forward channels in each layer.

    \b
        edgeagent prune width model-F16.gguf narrow-F16.gguf --text wiki.txt --share 0.1

    Heads and channels go by their activations on the texts, in steps; each step takes what costs the least
    divergence per parameter, and --max-kld ends them. All layers stay equally wide, as llama.cpp needs it.
    TARGET is loaded and measured before it takes its place; TARGET.width.json says what went.
    """
    inspect_apart(source)
    from edgeagent.optimize.narrowing import narrow

    n_threads = threads or max(1, probe().capacity.n_performance_cores)
    with timed_progress() as tell:
        found = asyncio.run(
            narrow(
                source, target, texts, share, n_steps=n_steps, max_kld=max_kld, n_ctx=n_ctx,
                max_chunks=chunks, statistics_chunks=statistics_chunks, special=special,
                n_threads=n_threads, tell=tell,
            )
        )  # fmt: skip
    for step in found.steps:
        click.echo(
            f"Without {step.what}: {step.share:.1%} of the layers' parameters gone, mean KL divergence "
            f"{step.kld:.4g}."
        )
    if not found.is_whole:
        bound = (
            "nothing more can be cut"
            if max_kld is None
            else f"more would pass --max-kld {max_kld:g}"
        )
        click.echo(f"Stopped before {share:.0%}: {bound}.")
    shape = found.shape
    click.echo(
        f"{target}: {megabytes(target.stat().st_size)}; {shape.n_heads} heads, {shape.n_kv_heads} with "
        f"keys of their own, {shape.n_ff} channels; mean KL divergence of the file {found.kld:.4g}."
    )


@prune.command()
@click.argument("source", type=INPUT)
@click.argument("target", type=FILE)
@click.option("--share", type=click.FloatRange(0, 1, min_open=True, max_open=True), required=True,
              help="Share of the weights of each row of the layers to set to zero.")  # fmt: skip
@click.option("--imatrix", type=INPUT, metavar="FILE",
              help="Weigh columns by their activations (`edgeagent imatrix`).")  # fmt: skip
def magnitude(source: Path, target: Path, share: float, imatrix: Path | None) -> None:
    """Set the smallest weights of SOURCE (F16) to zero, for study: TARGET is neither smaller nor faster.

    \b
        edgeagent prune magnitude model-F16.gguf sparse-F16.gguf --share 0.3 --imatrix model.imatrix.gguf
        edgeagent evaluate sparse-F16.gguf --against model-F16.gguf --text wiki.txt
    """
    inspect_apart(source)
    from edgeagent.optimize.magnitude import zero_smallest

    n_zero, n_all = zero_smallest(source, target, share, imatrix)
    click.echo(
        f"{target}: {n_zero / n_all:.1%} of {n_all} weights are zero. The file has "
        f"{megabytes(target.stat().st_size)} as before, and dense kernels save nothing: they multiply zeros, "
        "too."
    )
