"""Decides what the next step does: pure functions over plain numbers, without clock, log or llama.cpp."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MIN_CHUNK = 16
# A step costs about as much as this many prompt tokens on the devices measured so far.
MIN_WORTH_WAITING = 8


class Lane(NamedTuple):
    """A running sequence as the scheduler sees it. `key` identifies it; `n_pending` tokens are not in the
    cache yet, of a decoding sequence only the newest. `is_answering`: its first token was drawn, so that a
    client waits for more; several tokens are pending if its grammar forced them. `adapter`: the LoRA adapter
    that it is computed with."""

    key: int
    n_pending: int
    is_decoding: bool
    is_answering: bool = False
    adapter: str | None = None


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
    `chunk_limit` tokens in all: answers with forced tokens first, then prompts, oldest first. Where the
    oldest prompt takes more than this step, prompts of less than half of it get half of the chunk, the
    shortest first, so that a question does not wait for a book. The plan holds 0..n_batch tokens.

    Source: chunked prefill, Agrawal et al. 2023, arXiv:2308.16369.
    """
    decode = [lane.key for lane in lanes if lane.is_decoding][:n_batch]
    room = min(n_batch - len(decode), max(chunk_limit, MIN_CHUNK))
    prefill = []
    rest = [lane for lane in lanes if not lane.is_decoding]
    for lane, bound in _shares(rest, room) if len(rest) > 1 else ((lane, room) for lane in rest):
        n = min(lane.n_pending, room, bound)
        if n > 0:
            prefill.append((lane.key, n))
            room -= n
    return StepPlan(decode, prefill)


def _shares(lanes: list[Lane], room: int) -> Iterator[tuple[Lane, int]]:
    """The lanes that share a chunk of `room` tokens, in their order, each with the most tokens that it may
    take. A lane of which only a part may be short comes once."""
    answers = [lane for lane in lanes if lane.is_answering]
    prompts = [lane for lane in lanes if not lane.is_answering]
    yield from ((lane, room) for lane in answers)
    room -= min(room, sum(lane.n_pending for lane in answers))
    taken: set[int] = set()
    if prompts and prompts[0].n_pending > room:
        left = room // 2
        short = [lane for lane in prompts[1:] if 2 * lane.n_pending < prompts[0].n_pending]
        for lane in sorted(short, key=lambda lane: lane.n_pending):
            if left <= 0:
                break
            yield lane, left
            left -= min(left, lane.n_pending)
            taken.add(lane.key)
    yield from ((lane, room) for lane in prompts if lane.key not in taken)


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
        """Prompt tokens that fit into the time budget. If no sequence is decoding, only new requests wait,
        and the step may be four times as long. Before the first measurement: a small chunk."""
        if self.prefill_per_s is None:
            return min(n_batch, 4 * MIN_CHUNK)
        budget = budget_s if n_decode else 4 * budget_s
        return max(MIN_CHUNK, min(n_batch, int(budget * self.prefill_per_s)))


def _blend(old: float | None, new: float) -> float:
    return new if old is None else 0.75 * old + 0.25 * new


@dataclass(frozen=True)
class WaitingLane:
    """A waiting sequence as the scheduler sees it: `n_scope` and `n_request` count the running sequences
    of its API key and of its own request."""

    priority: int
    waited_s: float
    n_scope: int
    n_request: int


def pick_waiting(waiters: Sequence[WaitingLane], patience_s: float) -> int:
    """The index of the waiting sequence that is admitted next; `waiters` are in order of arrival.

    The highest priority is first; among equal priorities the sequence of the API key with the fewest running
    sequences, then of the request with the fewest, then the first to arrive. A priority rises while its
    sequence waits, and reaches the highest of all after `patience_s`, so that no sequence waits for ever
    and a key with many requests gets no more than its share.
    """
    top = max(waiter.priority for waiter in waiters)

    def rank(i: int) -> tuple[float, int, int, int]:
        waiter = waiters[i]
        share = min(1.0, waiter.waited_s / patience_s) if patience_s > 0 else 1.0
        risen = waiter.priority + (top - waiter.priority) * share
        return -risen, waiter.n_scope, waiter.n_request, i

    return min(range(len(waiters)), key=rank)


def pick_yielding(running: Sequence[tuple[str, int]], scope: str) -> int | None:
    """The admission number of the sequence that gives its slot to one of `scope` when all slots are taken.

    It is the newest of the API key with the most slots, if `scope` has none and that key keeps one. `running`
    holds (scope, admission number) pairs. None: no sequence has to."""
    n_running = Counter(other for other, _ in running)
    if n_running[scope] or max(n_running.values(), default=0) < 2:
        return None
    (largest, _), *_ = n_running.most_common(1)
    return max(admission for other, admission in running if other == largest)


def pick_displaced(n_waiting: Mapping[str, int], scope: str) -> str | None:
    """The API key whose newest request gives its place in a full queue to one of `scope`.

    It is the key with the most waiting requests, if that is more than `scope` would have.
    """
    longest = max(n_waiting, key=lambda key: n_waiting[key], default=scope)
    is_longer = longest != scope and n_waiting[longest] > n_waiting.get(scope, 0) + 1
    return longest if is_longer else None


def waits_for_leader(n_shared_now: int, n_shared_later: int, leader_past: int) -> bool:
    """Whether a request should wait until a running one has computed the prefix that they share.

    `n_shared_now` tokens can be shared at once, `n_shared_later` after the leader's prefill, of which
    `leader_past` tokens are done. A few tokens are not worth waiting for.
    """
    return n_shared_later - n_shared_now >= MIN_WORTH_WAITING and leader_past < n_shared_later


def pick_victim(admissions: Sequence[tuple[int, int]]) -> int | None:
    """The key of the sequence that gives its cells back when none are free: the newest, so that the oldest
    always makes progress. `admissions` holds (key, admission number) pairs. None if there is only one."""
    if len(admissions) < 2:
        return None
    return max(admissions, key=lambda pair: pair[1])[0]
