"""The daemon's side of parsing: a worker process that is there while documents come, under a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from edgeagent.errors import EngineDied, InvalidParameter
from edgeagent.knowledge.document import Chunk, ChunkSizes, ParserLimits
from edgeagent.knowledge.protocol import (
    AddPart,
    ParseDocument,
    ParserConfig,
    TakeChunks,
    decode_to_daemon,
)
from edgeagent.worker.client import WorkerClient

START_TIMEOUT_S = 60.0


class ParserClient(WorkerClient):
    """One worker that parses documents."""

    module = "edgeagent.knowledge.worker"
    decode = staticmethod(decode_to_daemon)
    config: ParserConfig

    async def add_part(self, data: bytes) -> None:
        """Send the next bytes of a document."""
        request_id = self._new_id()
        await self._ask(request_id, AddPart(request_id, data))

    async def parse(self, name: str, sizes: ChunkSizes) -> int:
        """Parse what was sent. Gives the number of chunks."""
        request_id = self._new_id()
        asked = ParseDocument(request_id=request_id, name=name, sizes=sizes)
        n_chunks: int = await self._ask(request_id, asked)
        return n_chunks

    async def take(self) -> list[Chunk]:
        """The next chunks; empty at the end."""
        request_id = self._new_id()
        chunks: list[Chunk] = await self._ask(request_id, TakeChunks(request_id))
        return chunks

    def _receive_own(self, message: Any) -> None:
        """It has no messages of its own."""


class DocumentParser:
    """Parses one document at a time. Event loop's thread only; `close()` may be called twice.

    The worker ends when the owner of the documents changes, so that a document which takes over its process
    sees no other owner's; and with `rest`, once there is nothing to do.
    """

    def __init__(self, timeout_s: float, limits: ParserLimits, log_level: str = "info") -> None:
        self._timeout_s = timeout_s
        self._limits = limits
        self._log_level = log_level
        self._one = asyncio.Lock()
        self._client: ParserClient | None = None
        self._owner: str | None = None

    @asynccontextmanager
    async def parsed(
        self, owner: str, name: str, parts: AsyncIterator[bytes], sizes: ChunkSizes
    ) -> AsyncIterator[ParserClient]:
        """A worker that has parsed a document, whose chunks wait to be taken.

        Raises: InvalidParameter for a document that cannot be parsed; EngineStarting, EngineDied where the
        process cannot be started.
        """
        async with self._one:
            client = await self._ready(owner)
            try:
                async for part in parts:
                    await client.add_part(part)
                async with asyncio.timeout(self._timeout_s):
                    await client.parse(name, sizes)
                yield client
            except TimeoutError:
                client.kill("document takes too long")
                await self._end()
                raise InvalidParameter(
                    f"The document was not parsed within {self._timeout_s:g} s: split it into several files, "
                    "save it as text, or raise knowledge.parse_timeout_s.",
                    param="file",
                ) from None
            except EngineDied as exc:
                await self._end()
                raise InvalidParameter(
                    "The document ended the process that parses it, so it is damaged or needs too much "
                    "memory: save it again, or split it into several files.",
                    param="file",
                ) from exc
            except InvalidParameter:
                raise
            except BaseException:  # what was sent must not be left for the next document
                client.kill("document is not wanted any more")
                await self._end()
                raise

    async def rest(self) -> None:
        """End the process until the next document."""
        async with self._one:
            await self._end()

    async def close(self) -> None:
        await self._end()

    async def _ready(self, owner: str) -> ParserClient:
        if self._client is not None and (self._owner != owner or not self._client.is_alive):
            await self._end()
        if self._client is None:
            config = ParserConfig(
                model_id="document-parser", path="/", n_threads=1, limits=self._limits
            )
            self._client = await ParserClient.start(
                config, timeout_s=START_TIMEOUT_S, log_level=self._log_level
            )
            self._owner = owner
        return self._client

    async def _end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
