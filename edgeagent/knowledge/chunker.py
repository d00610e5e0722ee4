"""Cuts a document into chunks by its structure. Pure.

blocks under the same headings are joined until a chunk is full
a block that is larger than a chunk is cut between sentences, a sentence between words, a word anywhere
a chunk repeats the last sentences of the one before it, within a section
a question with its answer is a chunk of its own
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Block, Chunk, ChunkSizes, n_tokens
from edgeagent.knowledge.sentences import sentences

_HEADING_CHARS = 300


def cut(blocks: Iterable[Block], sizes: ChunkSizes, max_chunks: int) -> list[Chunk]:
    """The chunks of a document, in order. Raises: InvalidParameter for too many."""
    chunks: list[Chunk] = []
    for _, section in groupby(blocks, key=lambda block: (block.headings, block.answer is not None)):
        for chunk in _section(section, sizes):
            if len(chunks) >= max_chunks:
                raise InvalidParameter(
                    f"The document has more than {max_chunks} chunks: split it into several files, or use "
                    "larger chunks.",
                    param="file_id",
                )
            chunks.append(chunk)
    return chunks


def _section(section: Iterator[Block], sizes: ChunkSizes) -> Iterator[Chunk]:
    packer: _Packer | None = None
    for block in section:
        headings = " > ".join(block.headings)[:_HEADING_CHARS]
        if block.answer is not None:
            yield Chunk(text=block.text, headings=headings, page=block.page, answer=block.answer)
            continue
        packer = packer or _Packer(headings, sizes)
        for n, piece in enumerate(_pieces(block.text, sizes.max_tokens)):
            yield from packer.add(piece, block.page, is_new_block=n == 0)
    if packer is not None:
        yield from packer.finish()


class _Packer:
    """Joins the pieces of one section. A piece is a block, or a sentence of a large one."""

    def __init__(self, headings: str, sizes: ChunkSizes) -> None:
        self._headings = headings
        self._sizes = sizes
        self._text = ""
        self._page: int | None = None
        self._has_new = False  # more than what is repeated

    def add(self, piece: str, page: int | None, *, is_new_block: bool) -> Iterator[Chunk]:
        joined = f"{self._text}{self._glue(is_new_block)}{piece}"
        if self._text and n_tokens(joined) > self._sizes.max_tokens:
            if self._has_new:
                yield self._chunk()
                self._text = _tail(self._text, self._sizes.overlap_tokens)
            joined = f"{self._text}{self._glue(is_new_block)}{piece}"
            if n_tokens(joined) > self._sizes.max_tokens:  # no room for what would be repeated
                self._text, joined = "", piece
            self._page = page
        if not self._text:
            self._page = page
        self._text, self._has_new = joined, True

    def finish(self) -> Iterator[Chunk]:
        if self._has_new and self._text.strip():
            yield self._chunk()

    def _glue(self, is_new_block: bool) -> str:
        return "" if not self._text else "\n\n" if is_new_block else " "

    def _chunk(self) -> Chunk:
        self._has_new = False
        return Chunk(text=self._text.strip(), headings=self._headings, page=self._page)


def _tail(text: str, max_tokens: int) -> str:
    """The last whole sentences, as far as they fit."""
    kept: list[str] = []
    size = 0
    for sentence in reversed(sentences(text)):
        size += n_tokens(sentence)
        if size > max_tokens:
            break
        kept.append(sentence)
    return " ".join(reversed(kept))


def _pieces(text: str, max_tokens: int) -> Iterator[str]:
    text = text.strip()
    if n_tokens(text) <= max_tokens:
        if text:
            yield text
        return
    for sentence in sentences(text):
        if n_tokens(sentence) <= max_tokens:
            yield sentence
        else:
            yield from _words(sentence, max_tokens)


def _words(sentence: str, max_tokens: int) -> Iterator[str]:
    """A sentence that is too long, between words. Length counts in bytes of UTF-8."""
    max_bytes = 4 * max_tokens
    held: list[str] = []
    size = 0
    for word in sentence.split():
        for part in _parts(word, max_bytes):
            n_bytes = len(part.encode("utf-8", "replace")) + 1
            if held and size + n_bytes > max_bytes:
                yield " ".join(held)
                held, size = [], 0
            held.append(part)
            size += n_bytes
    if held:
        yield " ".join(held)


def _parts(word: str, max_bytes: int) -> Iterator[str]:
    n = max(1, max_bytes // 4)  # a character has at most 4 bytes
    if len(word.encode("utf-8", "replace")) < max_bytes:
        yield word
    else:
        yield from (word[start : start + n] for start in range(0, len(word), n))
