"""Gives slots to waiting sequences, and takes them from running ones for those that come first."""

from __future__ import annotations

from typing import Protocol

from edgeagent.engine.batching.backlog import Backlog
from edgeagent.engine.batching.kv_cache import KVCache
from edgeagent.engine.batching.prefix_parking import PrefixParking
from edgeagent.engine.batching.prefix_sharing import find_shared_prefix
from edgeagent.engine.batching.scheduler_views import (
    gives_way_to,
    take_next,
    takeovers,
    yielding_to,
)
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.types.engine_config import EngineConfig

# Cells kept free for each running sequence when another is admitted, so that it is not preempted after a
# few tokens.
HEADROOM_CELLS = 32
# After 1/PATIENCE of `queue_timeout_s` a request precedes all that arrive later, whatever their priority.
PATIENCE = 4
# After 1/SHARE of it an API key without a running answer gets a slot from the key that has the most.
SHARE = 12
SHARE_INTERVAL_S = 0.25


class Preempt(Protocol):
    """Puts a running sequence back into the queue."""

    def __call__(self, seq: Sequence, *, keeps_cells: bool) -> None: ...


class Start(Protocol):
    """Begins a sequence under an id that holds its first `n_shared` tokens."""

    def __call__(self, seq: Sequence, seq_id: int, n_shared: int, now: float) -> None: ...


class Admission:
    """Engine thread only. `waiting` and `running` are the engine's own."""

    def __init__(
        self,
        config: EngineConfig,
        kv: KVCache,
        parking: PrefixParking,
        waiting: Backlog,
        running: list[Sequence],
        *,
        can_trim: bool,
        preempt: Preempt,
        start: Start,
    ) -> None:
        self._n_seq, self._limit_s = config.n_seq, config.queue_timeout_s
        self._kv = kv
        self._parking = parking
        self._waiting = waiting
        self._running = running
        self._can_trim = can_trim
        self._preempt = preempt
        self._start = start
        self._next_share_s = 0.0

    def admit(self, now: float) -> None:
        """Give waiting sequences a slot, in the order of `pick_waiting`.

        A sequence whose prefix a running one is computing is skipped until it can share the prefix. A
        sequence for which there are not enough cells ends the admission: if others overtook it, it could
        wait for ever.
        """
        if not self._waiting:
            return
        if len(self._running) < self._n_seq:
            candidates = list(self._waiting)
        elif not (candidates := self._urgent()):
            self._make_way(now)
            return
        patience_s = self._limit_s / PATIENCE
        while candidates and len(self._running) < self._n_seq:
            seq = take_next(candidates, self._running, now, patience_s)
            match, is_idle, must_wait = find_shared_prefix(
                seq, self._running, self._kv, can_trim=self._can_trim
            )
            if must_wait:
                continue
            need = len(seq.tokens) - match.n + HEADROOM_CELLS * (1 + len(self._running))
            room = self._kv.n_free + self._kv.n_evictable() - (match.n if is_idle else 0)
            if room < need and self._running:
                if (victim := gives_way_to(seq, self._running)) is None:
                    return
                self._preempt(victim, keeps_cells=self._can_trim)
                candidates = [seq]
                continue
            match = self._parking.recall(seq, match)
            seq_id = self._kv.acquire(match)
            if seq_id is None:
                return
            self._waiting.remove(seq)
            seq.is_protected = any(other.request.rank > seq.request.rank for other in candidates)
            self._start(seq, seq_id, match.n, now)

    def _urgent(self) -> list[Sequence]:
        """Waiting sequences for which others of a lower class gave up their slots just now."""
        found = takeovers(self._waiting, self._running)
        for _, victim in found:
            self._preempt(victim, keeps_cells=self._can_trim)
        return [seq for seq, _ in found]

    def _make_way(self, now: float) -> None:
        """Take a slot from the API key that has the most, for a waiting one that has none."""
        if now < self._next_share_s:
            return
        self._next_share_s = now + SHARE_INTERVAL_S
        seq = yielding_to(
            self._waiting, self._running, now, self._limit_s / PATIENCE, self._limit_s / SHARE
        )
        if seq is not None:
            self._preempt(seq, keeps_cells=self._can_trim)
