"""Indexes the documents of vector stores, behind everything that somebody waits for.

1. the next files, of one store; owners take turns
2. parse those that are not parsed: chunks and their words, written in steps
3. vectors of the chunks that have none, by the embedding model of the store, where one is installed
4. the files are completed; one that cannot be parsed has failed, and says why

What is done is in the database only: a daemon that was killed goes on where it was. A file whose parsing was
interrupted is parsed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from edgeagent.errors import EdgeAgentError, InvalidParameter, ModelNotFound
from edgeagent.knowledge.document import Chunk, ChunkSizes, ParserLimits
from edgeagent.knowledge.questions import question_key
from edgeagent.serving.engines import Engines
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.store import chunks, documents, vector_stores
from edgeagent.store.chunks import NewChunk, StoredVector, stored_vector
from edgeagent.store.database import Database
from edgeagent.store.erasure_hub import DeletedContent
from edgeagent.store.vector_stores import OpenFile
from edgeagent.types.unary_requests import EmbedSpec, Vectors

if TYPE_CHECKING:
    from edgeagent.knowledge.parser import DocumentParser, ParserClient

logger = logging.getLogger(__name__)

PARTS_AT_ONCE = 8  # of a document, of 64 KiB
TEXTS_AT_ONCE = 32  # in one request for vectors
CHUNKS_A_TURN = 512  # until another owner's files may come
RETRY_S = 5.0
MAX_FAILURES = 3  # of making the vectors of one file
REST_S = 5.0  # without documents, until the parser's process ends


class Indexer:
    """One task for all vector stores. Event loop's thread only; `close()` may be called twice."""

    def __init__(
        self, database: Database, engines: Engines, chooser: ModelChooser,
        settings: KnowledgeSettings, log_level: str,
    ) -> None:  # fmt: skip
        self._database = database
        self._engines = engines
        self._chooser = chooser
        self._settings = settings
        self._log_level = log_level
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[None] | None = None
        self._owner: str | None = None  # whose files are being indexed, or were last
        self._failures: dict[int, int] = {}
        self._known_models: list[str] = []
        self._is_closing = False

    def wake(self) -> None:
        """Look for files to index."""
        if self._is_closing:
            return
        self._due.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(self._database), name="indexer")

    async def forget(self, gone: DeletedContent) -> None:
        """Drop what is in memory of an owner; what is left is indexed again from the database."""
        is_its = gone.owner is None or gone.owner == self._owner
        if gone.cause != "expire" and is_its and self._turn is not None:
            self._turn.cancel()
            await asyncio.wait([self._turn])

    async def close(self) -> None:
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # ---- the task

    async def _run(self, database: Database) -> None:
        from edgeagent.knowledge.parser import DocumentParser

        limits = ParserLimits(n_chunks=self._settings.max_chunks)
        parser = DocumentParser(self._settings.parse_timeout_s, limits, self._log_level)
        try:
            while True:
                self._due.clear()
                try:
                    files = await self._next_files(database)
                except EdgeAgentError as exc:  # of the store
                    logger.warning("indexing_interrupted code=%s", exc.code)
                    await asyncio.sleep(RETRY_S)
                    continue
                if files:
                    await self._take_turn(_Turn(self, database, parser), files)
                elif not await self._waits():
                    return  # the next `wake` begins again
        finally:
            await parser.close()

    async def _next_files(self, database: Database) -> list[OpenFile]:
        models = await self._models()
        return await database.read_async(
            lambda db: vector_stores.open_files(
                db, models=models, last_owner=self._owner, besides=self._given_up()
            )
        )

    async def _waits(self) -> bool:
        """Whether something came within a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await self._due.wait()
                return True
        return self._due.is_set()

    async def _take_turn(self, turn: _Turn, files: list[OpenFile]) -> None:
        self._owner = files[0].owner
        self._turn = asyncio.create_task(turn.run(files), name="indexing")
        try:
            await asyncio.wait([self._turn])
            if self._turn.cancelled():
                return
            if (exc := self._turn.exception()) is not None:
                code = exc.code if isinstance(exc, EdgeAgentError) else type(exc).__name__
                logger.warning("indexing_interrupted code=%s", code, exc_info=_unexpected(exc))
                if not isinstance(exc, EdgeAgentError) and self.note_failure(files):
                    await turn.give_up(files)
                await asyncio.sleep(RETRY_S)
        finally:
            self._turn.cancel()
            await asyncio.wait([self._turn])
            self._turn = None

    def _given_up(self) -> list[int]:
        return [n for n, failures in self._failures.items() if failures >= MAX_FAILURES]

    async def _models(self) -> list[str]:
        """The installed embedding models. With another one, files without vectors are tried again."""
        found = await self._chooser.with_task("embed")
        if found != self._known_models:
            self._known_models = found
            self._failures.clear()
        return found

    async def model_for(self, file: OpenFile) -> str | None:
        """The model of the store's vectors; None where it is not installed, or none is."""
        installed = await self._models()
        if file.model is not None:
            return file.model if file.model in installed else None
        with suppress(ModelNotFound, InvalidParameter):
            return (await self._chooser.for_task("embed", self._settings.embedding_model)).model_id
        return None

    async def vectors(self, model_id: str, texts: list[str]) -> Vectors:
        """Raises: what `Pool.lease` and the worker raise."""
        async with self._engines.lease(model_id) as client:
            found: Vectors = await client.ask(EmbedSpec(inputs=list(texts), truncate=True))
            return found

    def give_up(self, files: Sequence[OpenFile]) -> None:
        """Leave these files without vectors until there are other models."""
        self._failures |= dict.fromkeys((file.n for file in files), MAX_FAILURES)

    def note_failure(self, files: Sequence[OpenFile]) -> bool:
        """Whether making vectors of these files has failed too often."""
        for file in files:
            self._failures[file.n] = self._failures.get(file.n, 0) + 1
        return any(self._failures[file.n] >= MAX_FAILURES for file in files)


class _Turn:
    """The work on some files of one store."""

    def __init__(self, indexer: Indexer, database: Database, parser: DocumentParser) -> None:
        self._indexer = indexer
        self._database = database
        self._parser = parser

    async def run(self, files: list[OpenFile]) -> None:
        for file in files:
            if not file.is_parsed:
                await self._parse(file)
        model = await self._indexer.model_for(files[0])
        is_embedded = False
        if model is None:
            self._indexer.give_up(files)
        else:
            try:
                if not await self._embed(model, files):
                    return  # the rest in another turn
                is_embedded = True
            except EdgeAgentError as exc:
                if not self._indexer.note_failure(files):
                    raise
                logger.warning("vectors_not_made files=%d code=%s", len(files), exc.code)
        numbers = [file.n for file in files]
        await self._database.write_async(
            lambda db: vector_stores.finish(db, numbers, is_embedded=is_embedded)
        )
        logger.info("indexed files=%d has_vectors=%s", len(files), is_embedded)

    async def give_up(self, files: Sequence[OpenFile]) -> None:
        """Let these files fail, so that others are not held up by them."""
        error = {
            "code": "server_error",
            "message": "The document could not be indexed; the log says why.",
        }
        for file in files:
            await self._database.write_async(
                partial(vector_stores.fail, file_n=file.n, error=error)
            )

    async def _parse(self, file: OpenFile) -> None:
        if file.n_chunks:
            await self._database.write_async(lambda db: vector_stores.drop_chunks(db, file.n))
        sizes = ChunkSizes(max_tokens=file.sizes[0], overlap_tokens=file.sizes[1])
        parts = self._parts(file.document_id)
        try:
            async with self._parser.parsed(file.owner, file.name, parts, sizes) as parsed:
                await self._keep(file, parsed)
        except InvalidParameter as exc:
            error = {"code": "invalid_file", "message": exc.message}
            await self._database.write_async(lambda db: vector_stores.fail(db, file.n, error))
            logger.info("document_not_parsed id=%s", file.document_id)

    async def _parts(self, document_id: str) -> AsyncIterator[bytes]:
        first = 0
        while parts := await self._database.read_async(
            partial(
                documents.some_content, document_id=document_id, first=first, n_parts=PARTS_AT_ONCE
            )
        ):
            for part in parts:
                yield part
            first += len(parts)

    async def _keep(self, file: OpenFile, parsed: ParserClient) -> None:
        first = 0
        while found := await parsed.take():
            new = [_new_chunk(chunk) for chunk in found]
            is_there = await self._database.write_async(
                partial(chunks.add, file_n=file.n, first=first, chunks=new)
            )
            if not is_there:
                return
            first += len(found)
        await self._database.write_async(lambda db: vector_stores.set_parsed(db, file.n))

    async def _embed(self, model: str, files: list[OpenFile]) -> bool:
        """Make the vectors that are missing. False: there are more than one turn makes."""
        store_n = files[0].store_n
        numbers = [file.n for file in files]
        model = await self._database.write_async(
            lambda db: vector_stores.set_model(db, store_n, model)
        )
        for _ in range(0, CHUNKS_A_TURN, TEXTS_AT_ONCE):
            waiting = await self._database.read_async(
                lambda db: chunks.without_vector(db, numbers, TEXTS_AT_ONCE)
            )
            if not waiting:
                return True
            found = await self._indexer.vectors(model, [text for *_, text in waiting])
            vectors = await asyncio.to_thread(_stored, found)
            new = [(*row[:2], vector) for row, vector in zip(waiting, vectors, strict=True)]
            await self._database.write_async(
                partial(chunks.add_vectors, store_n=store_n, vectors=new)
            )
        return False


def _new_chunk(chunk: Chunk) -> NewChunk:
    key = question_key(chunk.text) if chunk.answer is not None else None
    return NewChunk(
        text=chunk.text,
        headings=chunk.headings,
        page=chunk.page,
        answer=chunk.answer,
        question_key=key,
    )


def _stored(found: Vectors) -> list[StoredVector]:
    size = 4 * found.n_dimensions
    return [stored_vector(found.data[at : at + size]) for at in range(0, len(found.data), size)]


def _unexpected(exc: BaseException) -> BaseException | None:
    return None if isinstance(exc, EdgeAgentError) else exc
