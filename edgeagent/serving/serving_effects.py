"""The effects of serving: engines of the pool, and the request log. Tests put their own in its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from edgeagent.engine.client import EngineClient
from edgeagent.pool import Pool
from edgeagent.store.requests import RequestRow
from edgeagent.worker.client import WorkerClient

Client = TypeVar("Client", bound=WorkerClient)

logger = logging.getLogger(__name__)


class Engines:
    """Everything that serving a request changes outside of it. Event loop's thread only."""

    def __init__(
        self, pool: Pool, add_row: Callable[[RequestRow], None] = lambda row: None
    ) -> None:
        self._pool = pool
        self._add_row = add_row

    def lease(self, model_id: str) -> AbstractAsyncContextManager[EngineClient]:
        """A loaded engine that stays loaded within the context. Raises what `Pool.lease` raises."""
        return self._pool.lease(model_id, EngineClient)

    def lease_worker(
        self, model_id: str, kind: type[Client], *, give_way: asyncio.Event | None = None
    ) -> AbstractAsyncContextManager[Client]:
        """As `lease`, for a worker of another kind. `give_way` is set once another model needs the memory:
        the lease should end then."""
        return self._pool.lease(model_id, kind, give_way=give_way)

    def is_known(self, model_id: str) -> bool:
        """Whether the model has been loaded here, so that its name may be logged."""
        return self._pool.resident(model_id) is not None

    def record_answer(self, model_id: str) -> None:
        """Tell the breaker of the model that it has finished an answer."""
        self._pool.record_answer(model_id)

    def log(self, row: RequestRow) -> None:
        """Log a request that has ended, and store its row."""
        logger.info(
            "request id=%s endpoint=%s model=%s route=%s status=%s finish=%s n_prompt=%s n_cached=%s "
            "n_generated=%s queue_ms=%.0f ttft_ms=%.0f total_ms=%.0f",
            row.id, row.endpoint, row.model, row.route, row.status, row.finish, row.n_prompt, row.n_cached,
            row.n_generated, row.queue_ms or 0, row.ttft_ms or 0, row.total_ms,
        )  # fmt: skip
        self._add_row(row)
