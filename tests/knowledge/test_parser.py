"""The process that parses documents: under a deadline, confined, one owner at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Chunk, ChunkSizes, ParserLimits
from edgeagent.knowledge.parser import DocumentParser
from tests.knowledge.documents import docx, paragraph, pdf, zip_bomb

pytestmark = pytest.mark.process

SIZES = ChunkSizes()
LIMITS = ParserLimits(unpacked_bytes=8 << 20, n_chunks=1000)


@asynccontextmanager
async def parsing(timeout_s: float = 30) -> AsyncIterator[DocumentParser]:
    parser = DocumentParser(timeout_s, LIMITS, "error")
    try:
        yield parser
    finally:
        await parser.close()


async def parts(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


async def read(parser: DocumentParser, name: str, data: bytes, owner: str = "ann") -> list[Chunk]:
    found: list[Chunk] = []
    async with parser.parsed(owner, name, parts(data), SIZES) as client:
        while chunks := await client.take():
            found += chunks
    return found


async def test_documents_of_every_format_are_read_in_confinement() -> None:
    documents = {
        "a.md": b"# T\n\nMarkdown text.", "a.html": b"<p>HTML text.</p>", "a.pdf": pdf("PDF text."),
        "a.docx": docx(paragraph("Word text.")), "a.csv": b"q,a\nCSV text?,Yes.\n", "a.txt": b"Text.",
        "long.txt": b"One sentence. " * 20_000,
    }  # fmt: skip
    async with parsing() as parser:
        for name, data in documents.items():
            chunks = await read(parser, name, data)
            assert chunks and (name == "long.txt" or "text" in chunks[0].text.lower())
        assert len(chunks) > 300
        for name, data in (("a.docx", zip_bomb(16 << 20)), ("a.pdf", pdf("", ""))):
            with pytest.raises(InvalidParameter, match=r"unpacks to more|is a scan"):
                await read(parser, name, data)
        assert (await read(parser, "a.txt", b"Still there."))[0].text == "Still there."


async def test_a_document_that_takes_too_long_ends_with_its_process() -> None:
    slow = b"".join(b"[" * 50 + b"\n> " * 200 + b"\n" for _ in range(4000))
    async with parsing(timeout_s=1) as parser:
        with pytest.raises(InvalidParameter, match="not parsed within 1 s"):
            await read(parser, "a.md", slow)
        assert (await read(parser, "a.txt", b"Next."))[0].text == "Next."


async def test_another_owner_and_an_end_by_force_get_a_new_process() -> None:
    async with parsing() as parser:
        seen = []
        for owner in ("ann", "ann", "bob"):
            await read(parser, "a.txt", b"Text.", owner)
            assert parser._client is not None
            seen.append(parser._client.pid)
        assert seen[0] == seen[1] != seen[2]
        psutil.Process(seen[2]).kill()
        await asyncio.wait_for(parser._client._gone.wait(), 30)
        assert (await read(parser, "a.txt", b"Text.", "bob"))[0].text == "Text."
        with pytest.raises(InvalidParameter, match="ended the process"):
            async with parser.parsed("bob", "a.txt", parts(b"x " * 4000), SIZES) as client:
                psutil.Process(client.pid).kill()
                while True:
                    await client.take()
