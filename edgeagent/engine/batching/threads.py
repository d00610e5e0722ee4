"""Chooses how many threads the engine uses, step by step.

Threads spin while they wait for each other at barriers. Next to another busy process, two threads on two
cores can be several times slower than one. The cost of each thread count is therefore measured while
decoding: most steps use the best count, and a few steps now and then use another.

    2 threads alone 131-179 tokens/s, beside a busy process 50; 1 thread 110-126 and 129
    (190M Q4_0, 2 cores of a Zen 4 server)

The caller measures the times. Medians are compared, because anything can delay a single step.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

PROBE_EVERY = 256
PROBE_SELDOM = 4096
PROBE_STEPS = 3
WINDOW = 7
# How much faster another count must be to replace the current one.
MARGIN = 0.93
# After three steps in a row that are this much slower than usual, other counts are tried at once.
TROUBLE = 1.4
TROUBLE_STEPS = 3
# A trial ends with a step that takes this much longer than usual: threads that wait for each other next to
# another program can take ten times as long.
HOPELESS = 4.0


@dataclass
class BatchSizeTimes:
    """Measured times of steps with one number of sequences."""

    best: int
    times: dict[int, deque[float]] = field(default_factory=dict)  # by thread count, newest last
    usual_s: float | None = None
    interval: int = PROBE_EVERY
    n_steps: int = 0
    n_slow: int = 0
    n_probes: int = 0
    probe: int | None = None

    def median(self, n_threads: int) -> float | None:
        times = self.times.get(n_threads, ())
        return statistics.median(times) if len(times) >= PROBE_STEPS else None


@dataclass
class ThreadChoice:
    """Picks the thread count of decode steps. Engine thread only.

    `granted` is the most threads that the daemon allows. Each batch size has its own choice, because a
    step with eight sequences gains more from threads than a step with one. Other counts are tried for three
    steps now and then, less often while they lose, and at once when steps get slower. `first_probe` is the
    number of steps of a size before the first trial.
    """

    granted: int
    first_probe: int = PROBE_EVERY
    _lanes: dict[int, BatchSizeTimes] = field(default_factory=dict)  # by number of sequences

    def grant(self, n_threads: int) -> None:
        """Use at most this many threads from now on."""
        if n_threads != self.granted:
            self.granted = n_threads
            self._lanes.clear()

    def counts(self) -> list[int]:
        """The counts to try: all threads, one less, half, one."""
        return sorted({self.granted, max(1, self.granted - 1), max(1, self.granted // 2), 1})

    def pick(self, n_seq: int) -> int:
        """The thread count of the next decode step with `n_seq` sequences."""
        if self.granted == 1:
            return 1
        lane = self._lanes.setdefault(
            n_seq, BatchSizeTimes(self.granted, interval=self.first_probe)
        )
        if lane.probe is not None:
            return lane.probe
        lane.n_steps += 1
        if lane.n_steps < lane.interval:
            return lane.best
        lane.n_steps = 0
        others = [n for n in self.counts() if n != lane.best]
        lane.n_probes += 1
        lane.probe = others[lane.n_probes % len(others)]
        lane.times.pop(lane.probe, None)  # old times say nothing about the present
        return lane.probe

    def usual(self, n_seq: int) -> int:
        """The best count for decode steps with `n_seq` sequences, for a step that is not measured."""
        lane = self._lanes.get(n_seq)
        return self.granted if lane is None else lane.best

    def observe(self, n_seq: int, n_threads: int, took_s: float) -> None:
        """Record how long a decode step took."""
        lane = self._lanes.get(n_seq)
        if lane is None:
            return
        lane.times.setdefault(n_threads, deque(maxlen=WINDOW)).append(took_s)
        if n_threads == lane.probe:
            if len(lane.times[n_threads]) >= PROBE_STEPS or _is_hopeless(lane, took_s):
                _judge(lane)
        elif n_threads == lane.best:
            _watch(lane, took_s)


def _is_hopeless(lane: BatchSizeTimes, took_s: float) -> bool:
    """Whether one step is so slow that the trial can end."""
    current = lane.median(lane.best)
    return current is not None and took_s > HOPELESS * current


def _judge(lane: BatchSizeTimes) -> None:
    """End a probe: keep the better of the two counts."""
    assert lane.probe is not None
    probed, current = lane.median(lane.probe), lane.median(lane.best)
    if probed is not None and current is not None and probed < MARGIN * current:
        lane.best = lane.probe
        lane.interval = PROBE_EVERY
        lane.usual_s = probed
    else:
        lane.interval = min(PROBE_SELDOM, 2 * lane.interval)
        lane.usual_s = current
    lane.probe = None


def _watch(lane: BatchSizeTimes, took_s: float) -> None:
    """Start a trial at once when the count in use has become slow."""
    if lane.usual_s is None:
        lane.usual_s = lane.median(lane.best)
        return
    lane.n_slow = lane.n_slow + 1 if took_s > TROUBLE * lane.usual_s else 0
    if lane.n_slow == TROUBLE_STEPS:
        lane.n_slow = 0
        lane.n_steps = lane.interval = PROBE_EVERY
