"""How many of its threads the engine uses, step by step.

Threads wait for each other at barriers, spinning. Beside another busy process two threads on two
cores can be several times slower than one. So what each thread count costs now is measured while
decoding: mostly with the best one, now and then with another.

    2 threads alone 131-179 tokens/s, beside a busy process 50; 1 thread 110-126 and 129
    (190M Q4_0, 2 cores of a Zen 4 server)

Pure bookkeeping: the caller brings the times.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROBE_EVERY = 24
PROBE_SELDOM = 1536
WEIGHT = 0.3
# How much better another count must look before it is taken: two counts that are alike stay put.
MARGIN = 0.95
# A probe this much slower says that others need not be tried so soon again; a step this much slower
# than usual says that something has changed.
CLEARLY = 1.15
TROUBLE = 1.4


@dataclass
class ThreadChoice:
    """Picks the thread count of decode steps. Engine thread only.

    `granted` is what the daemon allows. Times are kept by batch size, since a step with eight
    sequences gains more from threads than one with one. Other counts are tried every 24 steps at
    first, ever more seldom while they lose clearly, and soon again when steps get slower.
    """

    granted: int
    _times: dict[tuple[int, int], float] = field(default_factory=dict)  # (n_seq, n_threads) -> s
    _best: dict[int, int] = field(default_factory=dict)  # n_seq -> n_threads
    _interval: int = PROBE_EVERY
    _since_probe: int = 0
    _n_slow: int = 0
    _n_probes: int = 0

    def grant(self, n_threads: int) -> None:
        """Another number is allowed from now on; what was learnt of it stays."""
        if n_threads != self.granted:
            self.granted = n_threads
            self._best.clear()

    def counts(self) -> list[int]:
        """The counts worth trying: all, one less, half, one."""
        return sorted({self.granted, max(1, self.granted - 1), max(1, self.granted // 2), 1})

    def pick(self, n_seq: int) -> int:
        """The thread count of the next decode step with `n_seq` sequences."""
        best = self._best.get(n_seq, self.granted)
        self._since_probe += 1
        if self._since_probe >= self._interval:
            self._since_probe = 0
            others = [n for n in self.counts() if n != best]
            if others:
                self._n_probes += 1
                return others[self._n_probes % len(others)]
        return best

    def observe(self, n_seq: int, n_threads: int, took_s: float) -> None:
        """What a decode step took."""
        key = (n_seq, n_threads)
        best = self._best.get(n_seq, self.granted)
        usual = self._times.get((n_seq, best))
        if usual is not None:
            self._pace_probes(took_s / usual, is_probe=n_threads != best)
        old = self._times.get(key)
        # Bounded, so that one step that something else delayed does not decide.
        self._times[key] = took_s if old is None else old + WEIGHT * (min(took_s, 2 * old) - old)
        self._best[n_seq] = self._fastest(n_seq, best)
        if self._best[n_seq] != best:
            self._interval = PROBE_EVERY

    def _pace_probes(self, ratio: float, *, is_probe: bool) -> None:
        if is_probe:
            lost = ratio > CLEARLY
            self._interval = min(PROBE_SELDOM, 2 * self._interval) if lost else PROBE_EVERY
            return
        # One slow step is noise, three in a row are somebody else on our cores.
        self._n_slow = self._n_slow + 1 if ratio > TROUBLE else 0
        if self._n_slow == 3:
            self._n_slow = 0
            self._interval = PROBE_EVERY
            self._since_probe = PROBE_EVERY

    def _fastest(self, n_seq: int, best: int) -> int:
        current = self._times.get((n_seq, best))
        for n in self.counts():
            time = self._times.get((n_seq, n))
            if current is not None and time is not None and time < MARGIN * current:
                best, current = n, time
        return best
