"""`edgeagent forge scope`: the scope gates of the shipped assistants."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import msgspec

from edgeagent.cli.shared.progress import timed_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.errors import ForgeFailed

NAME = "edge-assistant"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path("data"),
              show_default=True, help="Directory of the public data sets.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("models"),
              show_default=True, help="Directory of the assistants and of their gates.")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"),
              show_default=True, help="Directory for unfinished work; the same command goes on.")  # fmt: skip
def scope(data: Path, out: Path, work: Path) -> None:
    """Make the gates that tell texts out of the scope of the shipped assistants.

    Asks each assistant in --out about the validation texts, and edge-encoder there for their vectors; without
    it the gates know words only.
    """
    from edgeagent.catalog.digest import sha256_of
    from edgeagent.forge import scope_files
    from edgeagent.forge.datasets import load
    from edgeagent.routing.training.scope_training import Answer, write_scope

    paths = sorted(out.glob(f"{NAME}-*/*.gguf"))
    if not paths:
        raise ForgeFailed(f"{out} has no assistants: export one first, or name another --out.")
    encoder = out / scope_files.ENCODER / f"{scope_files.ENCODER}.gguf"
    corpus = load(data)
    texts = scope_files.ScopeTexts.of(corpus)
    work.mkdir(parents=True, exist_ok=True)
    answers: dict[str, dict[str, list[Answer]]] = {}
    with timed_progress() as tell:
        known = {}
        if encoder.is_file():
            every = texts.all_texts
            known = scope_files.vectors_of(
                encoder, every, work / "vectors.npz", lambda n: tell("vectors", n, len(every))
            )
        for path in paths:
            sha256 = sha256_of(path)
            for domain, fitted in texts.fitted.items():
                kept = work / f"{sha256[:16]}-{domain}.answers"
                name, n = f"{path.stem}, {domain}", len(fitted)
                found = scope_files.answers_of(
                    path, fitted, corpus, domain, kept, partial(_tell, tell, name, n)
                )
                answers.setdefault(sha256, {})[domain] = [
                    msgspec.structs.replace(one, vector=known.get(one.text)) for one in found
                ]
    made = scope_files.scope_file(texts, answers, known)
    target = out / f"{NAME}.scope"
    write_scope(made, target)
    click.echo(f"{target}: {megabytes(target.stat().st_size)}")


def _tell(tell: Callable[[str, int, int | None], None], name: str, total: int, n: int) -> None:
    tell(name, n, total)
