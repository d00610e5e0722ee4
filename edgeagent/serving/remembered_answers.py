"""Answers to requests with an Idempotency-Key, so that a request that is sent again is not done again.

In memory only, encrypted with a key of this process, within bounds, for a while. A restart forgets them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeagent.errors import IdempotencyKeyReused, RateLimited
from edgeagent.store.erasure_hub import DeletedContent

KEPT_S = 3600.0
MAX_ANSWER_BYTES = 1 << 20  # of one answer; longer ones are not kept
MAX_OWNER_BYTES = 4 << 20
MAX_BYTES = 16 << 20
MAX_OWNER_KEYS = 256
MAX_KEYS = 2048
# What an entry costs beside its answer.
ENTRY_BYTES = 512

_NONCE_BYTES = 12


class WholeAnswer(msgspec.Struct, frozen=True, array_like=True):
    """A response: status, headers and body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(eq=False)
class Attempt:
    """The request that is done for a key of an owner. `digest` is that of the request.

    It runs until `ended`; then `sealed` is its answer, or None if it failed or was too long to be kept.
    """

    owner: str
    key: str
    digest: bytes
    started_s: float
    n_waiting: int = 0  # requests that came again and wait for the end
    is_forgotten: bool = False
    sealed: bytes | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def n_bytes(self) -> int:
        return ENTRY_BYTES + len(self.sealed or b"")


class RememberedAnswers:
    """Attempts by owner and key. Event loop's thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cipher = AESGCM(AESGCM.generate_key(256))
        self._attempts: OrderedDict[tuple[str, str], Attempt] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._attempts)

    @property
    def n_bytes(self) -> int:
        return sum(attempt.n_bytes for attempt in self._attempts.values())

    def find(self, owner: str, key: str, digest: bytes) -> Attempt | None:
        """The attempt that runs or has an answer. Raises: IdempotencyKeyReused for another request."""
        self._expire()
        attempt = self._attempts.get((owner, key))
        if attempt is not None and attempt.digest != digest:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was used for another request: take a new key, or send the same "
                "request with it."
            )
        return attempt

    def begin(self, owner: str, key: str, digest: bytes) -> Attempt:
        """A new attempt, in place of an older one with the same key. Raises: RateLimited."""
        self._attempts.pop((owner, key), None)
        attempt = Attempt(owner, key, digest, self._clock())
        self._make_room(owner, attempt.n_bytes)
        self._attempts[owner, key] = attempt
        return attempt

    def end(self, attempt: Attempt, answer: WholeAnswer | None) -> None:
        """Keep the answer of an attempt, unless there is none or it was forgotten meanwhile."""
        key = (attempt.owner, attempt.key)
        if answer is None or attempt.is_forgotten or len(answer.body) > MAX_ANSWER_BYTES:
            if self._attempts.get(key) is attempt:
                del self._attempts[key]
        else:
            nonce = os.urandom(_NONCE_BYTES)
            plain = msgspec.msgpack.encode(answer)
            attempt.sealed = nonce + self._cipher.encrypt(nonce, plain, attempt.digest)
            self._make_room(attempt.owner, 0)
        attempt.ended.set()

    def answer(self, attempt: Attempt) -> WholeAnswer | None:
        """What an ended attempt has answered; None where it has to be done again."""
        if attempt.sealed is None or attempt.is_forgotten:
            return None
        nonce, sealed = attempt.sealed[:_NONCE_BYTES], attempt.sealed[_NONCE_BYTES:]
        plain = self._cipher.decrypt(nonce, sealed, attempt.digest)
        return msgspec.msgpack.decode(plain, type=WholeAnswer)

    async def forget(self, gone: DeletedContent) -> None:
        """Forget all answers of an owner, or of everybody: which of them held what is not known."""
        for (owner, _), attempt in list(self._attempts.items()):
            if gone.owner in (None, owner):
                self._drop(attempt)

    # --- bounds

    def _expire(self) -> None:
        oldest_s = self._clock() - KEPT_S
        for attempt in list(self._attempts.values()):
            if attempt.started_s > oldest_s:
                break
            if attempt.ended.is_set():  # one that still runs is not to be done a second time
                self._drop(attempt)

    def _make_room(self, owner: str, n_more: int) -> None:
        """Drop the oldest ended attempts, of the owner, then of all. Raises: RateLimited."""
        own = [attempt for attempt in self._attempts.values() if attempt.owner == owner]
        self._shrink(own, MAX_OWNER_KEYS, MAX_OWNER_BYTES, n_more)
        self._shrink(list(self._attempts.values()), MAX_KEYS, MAX_BYTES, n_more)

    def _shrink(self, attempts: list[Attempt], most: int, most_bytes: int, n_more: int) -> None:
        n = len(attempts) + bool(n_more)
        n_bytes = sum(attempt.n_bytes for attempt in attempts) + n_more
        for attempt in attempts:
            if n <= most and n_bytes <= most_bytes:
                return
            if attempt.ended.is_set():
                n -= 1
                n_bytes -= attempt.n_bytes
                self._drop(attempt)
        if n > most:
            raise RateLimited(
                f"{most} requests with an Idempotency-Key are running, which is the limit: wait until some "
                "have ended.",
                retry_after_s=2.0,
            )

    def _drop(self, attempt: Attempt) -> None:
        attempt.is_forgotten = True
        attempt.sealed = None
        if self._attempts.get((attempt.owner, attempt.key)) is attempt:
            del self._attempts[attempt.owner, attempt.key]
