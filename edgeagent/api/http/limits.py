"""What one key may use: requests and tokens in a minute, requests at once. And how often a peer may fail.

Nothing here reads a header, a clock or a database: the clock is given, so that tables test it. Buckets
are in memory; a restart fills them. Event loop's thread only.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgeagent.errors import RateLimited
from edgeagent.types.caller import LOCAL, Caller

Clock = Callable[[], float]  # seconds, monotonic

MINUTE_S = 60.0
MAX_IDLE_KEYS = 1024  # buckets kept for keys that do nothing
MAX_PEERS = 1024
FAILURES = 20  # that a peer may make at once, and then each minute


class Bucket:
    """`capacity` things, refilled evenly within a minute. What is taken later may go below zero."""

    def __init__(self, capacity: float, clock: Clock) -> None:
        self.capacity = capacity
        self._rate = capacity / MINUTE_S
        self._clock = clock
        self._level = capacity
        self._at_s = clock()

    @property
    def level(self) -> float:
        now_s = self._clock()
        self._level = min(self.capacity, self._level + max(0.0, now_s - self._at_s) * self._rate)
        self._at_s = now_s
        return self._level

    def take(self, amount: float) -> None:
        self._level = self.level - amount

    def wait_s(self, wanted: float) -> float:
        """Until it holds `wanted`, which is no more than its capacity."""
        return max(0.0, wanted - self.level) / self._rate

    @property
    def is_full(self) -> bool:
        return self.level >= self.capacity


class _Usage:
    """What one key uses now."""

    def __init__(self, caller: Caller, clock: Clock) -> None:
        limits = caller.limits
        self.requests = _bucket(limits.requests_per_minute, clock)
        self.tokens = _bucket(limits.tokens_per_minute, clock)
        self.n_running = 0
        self.alone: set[str] = set()  # what runs once at a time

    @property
    def is_idle(self) -> bool:
        """Forgetting it would change nothing."""
        buckets = (self.requests, self.tokens)
        return self.n_running == 0 and all(b is None or b.is_full for b in buckets)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*`, named and written as OpenAI does."""
        found = []
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                found += [
                    (f"x-ratelimit-limit-{name}", f"{bucket.capacity:.0f}"),
                    (f"x-ratelimit-remaining-{name}", str(max(0, int(bucket.level)))),
                    (f"x-ratelimit-reset-{name}", duration(bucket.wait_s(bucket.capacity))),
                ]
        return [(key.encode(), value.encode()) for key, value in found]


class Admission:
    """One admitted request. `release` gives its place back and may be called twice."""

    def __init__(self, usage: _Usage) -> None:
        self._usage = usage
        self._is_released = False
        usage.n_running += 1

    def charge(self, n_tokens: int) -> None:
        """Count tokens that were read and made. May be called more than once."""
        if self._usage.tokens is not None and n_tokens > 0:
            self._usage.tokens.take(n_tokens)

    def extended(self) -> Admission:
        """A place of the same key, for what goes on when this request is over. Nobody is refused it."""
        return Admission(self._usage)

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """While it lasts, the key does no other of `what`. Raises: RateLimited."""
        if what in self._usage.alone:
            raise RateLimited(
                f"This key has one {what} running, which is all it may: wait until it has ended.",
                retry_after_s=5.0,
            )
        self._usage.alone.add(what)
        try:
            yield
        finally:
            self._usage.alone.discard(what)

    def release(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._usage.n_running -= 1

    def headers(self) -> list[tuple[bytes, bytes]]:
        return self._usage.headers()


class Limiter:
    """The bounds of all keys, and `max_running`, which holds for each of them."""

    def __init__(self, clock: Clock = time.monotonic, max_running: int | None = None) -> None:
        self._clock = clock
        self._max_running = max_running
        self._usages: OrderedDict[str, _Usage] = OrderedDict()

    def admit(self, caller: Caller) -> Admission:
        """A place for one more request. What is refused is not counted. Raises: RateLimited."""
        usage = self._usage(caller)
        is_named = caller.key_id != LOCAL.key_id  # without keys, who attacks is who is attacked
        if is_named and self._max_running is not None and usage.n_running >= self._max_running:
            raise RateLimited(
                f"This key has {usage.n_running} requests running, no key may have more than three quarters "
                "of the server's connections: wait until one ends, or raise http.max_connections.",
                retry_after_s=1.0,
            )
        most = caller.limits.concurrency
        if most is not None and usage.n_running >= most:
            raise RateLimited(
                f"This key has {usage.n_running} requests running, its bound is {most}: wait until one "
                "ends, or ask for a higher `concurrency`.",
                retry_after_s=1.0,
            )
        if usage.requests is not None and usage.requests.level < 1:
            raise RateLimited(
                f"This key has made its {usage.requests.capacity:.0f} requests of a minute: come "
                "again later, or ask for a higher `requests_per_minute`.",
                retry_after_s=usage.requests.wait_s(1),
            )
        if usage.tokens is not None and usage.tokens.level < 1:
            raise RateLimited(
                f"This key has used its {usage.tokens.capacity:.0f} tokens of a minute: come again "
                "later, or ask for a higher `tokens_per_minute`.",
                retry_after_s=usage.tokens.wait_s(1),
            )
        if usage.requests is not None:
            usage.requests.take(1)
        return Admission(usage)

    def headers(self, caller: Caller) -> list[tuple[bytes, bytes]]:
        """What an answer says of the key's bounds, also one that refuses."""
        return self._usage(caller).headers()

    def _usage(self, caller: Caller) -> _Usage:
        usage = self._usages.get(caller.key_id)
        if usage is None:
            if len(self._usages) >= MAX_IDLE_KEYS:
                self._forget_idle()
            usage = self._usages[caller.key_id] = _Usage(caller, self._clock)
        return usage

    def _forget_idle(self) -> None:
        for key_id in [key_id for key_id, usage in self._usages.items() if usage.is_idle]:
            del self._usages[key_id]


class FailureThrottle:
    """Counts failed authentications of each peer, so that guessing neither fills the log nor is free.

    A good key always passes: behind a proxy all clients have one address, and one that guesses must
    not lock the others out. Secrets of 256 bits are what guessing fails at.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._peers: OrderedDict[str, Bucket] = OrderedDict()

    def fail(self, peer: str) -> None:
        """Count a failure. Raises: RateLimited for a peer that has made too many."""
        network = peer_network(peer)
        bucket = self._peers.pop(network, None) or Bucket(FAILURES, self._clock)
        self._peers[network] = bucket
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        if bucket.level < 1:
            raise RateLimited(
                f"{FAILURES} requests in a minute from this address had no valid API key: correct the "
                "key, then try again.",
                retry_after_s=bucket.wait_s(1),
            )
        bucket.take(1)

    def __len__(self) -> int:
        return len(self._peers)


def peer_network(peer: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 that one IPv6 host can draw from."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def duration(seconds: float) -> str:
    """Time as OpenAI's headers have it: `120ms`, `6s`, `1m0s`."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _bucket(per_minute: int | None, clock: Clock) -> Bucket | None:
    return Bucket(per_minute, clock) if per_minute is not None else None
