"""Texts that models are scored on, cut into chunks of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeagent.durable import open_regular
from edgeagent.errors import InvalidParameter
from edgeagent.optimize.client import ScoringClient

MAX_TEXT_BYTES = 64 << 20
_TOKEN_BYTES = 4


@dataclass(frozen=True)
class Chunk:
    """`n_ctx` tokens of one file, int32 [n_ctx]. `chars_per_token` of the whole file."""

    tokens: bytes
    file: str
    chars_per_token: float = 4.0


def read_text(path: Path) -> str:
    """A text file in UTF-8, without its last newline, as llama.cpp reads it. Raises: InvalidParameter."""
    try:
        with open_regular(path, MAX_TEXT_BYTES) as file:
            data = file.read()
    except OSError as exc:
        raise InvalidParameter(
            f"The text {path} cannot be read ({exc.strerror}): name a text file of at most "
            f"{MAX_TEXT_BYTES} bytes."
        ) from exc
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

    A file `.jsonl` has one chat a line, which the model's template writes out.

    `max_chunks` of all files together, taken from each file's beginning in turn. Raises: InvalidParameter
    for a file with less than one chunk.
    """
    by_file: list[list[Chunk]] = []
    for path in paths:
        text, is_marked = await whole_text(client, path)
        tokens = await client.tokens(text, special=special or is_marked)
        step = n_ctx * _TOKEN_BYTES
        density = _TOKEN_BYTES * len(text) / max(1, len(tokens))
        found = [
            Chunk(tokens[at : at + step], path.name, density)
            for at in range(0, len(tokens) - step + 1, step)
        ]
        if not found:
            raise InvalidParameter(
                f"The text {path} has {len(tokens) // _TOKEN_BYTES} tokens, one chunk takes {n_ctx}: take "
                "a longer text, or lower --ctx."
            )
        by_file.append(found)
    ordered = [
        file[i]
        for i in range(max(map(len, by_file), default=0))
        for file in by_file
        if i < len(file)
    ]
    return ordered if max_chunks is None else ordered[:max_chunks]


class _Message(msgspec.Struct):
    role: str
    content: str


class _Chat(msgspec.Struct):
    messages: list[_Message]


async def whole_text(client: ScoringClient, path: Path) -> tuple[str, bool]:
    """The text of a file, chats written out, and whether it has the marks of a chat template."""
    if path.suffix == ".jsonl":
        return await chats_of(client, path), True
    return read_text(path), False


async def chats_of(client: ScoringClient, path: Path) -> str:
    """The chats of a file, one `{"messages": [{"role": ..., "content": ...}]}` a line, as one text.

    Raises: InvalidParameter.
    """
    parts = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                chat = msgspec.json.decode(line, type=_Chat)
            except msgspec.MsgspecError as exc:
                raise InvalidParameter(
                    f"Line {number} of {path} is not a chat ({exc}): write "
                    '{"messages": [{"role": "user", "content": "..."}]}.'
                ) from exc
            parts.append(await client.chat_text([(m.role, m.content) for m in chat.messages]))
    return "".join(parts)


async def check_same_vocabulary(
    client: ScoringClient, sample: str, tokens: bytes, name: str
) -> None:
    """Raises: InvalidParameter where a loaded model splits a sample into other tokens than the reference."""
    if await client.tokens(sample) != tokens:
        raise InvalidParameter(
            f"{name} ({client.facts.n_vocab} tokens) does not split texts as the reference does: only models "
            "of one vocabulary can be compared."
        )
