"""The parts of one daemon for documents, vector stores and answers from them.

Each part is imported and made when it is first used: most daemons have no documents, and their memory is not
to grow by them.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

from edgeagent.errors import EdgeAgentError
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.engines import Engines
from edgeagent.serving.model_choice import ModelChooser
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.store.connection import StoreConnection
from edgeagent.store.erasure_hub import DeletedContent
from edgeagent.store.sql import scalar

if TYPE_CHECKING:
    from edgeagent.serving.knowledge.documents import Documents
    from edgeagent.serving.knowledge.file_search import Consultant
    from edgeagent.serving.knowledge.indexer import Indexer
    from edgeagent.serving.knowledge.retrieval import Retrieval
    from edgeagent.serving.knowledge.vector_stores import VectorStores

logger = logging.getLogger(__name__)


class KnowledgeBase:
    """Event loop's thread only; `close()` may be called twice."""

    def __init__(
        self, archive: Archive, engines: Engines, chooser: ModelChooser, settings: KnowledgeSettings,
        log_level: str = "info",
    ) -> None:  # fmt: skip
        self._archive = archive
        self._engines = engines
        self._chooser = chooser
        self._settings = settings
        self._log_level = log_level

    @cached_property
    def documents(self) -> Documents:
        from edgeagent.serving.knowledge.documents import Documents

        return Documents(self._archive, self._settings)

    @cached_property
    def stores(self) -> VectorStores:
        from edgeagent.serving.knowledge.vector_stores import VectorStores

        return VectorStores(self._archive, self._settings, lambda: self.indexer.wake())

    @cached_property
    def indexer(self) -> Indexer:
        from edgeagent.serving.knowledge.indexer import Indexer

        database = self._archive.database
        return Indexer(database, self._engines, self._chooser, self._settings, self._log_level)

    @cached_property
    def retrieval(self) -> Retrieval:
        from edgeagent.serving.knowledge.retrieval import Retrieval

        return Retrieval(self._archive, self._engines, self._chooser, self._settings)

    @cached_property
    def consultant(self) -> Consultant:
        from edgeagent.serving.knowledge.file_search import Consultant
        from edgeagent.serving.knowledge.judge import Judge

        judge = Judge(self._engines, self._chooser, self._settings)
        return Consultant(self.retrieval, self._engines, self._settings, judge)

    async def start(self) -> None:
        """Go on with documents that an earlier daemon has not indexed or deleted."""
        if not self._archive.is_on:
            return
        try:
            if await self._archive.database.read_async(_is_any):
                await self.documents.forget_incomplete()
                await self.stores.finish_deletions()
                self.indexer.wake()
        except EdgeAgentError as exc:
            logger.error("knowledge_not_resumed code=%s", exc.code)

    async def forget(self, gone: DeletedContent) -> None:
        """Drop the documents that are in memory."""
        if "indexer" in self.__dict__:
            await self.indexer.forget(gone)

    async def close(self) -> None:
        if "indexer" in self.__dict__:
            await self.indexer.close()


def _is_any(db: StoreConnection) -> bool:
    """Whether there are vector stores, or documents whose upload was interrupted."""
    sql = """select exists (select 1 from vector_store)
        or exists (select 1 from document where not is_complete)"""
    return bool(scalar(db, sql))
