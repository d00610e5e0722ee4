"""Request bodies in memory: read for admitted callers, within limits of size, time and total memory.

All bodies together have `max_bytes`, from the first byte to the end of their request, since objects made of
a body live as long. When the memory is used up, a body that is still arriving is evicted: the oldest of the
caller who holds most. One caller may hold three quarters of the memory; the first `FREE_BYTES` of each body
do not count, so that small requests always pass. Recordings and other uploads may be larger than all the
memory that is meant for other bodies: those two kinds are counted apart.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

from litestar.types import HTTPReceiveMessage, HTTPRequestEvent, Receive

from edgeagent.errors import BadRequest, BodyTooLarge, RateLimited, Unavailable
from edgeagent.settings.http import HttpSettings

MIN_BODY_BYTES_PER_S = 16 << 10
FREE_BYTES = 16 << 10
CALLER_SHARE = 0.75
SMALL_BYTES = 32 << 10  # bodies up to this size are one array that grows
# Larger ones go on in anonymous mappings, whose pages take memory as they are written and return to the
# kernel when they are freed: in the heap, many bodies that come and go leave holes that nothing else fits.
BLOCK_BYTES = 256 << 10
RETRY_AFTER_S = 2.0


class Body:
    """One body. Event loop's thread only; `close` may be called twice."""

    def __init__(
        self, bodies: Bodies, holder: str, encoding: str, started_s: float, max_bytes: int
    ) -> None:
        self._bodies = bodies
        self.is_upload = max_bytes > bodies.max_body_bytes
        self.account = (holder, self.is_upload)
        self.encoding = encoding
        self.started_s = started_s
        self.max_bytes = max_bytes
        self.n_bytes = 0  # those that count
        self.is_complete = False
        self.is_evicted = False
        self.clock: asyncio.Timeout | None = None
        self._start = bytearray()
        self._blocks: list[mmap.mmap] = []
        self._n_in_last = 0
        self.n_received = 0

    def take(self) -> bytes:
        """The bytes received. They are no longer kept here, but still count."""
        data = self.received
        self._clear()
        return data

    @property
    def received(self) -> bytes:
        """A copy of the bytes received, as long as they are kept here."""
        if not self._blocks:
            return bytes(self._start)
        *full, last = self._blocks
        return b"".join([self._start, *full, memoryview(last)[: self._n_in_last]])

    def take_pieces(self) -> Iterator[bytes]:
        """The bytes received, piece by piece; each gives its memory back when the next is asked for. They
        are no longer kept here, but still count. The pieces may be taken on another thread."""
        start, blocks, n_in_last = self._start, self._blocks, self._n_in_last
        self._clear()
        return _pieces(start, blocks, n_in_last)

    def add(self, piece: bytes) -> None:
        """Raises: BodyTooLarge, RateLimited, Unavailable."""
        n_bytes = self.n_received + len(piece)
        if n_bytes > self.max_bytes:
            raise too_large(n_bytes, self.max_bytes)
        self._bodies.reserve(self, max(0, n_bytes - FREE_BYTES) - self.n_bytes)
        self.n_received = n_bytes
        if n_bytes <= SMALL_BYTES:
            self._start += piece
        else:
            self._append(memoryview(piece))

    def _append(self, rest: memoryview) -> None:
        while rest:
            if not self._blocks or self._n_in_last == BLOCK_BYTES:
                self._blocks.append(mmap.mmap(-1, BLOCK_BYTES))
                self._n_in_last = 0
            at, n = self._n_in_last, min(len(rest), BLOCK_BYTES - self._n_in_last)
            self._blocks[-1][at : at + n] = rest[:n]
            self._n_in_last += n
            rest = rest[n:]

    def _clear(self) -> None:
        self._start = bytearray()
        self._blocks = []
        self._n_in_last = 0

    def evict(self) -> None:
        self.is_evicted = True
        self.close()
        if self.clock is not None:
            self.clock.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        self._clear()
        self._bodies.drop(self)

    def receive(self, receive: Receive) -> Receive:
        """`receive` for the application: the body in one message, unless it was taken, then further
        messages."""
        is_told = False

        async def received() -> HTTPReceiveMessage:
            nonlocal is_told
            if is_told:
                return cast(HTTPReceiveMessage, await receive())
            is_told = True
            message: HTTPRequestEvent = {
                "type": "http.request",
                "body": self.take(),
                "more_body": False,
            }
            return message

        return cast(Receive, received)


def _pieces(start: bytearray, blocks: list[mmap.mmap], n_in_last: int) -> Iterator[bytes]:
    if start:
        yield bytes(start)
    blocks.reverse()
    while blocks:
        with blocks.pop() as block:
            piece = block[: BLOCK_BYTES if blocks else n_in_last]
        yield piece


class Bodies:
    """All bodies of a daemon. Event loop's thread only."""

    def __init__(self, settings: HttpSettings, max_upload_bytes: int = 0) -> None:
        self.max_body_bytes = settings.max_body_bytes
        self.max_bytes = max(settings.max_bodies_bytes, settings.max_body_bytes, max_upload_bytes)
        self.timeout_s = settings.body_timeout_s
        self._max_other_bytes = max(settings.max_bodies_bytes, settings.max_body_bytes)
        self._open: dict[Body, None] = {}
        self._held: Counter[tuple[str, bool]] = Counter()  # by caller, and whether they are uploads
        self._n_bytes: Counter[bool] = Counter()  # of uploads, and of all others

    @property
    def n_bytes(self) -> int:
        """The counted bytes of all bodies."""
        return self._n_bytes.total()

    async def read(
        self,
        receive: Receive,
        holder: str,
        encoding: str = "identity",
        max_bytes: int | None = None,
    ) -> Body:
        """A whole body; uploads have a limit of their own (`max_bytes`). The caller must `close` it.

        Raises: BadRequest for one that is incomplete or too slow; BodyTooLarge; RateLimited and Unavailable
        where there is no memory for it.
        """
        now_s = asyncio.get_running_loop().time()
        body = Body(self, holder, encoding, now_s, max_bytes or self.max_body_bytes)
        self._open[body] = None
        try:
            while not body.is_complete:
                await self._read_piece(body, receive)
        except BaseException:
            body.close()
            raise
        return body

    async def _read_piece(self, body: Body, receive: Receive) -> None:
        # Each byte extends the deadline: a slow body is allowed, a trickle is not.
        deadline_s = body.started_s + self.timeout_s + body.n_received / MIN_BODY_BYTES_PER_S
        try:
            async with asyncio.timeout_at(deadline_s) as body.clock:
                message = cast(HTTPReceiveMessage, await receive())
        except TimeoutError:
            if body.is_evicted:
                raise _crowded() from None
            raise BadRequest(
                f"The body was not complete after {self.timeout_s:g} s: send it faster."
            ) from None
        finally:
            body.clock = None
        if body.is_evicted:
            raise _crowded()
        if message["type"] == "http.disconnect":
            raise BadRequest("The body ended before it was complete: send all of it.")
        body.add(message["body"])
        body.is_complete = not message["more_body"]

    def reserve(self, body: Body, n_more: int) -> None:
        """Count `n_more` bytes of `body`. Raises: RateLimited, Unavailable."""
        if n_more <= 0:
            return
        most = self.max_bytes if body.is_upload else self._max_other_bytes
        share = max(body.max_bytes, int(CALLER_SHARE * most))
        while self._held[body.account] + n_more > share:
            if not self._evict(body, lambda other: other.account == body.account):
                raise RateLimited(
                    f"Requests of this key hold {self._held[body.account]} bytes of bodies, its bound is "
                    f"{share}: wait until some have ended, or raise http.max_bodies_bytes.",
                    retry_after_s=RETRY_AFTER_S,
                )
        while self._n_bytes[body.is_upload] + n_more > most:
            if not self._evict(body, lambda other: other.is_upload == body.is_upload):
                raise _crowded()
        while self.n_bytes + n_more > self.max_bytes:
            if not self._evict(body, lambda _: True):
                raise _crowded()
        self._count(body, n_more)

    def _evict(self, asking: Body, is_able: Callable[[Body], bool]) -> bool:
        """Evict one body that is still arriving. False: there is none."""
        able = [
            body
            for body in self._open
            if body is not asking and not body.is_complete and body.n_bytes and is_able(body)
        ]
        if not able:
            return False
        min(able, key=lambda body: (-self._held[body.account], body.started_s)).evict()
        return True

    def _count(self, body: Body, n_bytes: int) -> None:
        body.n_bytes += n_bytes
        self._n_bytes[body.is_upload] += n_bytes
        self._held[body.account] += n_bytes

    def drop(self, body: Body) -> None:
        """Stop counting a body."""
        if self._open.pop(body, self) is None:
            self._count(body, -body.n_bytes)
            if not self._held[body.account]:
                del self._held[body.account]


def too_large(n_bytes: int, max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body has {n_bytes} bytes or more, the bound is {max_bytes}: send less, or raise "
        "max_body_bytes."
    )


def _crowded() -> Unavailable:
    return Unavailable(
        "Bodies of other requests use all the memory for bodies: send the request again, or "
        "raise http.max_bodies_bytes.",
        retry_after_s=RETRY_AFTER_S,
    )
