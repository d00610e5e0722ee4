"""A document as parsing leaves it, and the chunks that it is cut into. Plain data, sent between processes."""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One paragraph, list, table or piece of code, in reading order.

    `headings` are the titles above it, the outermost first; `page` counts from 1. With `answer`, `text` is
    a question.
    """

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None
    answer: str | None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document that is found and cited as a whole. `headings` is one line."""

    text: str
    headings: str = ""
    page: int | None = None
    answer: str | None = None


def below(headings: str, text: str) -> str:
    """A text as it is read, with what precedes it."""
    return f"{headings}\n{text}" if headings else text


class ParserLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What parsing one document may cost. `unpacked_bytes` bounds what an archive unpacks to and the text of
    any document."""

    unpacked_bytes: int = 64 << 20
    n_pages: int = 2000
    n_chunks: int = 50_000


class ChunkSizes(msgspec.Struct, frozen=True, kw_only=True):
    """The largest chunk and how much of the chunk before it a chunk repeats, in estimated tokens.

    200 tokens: all-MiniLM-L6-v2 reads at most 256 tokens of a text, so a larger chunk would be found by its
    beginning only; and five chunks of 200 tokens leave most of a context of 4096 to the dialogue.
    """

    max_tokens: int = 200
    overlap_tokens: int = 40


def n_tokens(text: str) -> int:
    """An estimate: a token has about 4 bytes of UTF-8 in English, and one to two characters in Chinese and
    Japanese, which have 3 bytes each. Parsing has no tokenizer, and the models that read a chunk differ."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4
