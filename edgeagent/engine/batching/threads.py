"""Chooses how many threads the engine uses, step by step.

Threads spin while they wait for each other at barriers. Next to another busy process, two threads on two
cores can be several times slower than one. The cost of each thread count is therefore measured while
decoding: most steps use the best count, and a few steps now and then use another.

    2 threads alone 131-179 tokens/s, beside a busy process 50; 1 thread 110-126 and 129
    (190M Q4_0, 2 cores of a Zen 4 server)

The caller measures the times. Medians are compared, because anything can delay a single step; but a trial
that begins with a slow step ends with it, since readers notice each. While other programs use cores, delays
are the rule: means of more steps are compared then. As soon as others begin to use cores, as many threads are
used as cores are left, and all counts are tried.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

PROBE_EVERY = 256
PROBE_SELDOM = 4096
# The steps before the first trial after a change: what made it may have been a moment's work of another
# thread, such as requests that come as an answer begins.
PROBATION = 16
PROBE_STEPS = 3
WINDOW = 7
# How much faster another count must be to replace the current one.
MARGIN = 0.93
# After three steps in a row that are this much slower than usual and than expected, all other counts are
# tried, the largest first, with so many steps between two trials. After three first steps that are so much
# slower than expected, too, but not before PROBATION is over.
TROUBLE = 1.4
TROUBLE_STEPS = 3
STEPS_BETWEEN = 8
# What one thread takes is measured before. Where it takes so much longer, it is tried seldom only: eight
# readers waited 78 and not 42 ms (SmolLM2-135M, mixed types, 900 tokens each, 2 cores of a Zen 4).
HOPELESS = 1.5
# A trial ends when more than half of its steps took this much longer than the last ones before it.
LOST = 1.15
# The same beside other programs.
CONTENDED_FIRST_PROBE = 8
CONTENDED_PROBE_EVERY = 12
CONTENDED_PROBE_SELDOM = 256
CONTENDED_PROBE_STEPS = 12
# A trial whose first steps take this much longer on average is lost.
CONTENDED_LOST = 1.3
CONTENDED_WINDOW = 32
CONTENDED_MARGIN = 0.85
# And with a step that takes this much longer: threads that wait for each other next to another program can
# take ten times as long.
CONTENDED_HOPELESS = 12.0


@dataclass
class BatchSizeTimes:
    """Measured times of steps with one number of sequences."""

    best: int
    is_contended: bool = False
    times: dict[int, deque[float]] = field(default_factory=dict)  # by thread count, newest last
    usual_s: float | None = None
    interval: int = PROBE_EVERY
    n_steps: int = 0
    n_slow: int = 0
    n_probes: int = 0
    probe: int | None = None
    due: list[int] = field(default_factory=list)  # to be tried soon

    @property
    def probe_steps(self) -> int:
        return CONTENDED_PROBE_STEPS if self.is_contended else PROBE_STEPS

    def add(self, n_threads: int, took_s: float) -> None:
        window = CONTENDED_WINDOW if self.is_contended else WINDOW
        self.times.setdefault(n_threads, deque(maxlen=window)).append(took_s)

    def typical(self, n_threads: int) -> float | None:
        """The seconds of a step with this count; None until enough steps were measured."""
        times = self.times.get(n_threads, ())
        if len(times) < PROBE_STEPS:
            return None
        return statistics.fmean(times) if self.is_contended else statistics.median(times)

    @property
    def latest(self) -> float | None:
        """The seconds of a step with the count in use, by the last ones: contexts grow."""
        times = list(self.times.get(self.best, ()))[-PROBE_STEPS:]
        return statistics.median(times) if len(times) == PROBE_STEPS else None


@dataclass
class ThreadChoice:
    """Picks the thread count of decode steps. Engine thread only.

    `granted` is the most threads that the daemon allows. Each batch size has its own choice, because a
    step with eight sequences gains more from threads than a step with one. Other counts are tried for up to
    three steps now and then, less often while they lose, and at once when steps get slower. `first_probe` is
    the number of steps of a size before the first trial. `adapts` False: always all that are allowed.
    """

    granted: int
    first_probe: int = PROBE_EVERY
    adapts: bool = True
    _n_cores_taken: int = 0  # when others began to use cores
    _lanes: dict[int, BatchSizeTimes] = field(default_factory=dict)  # by number of sequences

    def limit(self, n_threads: int, n_cores_taken: int = 0) -> None:
        """Use at most this many threads from now on. What was measured is out of date when that changes, or
        when other programs begin or cease to use cores."""
        if (n_threads, n_cores_taken > 0) != (self.granted, self._n_cores_taken > 0):
            self.granted, self._n_cores_taken = n_threads, n_cores_taken
            self._lanes.clear()

    @property
    def first(self) -> int:
        """The count to begin with: a thread for each core that is left. One that shares its core with
        another program lets all others wait."""
        return max(1, self.granted - self._n_cores_taken)

    def counts(self) -> list[int]:
        """The counts to try: all threads, one less, half, one."""
        return sorted({self.granted, max(1, self.granted - 1), max(1, self.granted // 2), 1})

    def pick(
        self, n_seq: int, expected_s: Callable[[int], float | None] = lambda n_threads: None
    ) -> int:
        """The thread count of the next decode step with `n_seq` sequences. `expected_s` says how long it
        takes with one thread or with all, if that is known."""
        if self.granted == 1 or not self.adapts:
            return self.granted
        lane = self._lanes.setdefault(n_seq, self._new_lane())
        if lane.probe is not None:
            return lane.probe
        lane.n_steps += 1
        if lane.n_steps < lane.interval:
            return lane.best
        lane.n_steps = 0
        if lane.due:
            lane.probe = lane.due.pop(0)
        else:
            others = self._others(lane)
            lane.n_probes += 1
            probe = others[lane.n_probes % len(others)]
            if not lane.is_contended and lane.interval < PROBE_SELDOM and probe == 1:
                alone_s, usual_s = expected_s(1), expected_s(self.granted)
                if alone_s is not None and usual_s is not None and alone_s > HOPELESS * usual_s:
                    lane.interval = min(PROBE_SELDOM, 2 * lane.interval)
                    return lane.best
            lane.probe = probe
        lane.times.pop(lane.probe, None)  # old times say nothing about the present
        return lane.probe

    def _others(self, lane: BatchSizeTimes) -> list[int]:
        return [n for n in self.counts() if n != lane.best]

    def _new_lane(self) -> BatchSizeTimes:
        is_contended = self._n_cores_taken > 0
        interval = (
            min(self.first_probe, CONTENDED_FIRST_PROBE) if is_contended else self.first_probe
        )
        return BatchSizeTimes(self.first, is_contended, interval=interval)

    def usual(self, n_seq: int) -> int:
        """The best count for decode steps with `n_seq` sequences, for a step that is not measured."""
        lane = self._lanes.get(n_seq)
        return self.first if lane is None else lane.best

    def observe(
        self,
        n_seq: int,
        n_threads: int,
        took_s: float,
        expected_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Record how long a decode step took. `expected_s` says how long one like it takes with as many
        threads, if that is known: steps behind longer contexts take longer, and other counts do not help."""
        lane = self._lanes.get(n_seq)
        if lane is None:
            return
        lane.add(n_threads, took_s)
        if n_threads == lane.probe:
            is_over = len(lane.times[n_threads]) >= lane.probe_steps
            if is_over or _is_hopeless(lane, took_s) or _is_losing(lane):
                _judge(lane)
            return
        if n_threads != lane.best or lane.is_contended:
            return
        if lane.usual_s is None:
            first_s = lane.usual_s = lane.typical(n_threads)
            if first_s is not None and first_s > TROUBLE * (expected_s() or math.inf):
                self._try_others(lane, PROBATION)
        elif _is_in_trouble(lane, took_s, expected_s):
            self._try_others(lane, 0)

    def _try_others(self, lane: BatchSizeTimes, n_steps: int) -> None:
        """Try all other counts after so many steps."""
        lane.interval, lane.n_steps = PROBE_EVERY, PROBE_EVERY - n_steps
        lane.due = self._others(lane)[::-1]


def step_size(n_tokens: int) -> int:
    """The size under which steps with drafted tokens are measured: the next power of two."""
    return 1 << (n_tokens - 1).bit_length()


def _is_hopeless(lane: BatchSizeTimes, took_s: float) -> bool:
    """Whether steps are so slow that the trial can end."""
    if lane.is_contended:
        current = lane.typical(lane.best)
        return current is not None and took_s > CONTENDED_HOPELESS * current
    latest = lane.latest
    if latest is None or lane.probe is None:
        return False
    tried = lane.times[lane.probe]
    return 2 * sum(took > LOST * latest for took in tried) > len(tried)


def _is_losing(lane: BatchSizeTimes) -> bool:
    """Whether the first steps of a trial beside other programs are clearly slower."""
    if not lane.is_contended or lane.probe is None:
        return False
    probed, current = lane.typical(lane.probe), lane.typical(lane.best)
    return probed is not None and current is not None and probed > CONTENDED_LOST * current


def _judge(lane: BatchSizeTimes) -> None:
    """End a probe: keep the better of the two counts."""
    assert lane.probe is not None
    probed = lane.typical(lane.probe)
    current = lane.typical(lane.best) if lane.is_contended else lane.latest
    margin = CONTENDED_MARGIN if lane.is_contended else MARGIN
    if probed is not None and current is not None and probed < margin * current:
        lane.best = lane.probe
        lane.interval = CONTENDED_PROBE_EVERY if lane.is_contended else PROBATION
        lane.usual_s = probed
    else:
        seldom = CONTENDED_PROBE_SELDOM if lane.is_contended else PROBE_SELDOM
        is_clear = lane.is_contended and (probed is None or _is_losing(lane))
        if not lane.due:
            lane.interval = seldom if is_clear else min(seldom, 2 * lane.interval)
        lane.usual_s = current
    lane.probe = None
    if lane.due:
        lane.n_steps = lane.interval - STEPS_BETWEEN


def _is_in_trouble(
    lane: BatchSizeTimes, took_s: float, expected_s: Callable[[], float | None]
) -> bool:
    """Whether the count in use has become slow, now that a step has taken so long."""
    is_slow = took_s > TROUBLE * (lane.usual_s or 0.0) and took_s > TROUBLE * (expected_s() or 0.0)
    lane.n_slow = (lane.n_slow + 1) % TROUBLE_STEPS if is_slow else 0
    return is_slow and lane.n_slow == 0
