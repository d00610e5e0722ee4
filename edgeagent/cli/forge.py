"""`edgeagent forge`: train small domain models, teach smaller ones, export, evaluate."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edgeagent.cli.forge_adapt import adapt
from edgeagent.cli.forge_encoder import encoder
from edgeagent.cli.forge_new import new
from edgeagent.cli.forge_review import review
from edgeagent.cli.forge_scope import scope
from edgeagent.cli.forge_update import rollback, update
from edgeagent.cli.shared.terminal import show_table
from edgeagent.errors import ForgeFailed
from edgeagent.worker.process_environment import keep_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeagent.forge.evaluate import EvaluationResult
    from edgeagent.forge.parity import Parity
    from edgeagent.forge.recipe import Recipe
    from edgeagent.forge.training_runs import TrainingRuns


def forge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("data"),
            show_default=True,
            help="Directory of the public data sets: clinc150/, banking77/, snips/, bfcl/. Errors "
            "name the origin of a missing one.",
        ),
        click.option(
            "--runs",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("runs"),
            show_default=True,
            help="Directory of training runs: vocabulary, checkpoints, logs.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 256),
            default=None,
            help="Number of threads. Default: one per core.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def forge() -> None:
    """Teach a model your own intents, or train assistants from public data sets.

    \b
    Your own intents, from examples (needs `pip install edgeagent[intents]`, no torch):
        edgeagent forge new my-bot --from intents.csv

    \b
    An assistant like the shipped ones (needs `pip install edgeagent[forge]`): train a
    teacher, train a model with its help, and export that model:
        edgeagent forge train sentence-teacher --data data --runs runs
        edgeagent forge distill edge-assistant-s --data data --runs runs
        edgeagent forge export edge-assistant-s --data data --runs runs --out models

    Ctrl-C interrupts a training; the same command resumes it.
    """


for command in (new, adapt, review, update, rollback, encoder, scope):
    forge.add_command(command)


@forge.command()
@click.argument("recipe")
@forge_options
def train(recipe: str, data: Path, runs: Path, threads: int | None) -> None:
    """Train with a recipe, from labels only.

    RECIPE is a TOML file, or the name of a bundled recipe.
    """
    _train(recipe, data, runs, threads, with_teachers=False)


@forge.command()
@click.argument("recipe")
@forge_options
def distill(recipe: str, data: Path, runs: Path, threads: int | None) -> None:
    """Train with a recipe, from labels and from the predictions of its teachers.

    RECIPE is a TOML file, or the name of a bundled recipe. Its teachers are trained first.
    """
    _train(recipe, data, runs, threads, with_teachers=True)


def _train(
    recipe: str, data: Path, runs: Path, threads: int | None, *, with_teachers: bool
) -> None:
    opened, wanted = _opened(recipe, data, runs, threads)
    with _interruptible() as is_interrupted:
        figures = opened.train(wanted, with_teachers=with_teachers, until=is_interrupted)
        if is_interrupted():
            raise ForgeFailed(
                f"Interrupted: the progress is in {runs / wanted.name}; the same command resumes it."
            )
    _show(wanted.name, figures)


@forge.command()
@click.argument("run")
@forge_options
@click.option(
    "--quant",
    default="Q8_0",
    show_default=True,
    help="Quantization of the weights; F16 keeps them as trained.",
)
@click.option(
    "--beside",
    multiple=True,
    metavar="RUN",
    help="Another run to compare with in the card; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="Directory to write: RUN/ with the GGUF file, model.toml and README.md (the card), and "
    "edge-assistant.json with the intents.",
)
def export(
    run: str,
    data: Path,
    runs: Path,
    threads: int | None,
    quant: str,
    beside: tuple[str, ...],
    out: Path,
) -> None:
    """Export the trained RUN as GGUF.

    The file is compared with torch and quantized; both files are evaluated on the validation splits, and
    the record with its thresholds and the card are written.
    """
    opened = _runs(data, runs, threads)
    from edgeagent.device.probe import probe
    from edgeagent.forge.export import ModelInfo, write_gguf, write_tools
    from edgeagent.forge.model_card import card
    from edgeagent.forge.model_record import write_record
    from edgeagent.forge.quantize import quantize

    others = [opened.training(name) for name in beside]
    trained = opened.training(run)
    vocabulary, decoder = opened.decoder_of(run)
    plain = opened.folder / run / f"{run}.F16.gguf"
    write_gguf(decoder, vocabulary, ModelInfo(run, trained.recipe.description), plain)
    parity = _checked(opened, plain, vocabulary, decoder)
    target = out / run / f"{run}.{quant}.gguf"
    target.parent.mkdir(parents=True, exist_ok=True)
    if quant == "F16":
        target.write_bytes(plain.read_bytes())
    else:
        quantize(plain, target, quant, threads or 0)
    click.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    figures = [_measured(opened, path, 1) for path in (plain, target)]
    write_tools(opened.corpus, out / "edge-assistant.json")
    write_record(target, quant, {d: t.value for d, t in figures[1].thresholds.items()})
    n_threads = threads or os.cpu_count() or 1
    machine = probe().cpu.model or "an unknown processor"
    machine += f", {n_threads} thread{'s' if n_threads > 1 else ''}"
    text = card(trained, target, quant, figures[0], figures[1], parity, others, machine)
    (target.parent / "README.md").write_text(text, encoding="utf-8")
    _show(f"{run} {quant}", figures[1].as_dict())


def _checked(opened: TrainingRuns, plain: Path, vocabulary: Any, decoder: Any) -> Parity:
    """Raises: ForgeFailed if llama.cpp and torch give different results."""
    from edgeagent.forge.evaluate import sample
    from edgeagent.forge.parity import compare

    texts = [item.text for item in sample(opened.corpus.validation, 50)]
    parity = compare(decoder, vocabulary, plain, texts)
    click.echo(
        f"llama.cpp and torch on {parity.n_prompts} prompts: largest difference of a logit "
        f"{parity.largest_difference:.4f}, {parity.n_equal} greedy answers equal"
    )
    if parity.n_equal < parity.n_prompts or parity.n_same_ids < parity.n_prompts:
        raise ForgeFailed(
            f"{plain} differs from the trained model in {parity.n_prompts - parity.n_equal} answers: check "
            "the versions of gguf and llama-cpp-python, then export again."
        )
    return parity


@forge.command()
@click.argument("model")
@forge_options
@click.option("--every", type=click.IntRange(1), default=1, help="Evaluate only every Nth item.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    model: str, data: Path, runs: Path, threads: int | None, every: int, as_json: bool
) -> None:
    """Evaluate a GGUF file with llama.cpp on the validation splits.

    MODEL is a file, or the name of an exported run.
    """
    opened = _runs(data, runs, threads)
    path = Path(model)
    if not path.suffix:
        path = opened.folder / model / f"{model}.F16.gguf"
    if not path.is_file():
        raise ForgeFailed(f"{path} is missing: name a GGUF file, or export the run first.")
    figures = _measured(opened, path, every)
    if as_json:
        click.echo(json.dumps(figures.as_dict()))
    else:
        _show(path.name, figures.as_dict())


def _measured(opened: TrainingRuns, path: Path, every: int) -> EvaluationResult:
    from edgeagent.forge.evaluate import evaluate as measure
    from edgeagent.forge.tokenizer import AssistantTokenizer

    vocabulary = AssistantTokenizer.read(opened.folder / "vocabulary.json")
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(path.name, total=len(opened.corpus.validation[::every]))
        return measure(
            path,
            vocabulary,
            opened.corpus,
            every=every,
            say=lambda n: progress.update(bar, advance=n),
        )


def _runs(data: Path, runs: Path, threads: int | None) -> TrainingRuns:
    """Everything that training needs. Raises: ForgeFailed, also if the extra is not installed."""
    missing = [
        name for name in ("torch", "tokenizers", "gguf") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ForgeFailed(
            f"Training needs {', '.join(missing)}: run pip install 'edgeagent[forge]'."
        )
    keep_kernels()
    import torch

    from edgeagent.forge import published_models
    from edgeagent.forge.datasets import load
    from edgeagent.forge.training_runs import TrainingRuns

    if threads is not None:
        torch.set_num_threads(threads)
    corpus = load(data)
    published_models.fetch(runs / "published", lambda text: click.echo(text, err=True))
    return TrainingRuns(runs, corpus, runs / "published")


def _opened(
    recipe: str, data: Path, runs: Path, threads: int | None
) -> tuple[TrainingRuns, Recipe]:
    from edgeagent.forge.recipe import read_recipe

    # A wrong recipe is an error before anything is read or downloaded.
    wanted = read_recipe(Path(recipe))
    return _runs(data, runs, threads), wanted


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the training at the next step; a second Ctrl-C ends it at once."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _show(name: str, figures: dict[str, float]) -> None:
    table = Table("figure", "value", title=name, title_justify="left")
    for key, value in figures.items():
        table.add_row(key, f"{value:.4f}")
    show_table(table)
