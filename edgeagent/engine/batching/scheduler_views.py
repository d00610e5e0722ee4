"""The sequences of an engine as the plain data that the scheduler decides on."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from edgeagent.engine.batching.scheduler import (
    Lane,
    WaitingLane,
    pick_displaced,
    pick_waiting,
    pick_yielding,
)
from edgeagent.engine.batching.sequence import Sequence
from edgeagent.engine.batching.step_runner import Row

# A sequence that gives way to prompts of a higher class takes a step at least this often.
LONGEST_PAUSE_S = 2.0


def lanes_of(running: Collection[Sequence], max_outputs: int, now: float) -> list[Lane]:
    """A lane for each running sequence that takes part in the next step, in which `max_outputs` tokens in
    all may have logits.

    While somebody waits for the first token of an answer, sequences of lower classes pause, so that the
    prompt is computed sooner; they keep their cells.

    Every token of a prompt that is scored has logits, and of each other sequence one at most. Where that is
    more than there may be, a step takes fewer tokens of such prompts.
    """
    top = max(
        (seq.request.rank for seq in running if not seq.is_answering and seq.n_pending), default=0
    )
    if top:
        running = [
            seq for seq in running if seq.request.rank >= top or now - seq.ran_s >= LONGEST_PAUSE_S
        ]
    n_scored = sum(seq.is_scored for seq in running)
    bound = max(1, (max_outputs - (len(running) - n_scored)) // n_scored) if n_scored else 0
    return [
        Lane(
            seq.admission,
            min(seq.n_pending, bound) if seq.is_scored else seq.n_pending,
            seq.is_decoding,
            seq.is_answering,
            seq.adapter,
        )
        for seq in running
        if seq.n_pending
    ]


def row_of(seq: Sequence, n: int, draft: array[int]) -> Row:
    """The next `n` pending tokens of a running sequence, as one row of a step, and tokens that may follow."""
    n_outputs = n if seq.is_scored else int(n == seq.n_pending)
    tokens = seq.tokens[seq.n_past : seq.n_past + n] + draft
    return Row(seq.seq_id or 0, tokens, seq.n_past, n_outputs + len(draft))


def take_next(
    candidates: list[Sequence], running: Iterable[Sequence], now: float, patience_s: float
) -> Sequence:
    """Remove and return the candidate that is admitted next. `candidates` are in order of arrival."""
    by_scope: Counter[str] = Counter()
    by_request: Counter[int] = Counter()
    for seq in running:
        by_scope[seq.request.spec.scope] += 1
        by_request[seq.request.request_id] += 1
    waiters = [
        WaitingLane(
            seq.request.spec.priority,
            now - seq.request.arrived_s,
            by_scope[seq.request.spec.scope],
            by_request[seq.request.request_id],
        )
        for seq in candidates
    ]
    return candidates.pop(pick_waiting(waiters, patience_s))


def yielding_to(
    waiting: Iterable[Sequence],
    running: list[Sequence],
    now: float,
    patience_s: float,
    share_s: float,
) -> Sequence | None:
    """The running sequence that gives its slot to the next waiting one, if that has waited for `share_s`.
    All slots are taken."""
    wanted = take_next(list(waiting), running, now, patience_s)
    if now - wanted.request.arrived_s < share_s:
        return None
    admission = pick_yielding(
        [(seq.request.spec.scope, seq.admission) for seq in running], wanted.request.spec.scope
    )
    return next((seq for seq in running if seq.admission == admission), None)


def displaced_by(
    scope: str, waiting: Iterable[Sequence], n_open: Mapping[int, int]
) -> list[Sequence]:
    """The sequences of the request that gives its place in a full queue to one of `scope`.

    It is the newest request, among those that have produced nothing, of the API key with the most waiting
    requests. The list is empty if `scope` has its share already. `n_open` counts the answers of each request
    that have not ended."""
    requests: dict[int, list[Sequence]] = {}
    for seq in waiting:
        requests.setdefault(seq.request.request_id, []).append(seq)
    fresh = [
        seqs
        for number, seqs in requests.items()
        if len(seqs) == n_open[number] == seqs[0].request.spec.n_answers
        and all(seq.started_s is None for seq in seqs)
    ]
    longest = pick_displaced(Counter(seqs[0].request.spec.scope for seqs in fresh), scope)
    found = [seqs for seqs in fresh if seqs[0].request.spec.scope == longest]
    return max(found, key=lambda seqs: seqs[0].request.arrived_s, default=[])


def takeovers(
    waiting: Iterable[Sequence], running: Iterable[Sequence]
) -> list[tuple[Sequence, Sequence]]:
    """Waiting sequences, each with the running one that gives it its slot when all slots are taken: the
    highest priority first, then the first to arrive."""
    found: list[tuple[Sequence, Sequence]] = []
    left = list(running)
    ranks = [seq.request.rank for seq in left if not seq.is_protected]
    if not ranks:
        return found
    lowest = min(ranks)  # looked at in each step, and usually all are of one class
    able = [seq for seq in waiting if seq.request.rank > lowest]
    for seq in sorted(able, key=lambda seq: (-seq.request.spec.priority, seq.request.arrived_s)):
        if (victim := gives_way_to(seq, left)) is None:
            break
        left.remove(victim)
        found.append((seq, victim))
    return found


def gives_way_to(seq: Sequence, running: Iterable[Sequence]) -> Sequence | None:
    """The running sequence that is preempted for `seq`: of the lowest class, if that is lower than its own,
    the newest."""
    able = [
        other
        for other in running
        if other.request.rank < seq.request.rank and not other.is_protected
    ]
    return min(able, key=lambda other: (other.request.rank, -other.admission), default=None)
