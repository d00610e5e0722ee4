"""A learned score: what the larger model is worth on a text, and how sure the small one is right.

The daemon reads the file and adds up weights of the columns of a text; numpy is only used to train it
(routing/training/).
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeagent.durable import open_regular
from edgeagent.errors import SettingsError
from edgeagent.routing.text_features import (
    N_COLUMNS,
    N_WORDS,
    SHAPE_NAMES,
    TextFeatures,
    features,
)

VERSION = 1
MAX_BYTES = 16 << 20


class Steps(msgspec.Struct, frozen=True):
    """A step function: where steps begin, and their heights."""

    scores: list[float]
    chances: list[float]

    def at(self, score: float) -> float:
        return self.chances[max(0, bisect_right(self.scores, score) - 1)]

    @property
    def is_sound(self) -> bool:
        return 0 < len(self.scores) == len(self.chances)


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """What training writes. `rarity` are float32 factors of the columns; a text is a vector of length 1 after
    them. `benefit` and `right` are float32 weights of the columns, then of the shape.

    `known` is a set of bits for words of the training texts; a text of which less than `min_known` of the
    words are in it is out of distribution. `scores` and `chances` are a step function from the score of
    `right` to the probability that the small model is right; `domains` has others for requests of a domain.
    """

    version: int = VERSION
    small: str
    large: str
    n_examples: int
    rarity: bytes
    benefit: bytes
    right: bytes
    benefit_bias: float
    right_bias: float
    shape_mean: list[float]
    shape_scale: list[float]
    known: bytes
    min_known: float
    scores: list[float]
    chances: list[float]
    threshold: float
    revision: int = 1
    domains: dict[str, Steps] = {}


@dataclass(frozen=True)
class Score:
    """`benefit` orders texts by what the larger model is worth (training/trainer.py).

    `p_small`: probability that the small one is right, by the score `right`; `share_known` of the words were
    in the training data.
    """

    benefit: float
    p_small: float
    right: float
    share_known: float
    is_known: bool


class ScorePolicy:
    """A policy that is ready to score texts. Any thread may use it."""

    def __init__(self, file: PolicyFile) -> None:
        self.file = file
        self._rarity, self._benefit, self._right = array("f"), array("f"), array("f")
        self._rarity.frombytes(file.rarity)
        self._benefit.frombytes(file.benefit)
        self._right.frombytes(file.right)

    def score(self, text: str, domain: str | None = None) -> Score:
        """Takes less than a millisecond for a usual text, and a few for the longest window."""
        return self.score_features(features(text), domain)

    def score_features(self, found: TextFeatures, domain: str | None = None) -> Score:
        """The same from the features of a text, as the decision log keeps them: to the last bit, in whatever
        order they come."""
        file, benefit_of, right_of = self.file, self._benefit, self._right
        weighted = [
            (column, value * self._rarity[column]) for column, value in found.columns.items()
        ]
        length = math.sqrt(math.fsum(value * value for _, value in weighted)) or 1.0
        benefit = math.fsum(value * benefit_of[column] for column, value in weighted) / length
        right = math.fsum(value * right_of[column] for column, value in weighted) / length
        benefit, right = benefit + file.benefit_bias, right + file.right_bias
        for n, value in enumerate(found.shape, N_COLUMNS):
            scaled = (value - file.shape_mean[n - N_COLUMNS]) / file.shape_scale[n - N_COLUMNS]
            benefit += scaled * benefit_of[n]
            right += scaled * right_of[n]
        share = known_share(found.words, file.known)
        steps = file.domains.get(domain) if domain is not None else None
        chance = (steps or Steps(file.scores, file.chances)).at(right)
        return Score(benefit, chance, right, share, share >= file.min_known)


def known_share(words: Set[int], known: bytes) -> float:
    """How many of the different tokens of a text are in a set of bits; 0 for a text without any."""
    n_known = sum(known[word >> 3] >> (word & 7) & 1 for word in words)
    return n_known / len(words) if words else 0.0


def read_policy(path: Path) -> ScorePolicy:
    """Raises: SettingsError for a file that is none or does not fit this version."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            data = file.read()
    except OSError as exc:
        raise SettingsError(
            f"The routing policy {path} cannot be read: {exc.strerror}. `edgeagent route train` makes one."
        ) from exc
    try:
        found = msgspec.msgpack.decode(data, type=PolicyFile)
        why = _fault(found)
    except (msgspec.DecodeError, RecursionError) as exc:
        why = str(exc)
    if why is not None:
        raise SettingsError(
            f"The routing policy {path} cannot be used: {why}. Make a new one with `edgeagent route train`."
        )
    return ScorePolicy(found)


def _fault(file: PolicyFile) -> str | None:
    """What keeps a file from being used; None where nothing does."""
    n_bytes = 4 * (N_COLUMNS + len(SHAPE_NAMES))
    if file.version != VERSION:
        return f"it has version {file.version}, this edgeagent reads {VERSION}"
    fits = len(file.benefit) == len(file.right) == n_bytes and len(file.rarity) == 4 * N_COLUMNS
    fits = fits and len(file.known) == N_WORDS // 8
    fits = fits and len(file.shape_mean) == len(file.shape_scale) == len(SHAPE_NAMES)
    fits = fits and all(file.shape_scale)
    whole = Steps(file.scores, file.chances)
    fits = fits and all(steps.is_sound for steps in (whole, *file.domains.values()))
    return None if fits else "its parts do not fit together"
