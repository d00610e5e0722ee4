"""`edgeagent forge encoder`: the sentence encoder that own intents are built on."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from edgeagent.errors import ForgeFailed

NAME = "edge-encoder"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path("data"),
              show_default=True, help="Directory of the public data sets.")  # fmt: skip
@click.option("--texts", type=click.Path(path_type=Path, file_okay=False), default=Path("data"),
              show_default=True, help="Directory of the other texts: wordnet/, debian/. Errors name the "
              "origin of a missing one.")  # fmt: skip
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"),
              show_default=True, help="Directory of training runs.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("models"),
              show_default=True, help="Directory to write: edge-encoder/ with file and card.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), default=None,
              help="Number of threads. Default: one per core.")  # fmt: skip
def encoder(data: Path, texts: Path, runs: Path, out: Path, threads: int | None) -> None:
    """Train edge-encoder, on which `forge new` builds models of own intents.

    Layers and word pieces of all-MiniLM-L6-v2, taught by the whole of it on broad English texts. Ctrl-C
    interrupts; the same command goes on.
    """
    try:
        import torch

        from edgeagent.forge import published_models
        from edgeagent.forge.model_record import write_record
        from edgeagent.forge.sentence.corpus import read
        from edgeagent.forge.sentence.encoder_card import EncoderFacts, encoder_card
        from edgeagent.forge.sentence.training import EncoderRecipe, EncoderTraining
    except ImportError as exc:
        raise ForgeFailed(
            f"Training needs {exc.name}: run pip install 'edgeagent[forge]'."
        ) from exc
    if threads is not None:
        torch.set_num_threads(threads)
    corpus = read(data, texts)
    published_models.fetch(runs / "published", lambda text: click.echo(text, err=True))
    recipe = EncoderRecipe()
    training = EncoderTraining(runs / NAME, runs / "published" / "minilm", corpus, recipe)
    is_asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal is_asked
        is_asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        figures = (
            training.distil(lambda: is_asked) if training.ask_teacher(lambda: is_asked) else {}
        )
    finally:
        signal.signal(signal.SIGINT, before)
    if is_asked:
        raise ForgeFailed(
            f"Interrupted: the progress is in {runs / NAME}; the same command resumes it."
        )
    target = out / NAME / f"{NAME}.gguf"
    made = training.export(target)
    facts = EncoderFacts(
        made.n_params, recipe.n_pieces, recipe.n_layers, recipe.depths, len(training.texts),
        len(corpus.texts), corpus.sha256, recipe.epochs, figures["score"], target.stat().st_size,
    )  # fmt: skip
    write_record(target, "Q4_0", {}, is_part=True)
    (target.parent / "README.md").write_text(encoder_card(NAME, facts), encoding="utf-8")
    click.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB, agreement {figures['score']:.3f}")
