"""The effects of serving: engines of the pool, and the request log. Tests put their own in its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from edgeagent.engine.client import EngineClient
from edgeagent.errors import Unavailable
from edgeagent.pool import Pool
from edgeagent.routing.decision import Decision
from edgeagent.routing.upstreams.upstream_access import Sender
from edgeagent.serving.request_origin import RequestOrigin
from edgeagent.serving.upstreams.upstream_client import UpstreamClient, unsupported
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.serving.warm_prefixes import WarmPrefixes
from edgeagent.store.requests import RequestRow
from edgeagent.worker.client import WorkerClient

RELOAD_RETRY_S = 2.0

Client = TypeVar("Client", bound=WorkerClient)

logger = logging.getLogger(__name__)


class Engines:
    """Everything that serving a request changes outside of it. Event loop's thread only.

    A model that `is_installed` here is never asked for elsewhere. `warm`: system prompts on disk, if any are.
    """

    def __init__(
        self,
        pool: Pool,
        add_row: Callable[[RequestRow], None] = lambda row: None,
        upstreams: Upstreams | None = None,
        is_installed: Callable[[str], bool] = lambda model_id: False,
        warm: WarmPrefixes | None = None,
    ) -> None:
        self.warm = warm
        self._pool = pool
        self._is_installed = is_installed
        self._upstreams = upstreams or Upstreams()
        self._add_row = add_row

    def lease(self, model_id: str) -> AbstractAsyncContextManager[EngineClient]:
        """A loaded engine of this device that stays loaded within the context.

        Raises: what `Pool.lease` raises; UnsupportedParameter for a model that answers elsewhere.
        """
        if self._is_elsewhere(model_id):
            raise unsupported(model_id)
        return self._pool.lease(model_id, EngineClient)

    def lease_for(
        self, origin: RequestOrigin, decision: Decision
    ) -> AbstractAsyncContextManager[EngineClient | UpstreamClient]:
        """What answers a request: an engine of this device, or an upstream.

        Raises: what `Pool.lease` raises; Forbidden for a request that may not be sent elsewhere;
        UpstreamUnavailable.
        """
        model_id = decision.model_id
        if not self._is_elsewhere(model_id):
            if decision.adapter is not None:
                return self._lease_with(model_id, decision.adapter, decision.adapter_path)
            return self._pool.lease(model_id, EngineClient)
        sender = Sender(
            origin.key_id, origin.owner, decision.privacy, origin.request_id, origin.n_hops
        )
        return self._upstreams.lease(model_id, sender)

    @asynccontextmanager
    async def _lease_with(
        self, model_id: str, adapter: str, path: str | None
    ) -> AsyncIterator[EngineClient]:
        """An engine that has this LoRA adapter: one that was installed after the model was loaded comes with
        the next load, which is now if nothing else uses the model. Raises as `Pool.lease`."""
        async with self._pool.lease(model_id, EngineClient) as client:
            if _is_configured(client, adapter, path):
                yield client
                return
            resident = self._pool.resident(model_id)
            if resident is not None and resident.n_leases > 1:
                raise Unavailable(
                    f"Adapter {adapter!r} was installed after {model_id!r} was loaded, and other requests "
                    f"use the model: try again, or `edgeagent models unload {model_id}`.",
                    retry_after_s=RELOAD_RETRY_S,
                )
            # While nobody else can have a lease: unloading would end what they do.
            await self._pool.unload(model_id, "request", f"adapter {adapter} is new")
        async with self._pool.lease(model_id, EngineClient) as client:
            yield client

    def _is_elsewhere(self, model_id: str) -> bool:
        return bool(self._upstreams.of(model_id)) and not self._is_installed(model_id)

    def lease_worker(
        self, model_id: str, kind: type[Client], *, give_way: asyncio.Event | None = None
    ) -> AbstractAsyncContextManager[Client]:
        """As `lease`, for a worker of another kind. `give_way` is set once another model needs the memory:
        the lease should end then."""
        return self._pool.lease(model_id, kind, give_way=give_way)

    def is_known(self, model_id: str) -> bool:
        """Whether the model has been loaded here, or is of an upstream, so that its name may be logged."""
        is_loaded = self._pool.resident(model_id) is not None
        return is_loaded or bool(self._upstreams.of(model_id))

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


def _is_configured(client: EngineClient, adapter: str, path: str | None) -> bool:
    """Whether the adapter was there, with this file, when the worker was started; if it did not load then, it
    never will."""
    return any((file.id, file.path) == (adapter, path) for file in client.config.adapters)
