"""A document's bytes become chunks. Worker side: each format's library is imported at its first document."""

from __future__ import annotations

import re

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.chunker import cut
from edgeagent.knowledge.document import Block, Chunk, ChunkSizes, ParserLimits
from edgeagent.knowledge.formats.detection import Format, format_of

_ODD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def parse(name: str, data: bytes, sizes: ChunkSizes, limits: ParserLimits) -> list[Chunk]:
    """Raises: InvalidParameter for a document that cannot be read, and for one without text."""
    kind = format_of(name, data)
    blocks = [clean(block) for block in _read(kind, data, limits)]
    chunks = cut(blocks, sizes, limits.n_chunks)
    if not chunks:
        raise InvalidParameter(
            "The document has no text: nothing of it can be found.", param="file"
        )
    return chunks


def clean(block: Block) -> Block:
    """The block without control characters and halves of surrogate pairs, which PDFs may contain."""
    texts = (block.text, block.answer or "", *block.headings)
    if all(text.isprintable() or not _ODD.search(text) for text in texts):
        return block
    return Block(
        text=_ODD.sub(" ", block.text),
        headings=tuple(_ODD.sub(" ", title) for title in block.headings),
        page=block.page,
        answer=None if block.answer is None else _ODD.sub(" ", block.answer),
    )


def _read(kind: Format, data: bytes, limits: ParserLimits) -> list[Block]:
    if kind == "pdf":
        from edgeagent.knowledge.formats import pdf

        return pdf.read(data, limits)
    if kind == "docx":
        from edgeagent.knowledge.formats import docx

        return docx.read(data, limits)
    if kind == "markdown":
        from edgeagent.knowledge.formats import markdown

        return markdown.read(data)
    if kind == "html":
        from edgeagent.knowledge.formats import html

        return html.read(data)
    if kind == "csv":
        from edgeagent.knowledge.formats import csv_table

        return csv_table.read(data)
    from edgeagent.knowledge.formats import plain_text

    return plain_text.read(data)
