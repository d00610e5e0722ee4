"""What the next step does, as pure functions over plain numbers: no clock, no log, no llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MIN_CHUNK = 16
# A step costs about as much as this many prompt tokens on the devices measured so far.
MIN_WORTH_WAITING = 8


@dataclass(frozen=True)
class Lane:
    """A running sequence as the scheduler sees it: `key` names it, `n_pending` tokens lie outside
    the cache; a decoding one has exactly its newest token pending. One that `is_answering` has a
    reader who waits: more tokens than one are pending where its grammar forced them."""

    key: int
    n_pending: int
    is_decoding: bool
    is_answering: bool = False


@dataclass(frozen=True)
class StepPlan:
    """One token for each key in `decode`; the next n tokens for each (key, n) in `prefill`."""

    decode: list[int] = field(default_factory=list)
    prefill: list[tuple[int, int]] = field(default_factory=list)

    @property
    def n_prefill(self) -> int:
        return sum(n for _, n in self.prefill) if self.prefill else 0

    @property
    def n_tokens(self) -> int:
        return len(self.decode) + self.n_prefill


def plan_step(lanes: Sequence[Lane], n_batch: int, chunk_limit: int) -> StepPlan:
    """Pick the tokens of the next step.

    Each decoding sequence gets its one token first; the others share the rest in chunks of at most
    `chunk_limit` tokens in all: answers with forced tokens first, then prompts, oldest first. The plan
    holds 0..n_batch tokens.

    Source: chunked prefill, Agrawal et al. 2023, arXiv:2308.16369.
    """
    decode = [lane.key for lane in lanes if lane.is_decoding][:n_batch]
    room = min(n_batch - len(decode), max(chunk_limit, MIN_CHUNK))
    prefill = []
    rest = [lane for lane in lanes if not lane.is_decoding]
    for lane in sorted(rest, key=lambda lane: not lane.is_answering) if len(rest) > 1 else rest:
        if room <= 0:
            break
        n = min(lane.n_pending, room)
        prefill.append((lane.key, n))
        room -= n
    return StepPlan(decode, prefill)


@dataclass
class Pace:
    """Prompt tokens per second and seconds per decode step, as measured on this device so far.

    Moving averages with a quarter's weight on the newest step: a device that heats up is noticed
    within a few steps, one slow step does not halve the chunk.
    """

    prefill_per_s: float | None = None
    decode_s: float | None = None

    def observe(self, n_decode: int, n_prefill: int, took_s: float) -> None:
        if n_prefill == 0:
            self.decode_s = _blend(self.decode_s, took_s)
        elif n_prefill >= MIN_CHUNK:
            spent = took_s - (self.decode_s or 0.0 if n_decode else 0.0)
            self.prefill_per_s = _blend(
                self.prefill_per_s, n_prefill / max(spent, took_s / 4, 1e-6)
            )

    def chunk_limit(self, budget_s: float, n_decode: int, n_batch: int) -> int:
        """Prompt tokens that fit into the budget. Where nobody is decoding, the wait is for new
        arrivals only and may be four times as long. Before the first measurement: a small chunk."""
        if self.prefill_per_s is None:
            return min(n_batch, 4 * MIN_CHUNK)
        budget = budget_s if n_decode else 4 * budget_s
        return max(MIN_CHUNK, min(n_batch, int(budget * self.prefill_per_s)))


def _blend(old: float | None, new: float) -> float:
    return new if old is None else 0.75 * old + 0.25 * new


def waits_for_leader(n_shared_now: int, n_shared_later: int, leader_past: int) -> bool:
    """Whether a request had better wait for a running one to prefill their common beginning.

    `n_shared_now` tokens could be shared at once, `n_shared_later` once the leader's prefill is
    through, of which `leader_past` are done. A few tokens are not worth waiting for.
    """
    return n_shared_later - n_shared_now >= MIN_WORTH_WAITING and leader_past < n_shared_later


def pick_victim(admissions: Sequence[tuple[int, int]]) -> int | None:
    """Who gives its cells back when none are free: of (key, admission number) the newest, so that
    the oldest always makes progress. None when there is only one."""
    if len(admissions) < 2:
        return None
    return max(admissions, key=lambda pair: pair[1])[0]
