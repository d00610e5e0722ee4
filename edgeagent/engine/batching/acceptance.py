"""How often drafted tokens are what an answer goes on with, by how much of the text before them matched."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

# Matches of 2, of 3 and 4, of 5 to 8, and of more tokens.
BOUNDS = (3, 5, 9)
# First guesses of each answer; what happens replaces them soon. A draft that fails costs more than one that
# is not tried, so they are no higher where other answers have copied.
GUESSES = (0.3, 0.5, 0.7, 0.85)
# The newest trials count most: those of an answer fade after about 1 / (1 - FADING) of them.
FADING = 0.95
# Tokens that are less likely than this are not drafted on any device.
LEAST = 0.05
# What the first guess counts as.
PRIOR_TRIALS = 2.0


def kind_of(n_matched: int) -> int:
    """Which of the kinds of matches one of this length is."""
    return bisect_right(BOUNDS, n_matched)


@dataclass
class Acceptance:
    """The trials of one answer, or of all, by the kind of the match. Engine thread only.

    A trial is one drafted token: whether it was the next token of the answer. Tokens that were not computed
    because it seemed not worth it are tried too, when the next token is drawn without them.
    """

    fading: float = FADING
    _hits: list[float] = field(default_factory=lambda: [0.0] * len(GUESSES))
    _trials: list[float] = field(default_factory=lambda: [0.0] * len(GUESSES))

    def add(self, n_matched: int, *, is_hit: bool) -> None:
        kind = kind_of(n_matched)
        self._hits[kind] = self.fading * self._hits[kind] + is_hit
        self._trials[kind] = self.fading * self._trials[kind] + 1

    def rates(self, prior: tuple[float, ...] = GUESSES) -> tuple[float, ...]:
        """The rate of each kind, beginning at `prior`."""
        return tuple(
            (hits + PRIOR_TRIALS * rate) / (trials + PRIOR_TRIALS)
            for hits, trials, rate in zip(self._hits, self._trials, prior, strict=True)
        )


def chances(rates: tuple[float, ...], n_matched: int, n: int) -> list[float]:
    """How likely each of `n` drafted tokens is taken, which needs those before it, as far as that is worth
    a thought. Every token that is taken makes the match longer."""
    found, chance = [], 1.0
    for i in range(n):
        chance *= rates[kind_of(n_matched + i)]
        if chance < LEAST:
            break
        found.append(chance)
    return found
