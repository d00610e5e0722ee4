"""What of a turn's text is final while the turn goes on: words that two hearings in a row agree on. Pure.

Text that was given out is never taken back: each hearing is aligned with it, and only what follows is new.

Source: local agreement, Liu et al. 2020 (arXiv:2005.11185); for Whisper, Machacek et al. 2023
(arXiv:2307.14743).
"""

from __future__ import annotations

import re

# Languages without spaces between words are compared character by character.
_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"\s*(?:[{_SPACELESS}]|[^\s{_SPACELESS}]+)")
_PUNCTUATION = re.compile(r"[^\w']+|_")


def units_of(text: str) -> list[str]:
    """The words of a text, each with the space before it."""
    return _UNIT.findall(text)


def plain(unit: str) -> str:
    """A word as it is compared: without case, space and punctuation."""
    return _PUNCTUATION.sub("", unit).casefold()


class Agreement:
    """The words of one turn. `told` holds those that are final."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._before: list[str] = []  # what the hearing before had behind `told`

    def add(self, text: str) -> str:
        """The words that have become final with this hearing of the turn so far."""
        rest = self._rest(text)
        n = 0
        for one, other in zip(rest, self._before, strict=False):
            if plain(one) != plain(other):
                break
            n += 1
        self.told += rest[:n]
        self._before = rest[n:]
        return "".join(rest[:n])

    def finish(self, text: str) -> str:
        """The words that remain of the turn, by the hearing of all of it."""
        rest = self._rest(text)
        self.told += rest
        self._before = []
        return "".join(rest)

    @property
    def text(self) -> str:
        return "".join(self.told)

    def _rest(self, text: str) -> list[str]:
        return units_of(text)[n_covered(self.text, text) :]


def n_covered(told: str, heard: str) -> int:
    """How many words of `heard` say what `told` says.

    The part of `heard` from its beginning that differs from `told` in the fewest words; of several,
    one that ends as `told` does, then the one of the most similar length.
    """
    before = [plain(unit) for unit in units_of(told)]
    words = [plain(unit) for unit in units_of(heard)]
    if not before:
        return 0
    costs = list(range(len(words) + 1))
    for i, word in enumerate(before, start=1):
        row = [i]
        for j, other in enumerate(words, start=1):
            row.append(min(costs[j - 1] + (word != other), costs[j] + 1, row[j - 1] + 1))
        costs = row
    return min(
        range(len(words) + 1),
        key=lambda j: (costs[j], not j or words[j - 1] != before[-1], abs(j - len(before))),
    )
