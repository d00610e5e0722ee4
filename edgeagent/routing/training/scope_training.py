"""Makes the scope gate of an assistant model (routing/scope_gate.py) from examples and from texts that the
model was not trained on.

1. `examples_of`: the vocabulary and the examples of each intent and of none, from the training texts
2. `signals_of`: the signals of other texts, with the model's answers to them
3. `fit_gate`: weights, and the score below which each share of right calls is, by folds that the weights
   have not seen
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import compress

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeagent.durable import replace_bytes
from edgeagent.errors import InvalidParameter
from edgeagent.routing.scope_gate import (
    DomainGates,
    Gate,
    ScopeFile,
    word_signals,
)
from edgeagent.routing.scope_texts import (
    Examples,
    VectorNearness,
    Vocabulary,
    WordNearness,
    centred,
    grams_of,
    words_of,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_TEXTS, MOST_OUTSIDE = 100, 250  # of an intent, of none
MOST_GRAMS = 65_535
N_PROTOTYPES, N_OUTSIDE = 8, 48  # groups of vectors
N_STEPS = 10
N_FOLDS = 5
N_DRAWS = 4
PENALTY = 3.0  # on standardized signals
LOST = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05)
MIN_INSIDE, MIN_OUTSIDE = 100, 20  # texts that a gate needs


class Answer(msgspec.Struct, frozen=True):
    """What an assistant model answered to a text: the intent, its probability and its lead; `wanted` is the
    right intent, None for a text out of scope. `vector`, float64 [n_dimensions], is that of a
    sentence-embedding model."""

    text: str
    wanted: str | None
    intent: str
    probability: float
    margin: float
    vector: Any = None


def examples_of(
    texts: Sequence[tuple[str, str]], vectors: Floats | None = None, outside: Sequence[str] = (),
    outside_vectors: Floats | None = None, seed: int = 0,
) -> ScopeFile:  # fmt: skip
    """A file without gates: the vocabulary of texts with their intents, the examples of each and those
    `outside`, the evenest `MOST_OUTSIDE`, and the middle of the `vectors` (float64 [n, n_dimensions], of unit
    length), which are grouped for each intent."""
    grams = [grams_of(words_of(text)) for text, _ in texts]
    step = max(1.0, len(outside) / MOST_OUTSIDE)
    others = [int(n * step) for n in range(min(len(outside), MOST_OUTSIDE))]
    strange = [grams_of(words_of(outside[n])) for n in others]
    n_with = Counter(gram for found in grams for gram in found)
    kept_anyway = {gram for found in strange for gram in found}
    most = n_with.most_common(MOST_GRAMS - len(kept_anyway))
    kept = sorted({gram for gram, _ in most} | kept_anyway)
    number = {gram: n for n, gram in enumerate(kept)}
    rarity = [math.log((len(texts) + 1) / (1 + n_with[gram])) for gram in kept]
    vocabulary = Vocabulary(
        array("I", kept).tobytes(), array("f", rarity).tobytes(), math.log(len(texts) + 1)
    )
    middle = vectors.mean(0) if vectors is not None else None
    found: dict[str, Examples] = {}
    rng = np.random.default_rng(seed)
    for intent in sorted({intent for _, intent in texts}):
        mine = [n for n, (_, one) in enumerate(texts) if one == intent]
        step = max(1.0, len(mine) / MOST_TEXTS)
        mine = [mine[int(n * step)] for n in range(min(len(mine), MOST_TEXTS))]
        own = None
        if vectors is not None and middle is not None:
            own = np.array([centred(vectors[n].tolist(), middle.tolist()) for n in mine])
        found[intent] = _examples(
            [grams[n] for n in mine], number, rarity, vocabulary.unknown, own, N_PROTOTYPES, rng
        )
    rest = None
    if strange:
        own = None
        if outside_vectors is not None and middle is not None:
            own = np.array([centred(outside_vectors[n].tolist(), middle.tolist()) for n in others])
        rest = _examples(strange, number, rarity, vocabulary.unknown, own, N_OUTSIDE, rng)
    packed = middle.astype(np.float32).tobytes() if middle is not None else b""
    return ScopeFile(vocabulary=vocabulary, intents=found, models={}, middle=packed, outside=rest)


def _examples(
    grams: Sequence[set[int]], number: Mapping[int, int], rarity: Sequence[float], unknown: float,
    vectors: Floats | None, n_groups: int, rng: np.random.Generator,
) -> Examples:  # fmt: skip
    lengths: list[float] = []
    with_gram: dict[int, list[int]] = {}
    total: dict[int, float] = {}
    for text, found in enumerate(grams):
        known = sorted(number[gram] for gram in found if gram in number)
        square = sum(rarity[n] ** 2 for n in known) + (len(found) - len(known)) * unknown**2
        length = math.sqrt(square) or 1.0
        lengths.append(length)
        for n in known:
            with_gram.setdefault(n, []).append(text)
            total[n] = total.get(n, 0.0) + rarity[n] / length
    numbers = sorted(with_gram)
    starts = [0]
    for n in numbers:
        starts.append(starts[-1] + len(with_gram[n]))
    texts = bytes(text for n in numbers for text in with_gram[n])
    whole = math.sqrt(sum(value * value for value in total.values()))
    prototypes, centre = ([], b"")
    if vectors is not None:
        prototypes, centre = _groups(vectors, n_groups, rng), _packed(_unit(vectors.mean(0)))
    return Examples(
        array("H", numbers).tobytes(), array("H", starts).tobytes(), texts,
        array("f", lengths).tobytes(), whole, centre, prototypes,
    )  # fmt: skip


def _groups(vectors: Floats, n: int, rng: np.random.Generator) -> list[bytes]:
    """Spherical k-means: the middle of each group."""
    n = min(n, len(vectors))
    middles = vectors[rng.choice(len(vectors), n, replace=False)]
    for _ in range(N_STEPS):
        group = (vectors @ middles.T).argmax(1)
        for number in range(n):
            if (group == number).any():
                middles[number] = _unit(vectors[group == number].mean(0))
    return [_packed(one) for one in middles]


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def _packed(vector: Floats) -> bytes:
    return np.clip(np.rint(vector * 127), -127, 127).astype(np.int8).tobytes()


def signals_of(answers: Sequence[Answer], file: ScopeFile) -> tuple[Floats, Floats | None]:
    """The signals by words, and by words and vectors: float64 [n, n_signals]."""
    words = WordNearness(file.vocabulary, file.intents, file.outside)
    vectors = VectorNearness(file.middle, file.intents, file.outside)
    by_words, by_vectors = [], []
    for one in answers:
        near = words.of(one.text, one.intent)
        if near is None:
            raise InvalidParameter(f"Intent {one.intent[:80]!r} has no example: add some.")
        by_words.append(word_signals(one.probability, one.margin, near))
        found = vectors.of(one.vector.tolist(), one.intent) if one.vector is not None else None
        if found is not None:
            by_vectors.append([*by_words[-1], *found])
    is_whole = len(by_vectors) == len(answers)
    return np.array(by_words), np.array(by_vectors) if is_whole and by_vectors else None


def counted(answers: Iterable[Answer]) -> list[Answer]:
    """Without what the model answers wrongly anyway, which counts neither as lost nor as found."""
    return [one for one in answers if one.wanted is None or one.wanted == one.intent]


def domain_gates(answers: Sequence[Answer], file: ScopeFile, seed: int = 0) -> DomainGates:
    """The gates of a domain, from texts that are none of the examples of the file. Raises: InvalidParameter
    for too few."""
    kept = counted(answers)
    is_outside = np.array([one.wanted is None for one in kept], bool)
    by_words, by_vectors = signals_of(kept, file)
    return gates_from(by_words, is_outside, by_vectors, seed)


def gates_from(
    by_words: Floats, is_outside: Bools, by_vectors: Floats | None = None, seed: int = 0
) -> DomainGates:
    """Raises: InvalidParameter for too few texts."""
    n_outside, n_inside = int(is_outside.sum()), int((~is_outside).sum())
    if n_inside < MIN_INSIDE or n_outside < MIN_OUTSIDE:
        raise InvalidParameter(
            f"{n_inside} right answers and {n_outside} texts out of scope are too few for a scope gate, "
            f"{MIN_INSIDE} and {MIN_OUTSIDE} are needed: add texts, those out of scope with the intent `oos`."
        )
    words, scores = fit_gate(by_words, is_outside, seed)
    vectors, doubt = None, (0.0, 0.0)
    if by_vectors is not None:
        vectors, _ = fit_gate(by_vectors, is_outside, seed)
        doubt = _doubt(scores, is_outside)
    return DomainGates(words, vectors, doubt, n_inside, n_outside)


def _doubt(scores: Floats, is_outside: Bools) -> tuple[float, float]:
    """Below the first score are only texts out of scope but one in a thousand in it; above the second the
    least one in a hundred of those out of scope."""
    inside, outside = scores[~is_outside], scores[is_outside]
    low, high = float(np.quantile(inside, 0.001)), float(np.quantile(outside, 0.99))
    return min(low, high), max(low, high)


def fit_gate(signals: Floats, is_outside: Bools, seed: int = 0) -> tuple[Gate, Floats]:
    """A gate, and the scores of the texts by fits that have not seen them."""
    unseen = np.zeros(len(signals))
    for draw in range(N_DRAWS):
        fold = _folds(is_outside, seed + draw)
        for number in range(N_FOLDS):
            seen = fold != number
            middle, scale, weights = _fit(signals[seen], is_outside[seen])
            rows = (signals[~seen] - middle) / scale
            unseen[~seen] += -(rows @ weights[:-1] + weights[-1]) / N_DRAWS
    middle, scale, weights = _fit(signals, is_outside)
    inside = np.sort(unseen[~is_outside])
    cuts = [float(inside[min(len(inside) - 1, int(lost * len(inside)))]) for lost in LOST]
    gate = Gate(
        middle.tolist(),
        scale.tolist(),
        (-weights[:-1]).tolist(),
        -float(weights[-1]),
        list(LOST),
        cuts,
    )
    return gate, unseen


def _folds(is_outside: Bools, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(is_outside), np.int64)
    for kind in (True, False):
        mine = rng.permutation(np.flatnonzero(is_outside == kind))
        fold[mine] = np.arange(len(mine)) % N_FOLDS
    return fold


def _fit(signals: Floats, is_outside: Bools) -> tuple[Floats, Floats, Floats]:
    """Means, scales, and weights of a logistic regression, the constant last; by Newton's method."""
    middle, scale = signals.mean(0), np.maximum(signals.std(0), 1e-9)
    rows = np.c_[(signals - middle) / scale, np.ones(len(signals))]
    penalty = PENALTY * np.eye(rows.shape[1])
    penalty[-1, -1] = 1e-6
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        gradient = rows.T @ (p - is_outside) + penalty @ weights
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + penalty
        weights -= np.linalg.solve(curvature, gradient)
    return middle, scale, weights


def outcome(
    gates: DomainGates, answers: Sequence[Answer], file: ScopeFile, max_lost: float
) -> tuple[float, float]:
    """The share of the right answers that are handed on, and that of the texts out of scope."""
    kept = counted(answers)
    is_outside = np.array([one.wanted is None for one in kept], bool)
    by_words, by_vectors = signals_of(kept, file)
    gate, signals = gates.words, by_words
    if gates.vectors is not None and by_vectors is not None:
        gate, signals = gates.vectors, by_vectors
    below = np.array([gate.score(row.tolist()) for row in signals]) < gate.cut(max_lost)
    return float(below[~is_outside].mean()), float(below[is_outside].mean())


def write_scope(file: ScopeFile, path: Path) -> None:
    """Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, compress(msgspec.msgpack.encode(file), 9))
