"""Texts that models are scored on, cut into chunks of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import ScoringClient

MAX_TEXT_BYTES = 64 << 20
_TOKEN_BYTES = 4


@dataclass(frozen=True)
class Chunk:
    """`n_ctx` tokens of one file, int32 [n_ctx]."""

    tokens: bytes
    file: str


def read_text(path: Path) -> str:
    """A text file in UTF-8, without its last newline, as llama.cpp reads it. Raises: InvalidParameter."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InvalidParameter(
            f"The text {path} cannot be read ({exc.strerror}): check the path."
        ) from exc
    if len(data) > MAX_TEXT_BYTES:
        raise InvalidParameter(
            f"The text {path} has {len(data)} bytes, at most {MAX_TEXT_BYTES} are read: cut it."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidParameter(
            f"The text {path} is not UTF-8 (byte {exc.start}): convert it."
        ) from exc
    if not text.strip():
        raise InvalidParameter(f"The text {path} is empty: name a file with text.")
    return text.removesuffix("\n")


async def chunks_of(
    client: ScoringClient,
    paths: Sequence[Path],
    n_ctx: int,
    max_chunks: int | None,
    *,
    special: bool = False,
) -> list[Chunk]:
    """The texts as chunks of exactly `n_ctx` tokens, file by file; what is left of a file is dropped.

    `max_chunks` of all files together, taken from each file's beginning in turn. Raises: InvalidParameter
    for a file with less than one chunk.
    """
    by_file: list[list[Chunk]] = []
    for path in paths:
        tokens = await client.tokens(read_text(path), special=special)
        step = n_ctx * _TOKEN_BYTES
        found = [
            Chunk(tokens[at : at + step], path.name)
            for at in range(0, len(tokens) - step + 1, step)
        ]
        if not found:
            raise InvalidParameter(
                f"The text {path} has {len(tokens) // _TOKEN_BYTES} tokens, one chunk takes {n_ctx}: take "
                "a longer text, or lower --ctx."
            )
        by_file.append(found)
    ordered = [file[i] for i in range(max(map(len, by_file))) for file in by_file if i < len(file)]
    return ordered if max_chunks is None else ordered[:max_chunks]


async def check_same_vocabulary(
    client: ScoringClient, sample: str, tokens: bytes, name: str
) -> None:
    """Raises: InvalidParameter where a loaded model splits a sample into other tokens than the reference."""
    if await client.tokens(sample) != tokens:
        raise InvalidParameter(
            f"{name} ({client.facts.n_vocab} tokens) does not split texts as the reference does: only models "
            "of one vocabulary can be compared."
        )
