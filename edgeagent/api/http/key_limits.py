"""The limits of a key: requests and tokens per minute, and concurrent requests. Also limits failed
authentications.

Nothing here reads a header, a clock or a database: the clock is passed in, so that tests can use tables.
Buckets are in memory; a restart fills them. Event loop's thread only.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgeagent.api.http.token_bucket import TokenBucket
from edgeagent.errors import RateLimited
from edgeagent.types.caller import LOCAL, Caller

Clock = Callable[[], float]  # seconds, monotonic

MINUTE_S = 60.0
MAX_IDLE_KEYS = 1024  # idle keys whose buckets are kept
MAX_PEERS = 1024
FAILURES = 20  # allowed to a peer at once, and then per minute


class _Usage:
    """The current usage of one key."""

    def __init__(self, caller: Caller, clock: Clock) -> None:
        limits = caller.limits
        self.requests = _bucket(limits.requests_per_minute, clock)
        self.tokens = _bucket(limits.tokens_per_minute, clock)
        self.n_running = 0
        self.alone: set[str] = set()  # kinds of work that run one at a time

    @property
    def is_idle(self) -> bool:
        """Whether forgetting it would change nothing."""
        buckets = (self.requests, self.tokens)
        return self.n_running == 0 and all(b is None or b.is_full for b in buckets)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*`, in OpenAI's format."""
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
    """One admitted request. `release` ends it and may be called twice. One that is not counted leaves the
    concurrency of its key to others."""

    def __init__(self, usage: _Usage, *, is_counted: bool = True) -> None:
        self._usage = usage
        self._n_charged = 0
        self._is_released = not is_counted
        usage.n_running += is_counted

    def charge(self, n_tokens: int) -> None:
        """Charge the tokens that were read and generated so far. A later call adds what came since."""
        n_new = n_tokens - self._n_charged
        if self._usage.tokens is not None and n_new > 0:
            self._usage.tokens.take(n_new)
            self._n_charged = n_tokens

    def extended(self) -> Admission:
        """An admission of the same key for work that continues after this request. It is always granted."""
        return Admission(self._usage)

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """While this lasts, the key may not start another `what`. Raises: RateLimited."""
        if what in self._usage.alone:
            raise RateLimited(
                f"This key has one {what} running, which is its limit: wait until it has ended.",
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
    """The limits of all keys, and `max_running`, which applies to each of them."""

    def __init__(self, clock: Clock = time.monotonic, max_running: int | None = None) -> None:
        self._clock = clock
        self._max_running = max_running
        self._usages: OrderedDict[str, _Usage] = OrderedDict()

    def admit(self, caller: Caller) -> Admission:
        """Admit one more request. Refused requests do not count. Raises: RateLimited."""
        usage = self._usage(caller)
        is_named = caller.key_id != LOCAL.key_id  # without keys there is only the local owner
        if is_named and self._max_running is not None and usage.n_running >= self._max_running:
            raise RateLimited(
                f"This key has {usage.n_running} requests running, no key may have more than three quarters "
                "of the server's connections: wait until one ends, or raise http.max_connections.",
                retry_after_s=1.0,
            )
        most = caller.limits.concurrency
        if most is not None and usage.n_running >= most:
            raise RateLimited(
                f"This key has {usage.n_running} requests running, its limit is {most}: wait until one "
                "ends, or ask for a higher `concurrency`.",
                retry_after_s=1.0,
            )
        if usage.requests is not None and usage.requests.level < 1:
            raise RateLimited(
                f"This key has made its {usage.requests.capacity:.0f} requests of a minute: try "
                "again later, or ask for a higher `requests_per_minute`.",
                retry_after_s=usage.requests.wait_s(1),
            )
        if usage.tokens is not None and usage.tokens.level < 1:
            raise _no_tokens(usage.tokens)
        if usage.requests is not None:
            usage.requests.take(1)
        return Admission(usage)

    def admit_batch(self, caller: Caller) -> Admission:
        """Admit a request of a batch, which uses up the tokens of the key and nothing else. Raises:
        RateLimited."""
        usage = self._usage(caller)
        if usage.tokens is not None and usage.tokens.level < 1:
            raise _no_tokens(usage.tokens)
        return Admission(usage, is_counted=False)

    def headers(self, caller: Caller) -> list[tuple[bytes, bytes]]:
        """The headers about the limits of a key, for every answer."""
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
    """Counts failed authentications of each peer, so that guessing is slow and does not fill the log.

    A valid key always passes: behind a proxy all clients have one address, and one guessing client must not
    lock out the others. The security lies in secrets of 256 bits.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._peers: OrderedDict[str, TokenBucket] = OrderedDict()

    def fail(self, peer: str) -> None:
        """Count a failure. Raises: RateLimited for a peer with too many."""
        network = peer_network(peer)
        bucket = self._peers.pop(network, None) or _per_minute(FAILURES, self._clock)
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
    """The unit that counts as one peer: an IPv4 address, or an IPv6 /64, from which one host can choose."""
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
    """A time in the format of OpenAI's headers: `120ms`, `6s`, `1m0s`."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _no_tokens(bucket: TokenBucket) -> RateLimited:
    return RateLimited(
        f"This key has used its {bucket.capacity:.0f} tokens of a minute: try again later, or ask for a "
        "higher `tokens_per_minute`.",
        retry_after_s=bucket.wait_s(1),
    )


def _bucket(per_minute: int | None, clock: Clock) -> TokenBucket | None:
    return _per_minute(per_minute, clock) if per_minute is not None else None


def _per_minute(amount: float, clock: Clock) -> TokenBucket:
    return TokenBucket(amount, amount / MINUTE_S, clock)
