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
WEIGHT = 0.3
# How much better another count must look before it is taken: two counts that are alike stay put.
MARGIN = 0.95


@dataclass
class ThreadChoice:
    """Picks the thread count of decode steps. Engine thread only.

    `granted` is what the daemon allows. Times are kept by batch size, since a step with eight
    sequences gains more from threads than one with one.
    """

    granted: int
    _times: dict[tuple[int, int], float] = field(default_factory=dict)  # (n_seq, n_threads) -> s
    _best: dict[int, int] = field(default_factory=dict)  # n_seq -> n_threads
    _n_steps: int = 0
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
        self._n_steps += 1
        if self._n_steps % PROBE_EVERY == 0:
            others = [n for n in self.counts() if n != best]
            if others:
                self._n_probes += 1
                return others[self._n_probes % len(others)]
        return best

    def observe(self, n_seq: int, n_threads: int, took_s: float) -> None:
        """What a decode step took."""
        key = (n_seq, n_threads)
        old = self._times.get(key)
        self._times[key] = took_s if old is None else old + WEIGHT * (took_s - old)
        best = self._best.get(n_seq, self.granted)
        current = self._times.get((n_seq, best))
        if current is None:
            return
        for n in self.counts():
            time = self._times.get((n_seq, n))
            if time is not None and time < MARGIN * current:
                best, current = n, time
        self._best[n_seq] = best
