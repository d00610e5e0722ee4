"""One upstream of this daemon: whether it may be asked now, how fast it is, and its connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from edgeagent.routing.upstreams.balance import Speed, UpstreamState, measured
from edgeagent.routing.upstreams.faults import Fault, blamed
from edgeagent.routing.upstreams.upstream_access import Access
from edgeagent.routing.upstreams.upstream_breaker import UpstreamBreaker
from edgeagent.settings.upstreams import UpstreamSettings

if TYPE_CHECKING:
    from edgeagent.serving.upstreams.connection import Connection

logger = logging.getLogger(__name__)


class Upstream:
    """Event loop's thread only. `n_by_outcome` counts requests that were sent, by how they ended.

    After `breaker_failures` failures the breaker opens for `breaker_open_s`. Then a health check comes
    before the next request: nothing is sent in the background. A model that it does not have is avoided in
    the same way, and the others are not.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        self.settings = settings
        self.access = Access.of(settings)
        self.n_running = 0
        self.n_by_outcome: Counter[str] = Counter()
        self._breaker = UpstreamBreaker(settings.breaker_failures, settings.breaker_open_s)
        self._breakers: dict[str, UpstreamBreaker] = {}  # by model
        self._speeds: dict[str, Speed] = {}  # by model
        self._cold_until_s = float("-inf")
        self._checking = asyncio.Lock()

    @cached_property
    def connection(self) -> Connection:
        """Opened with the first request. Raises: SettingsError for its key or its CA."""
        from edgeagent.serving.upstreams.connection import Connection

        return Connection(self.settings)

    def state(self, model_id: str) -> UpstreamState:
        now_s = time.monotonic()
        speed = self._speeds.get(model_id)
        return UpstreamState(
            self.settings.name,
            self.n_running,
            self.settings.max_concurrent,
            max(self.cooling_s(now_s), self._breaker_of(model_id).closes_in_s(now_s)),
            speed.at(now_s) if speed is not None else None,
        )

    def cooling_s(self, now_s: float) -> float:
        """Seconds in which it is not asked: by its Retry-After, or because the breaker is open."""
        return max(0.0, self._cold_until_s - now_s, self._breaker.closes_in_s(now_s))

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open, or a health check has not closed it yet."""
        return self._breaker.needs_check

    async def ensure_healthy(self) -> None:
        """Check its health where the breaker has been open. Raises: Fault."""
        if not self.is_open:
            return
        async with self._checking:
            if self.cooling_s(time.monotonic()) > 0:  # another request has just found out
                raise Fault("unreachable", "its health check failed")
            if self.is_open:
                await self.connection.check()
                self._close_breaker()

    def _breaker_of(self, model_id: str) -> UpstreamBreaker:
        settings = self.settings
        return self._breakers.setdefault(
            model_id, UpstreamBreaker(settings.breaker_failures, settings.breaker_open_s)
        )

    def record_fault(self, fault: Fault, model_id: str) -> None:
        now_s = time.monotonic()
        self.n_by_outcome[fault.kind] += 1
        logger.warning("upstream_failed upstream=%s fault=%s", self.settings.name, fault.kind)
        if fault.kind == "busy":
            self._cold_until_s = now_s + (fault.retry_after_s or 1.0)
        blame = blamed(fault.kind)
        if blame == "model":
            self._breaker_of(model_id).record_fault(now_s)
        if blame != "upstream":
            return
        was_open = self.is_open
        self._breaker.record_fault(now_s)
        if self.is_open and not was_open:
            logger.warning("upstream_open upstream=%s", self.settings.name)

    def record_answer(self, model_id: str, *, took_s: float, n_tokens: int, n_before: int) -> None:
        """A whole answer. `n_before`: requests that it had when this one came, itself included."""
        self.n_by_outcome["answered"] += 1
        self._breaker_of(model_id).record_success()
        n_running = (n_before + self.n_running) / 2
        self._speeds[model_id] = measured(
            self._speeds.get(model_id), took_s=took_s, n_tokens=n_tokens, n_running=n_running,
            now_s=time.monotonic(),
        )  # fmt: skip
        self._close_breaker()

    def _close_breaker(self) -> None:
        was_open = self.is_open
        self._breaker.record_success()
        if was_open:
            logger.info("upstream_closed upstream=%s", self.settings.name)
