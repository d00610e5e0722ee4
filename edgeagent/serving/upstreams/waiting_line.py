"""Requests that wait for a place at an upstream, first come first served.

A place that becomes free goes to the first request that waits for it and may use it; nobody else is woken,
and requests that come later cannot take it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeagent.errors import UpstreamUnavailable
from edgeagent.serving.upstreams.upstream import Upstream

MAX_WAITING = 1024
DISMISSED_AT_ONCE = 16  # in one turn of the event loop


@dataclass(eq=False)
class _Waiter:
    """A request for a model. `place`: the upstream at which it has a place; None where all are avoided."""

    model_id: str
    upstreams: Sequence[Upstream]
    place: asyncio.Future[Upstream | None]

    def is_avoided(self, upstream: Upstream) -> bool:
        return upstream.state(self.model_id).cooling_s > 0


class WaitingLine:
    """Event loop's thread only. Who has got a place must `leave` it."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[_Waiter, None]] = {}  # by upstream, in order of arrival
        self._n_waiting = 0
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._dismissing: set[str] = set()

    async def wait(
        self, model_id: str, upstreams: Sequence[Upstream], until_s: float
    ) -> Upstream | None:
        """The upstream at which the request has a place now; None once all of them are avoided. Raises:
        UpstreamUnavailable at `until_s` (the event loop's clock), and where too many wait."""
        busy = UpstreamUnavailable(
            f"Model {model_id} answers elsewhere, and its engines are busy: try again.",
            retry_after_s=5.0,
        )
        if self._n_waiting >= MAX_WAITING:
            raise busy
        place: asyncio.Future[Upstream | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(model_id, tuple(upstreams), place)
        self._n_waiting += 1
        for one in waiter.upstreams:
            self._lines.setdefault(one.settings.name, {})[waiter] = None
            self._offer_later(one)
        try:
            async with asyncio.timeout_at(until_s):
                return await place
        except BaseException as exc:
            if place.done() and not place.cancelled() and (given := place.result()) is not None:
                self.leave(given)
            if isinstance(exc, TimeoutError):
                raise busy from None
            raise
        finally:
            self._n_waiting -= 1
            self._remove(waiter)

    def leave(self, upstream: Upstream) -> None:
        """A request has ended: its place goes to the first that waits for it."""
        upstream.n_running -= 1
        self.offer(upstream)

    def offer(self, upstream: Upstream) -> None:
        """Give the free places of an upstream to those who wait for them."""
        name = upstream.settings.name
        if not (line := self._lines.get(name)):
            return
        if upstream.cooling_s(time.monotonic()) > 0:
            self._offer_later(upstream)
            self._begin_to_dismiss(name)
            return
        n_free = upstream.settings.max_concurrent - upstream.n_running
        given: list[_Waiter] = []
        for waiter in line:
            if len(given) >= n_free:
                break
            if waiter.place.done():
                continue
            if waiter.is_avoided(upstream):  # it does not have the model
                self._begin_to_dismiss(name)
            else:
                given.append(waiter)
        for waiter in given:
            upstream.n_running += 1
            self._remove(waiter)
            waiter.place.set_result(upstream)

    def _remove(self, waiter: _Waiter) -> None:
        for one in waiter.upstreams:
            name = one.settings.name
            line = self._lines.get(name, {})
            line.pop(waiter, None)
            if not line:
                self._lines.pop(name, None)
                if (timer := self._later.pop(name, None)) is not None:
                    timer.cancel()

    def _offer_later(self, upstream: Upstream) -> None:
        """Offer the places of an upstream that is avoided as soon as it is not."""
        name, cooling_s = upstream.settings.name, upstream.cooling_s(time.monotonic())
        if cooling_s <= 0 or name in self._later:
            return

        def again() -> None:
            self._later.pop(name, None)
            self._offer_later(upstream)
            self.offer(upstream)

        self._later[name] = asyncio.get_running_loop().call_later(cooling_s, again)

    def _begin_to_dismiss(self, name: str) -> None:
        if name not in self._dismissing:
            self._dismissing.add(name)
            waiters = iter(list(self._lines[name]))
            asyncio.get_running_loop().call_soon(self._dismiss, name, waiters)

    def _dismiss(self, name: str, waiters: Iterator[_Waiter]) -> None:
        """Tell those whose upstreams are all avoided, a few at a time."""
        for _ in range(DISMISSED_AT_ONCE):
            waiter = next(waiters, None)
            if waiter is None:
                self._dismissing.discard(name)
                return
            if not waiter.place.done() and all(map(waiter.is_avoided, waiter.upstreams)):
                self._remove(waiter)
                waiter.place.set_result(None)
        asyncio.get_running_loop().call_soon(self._dismiss, name, waiters)
