"""Answers that are sentences of passages, word for word: nothing is generated, so nothing is invented. Pure.

A sentence is taken by the nearness of its vector to the question's, where there are vectors, and by the share
of the question's words that it has; words that few of the sentences have count more. What precedes it in its
section (headings) counts for less. A sentence that begins with a pronoun belongs to the one before it.

Where a judge has read the best of them beside the question, its word counts more than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import NamedTuple

from edgeagent.knowledge.sentences import sentences
from edgeagent.knowledge.words import content_words, coverage

N_PASSAGES = 3  # whose sentences are looked at
N_CANDIDATES = 32  # sentences, of all of them
MAX_CHARS = 600  # of an answer
# Of a sentence's score: its vector, and the words it shares with the question.
SIMILARITY_WEIGHT = 0.6
EVIDENCE_SIMILARITY = 0.7  # of a sentence's evidence
PASSAGE_STEP = 0.03  # what each further passage is worth less
NEAR = 0.85  # a second sentence with this part of the best score belongs to the answer
LEAST_WORDS = 2  # content words of a sentence that can answer
# With a judge, which reads so many sentences of so many passages (`scripts/bench near-questions`).
N_JUDGED = 6
N_JUDGED_PASSAGES = 2
SCORE_WEIGHT = 0.5  # of a sentence's own score, beside the judge's word
SECOND = 0.6  # the next sentence belongs to the answer with this part of what the best is worth
# Lines of at least this length were broken by the editor of a text, not by its author.
WRAPPED_CHARS = 60
_NEW_ITEM = re.compile(r"\s*(?:[-*•|#>]|\d{1,3}[.)]\s)")
_CONTINUES = re.compile(
    r"(?:it|its|they|their|them|he|his|she|her|this|that|these|those|there|then|both|after that)\b",
    re.IGNORECASE,
)
_TABLE_RULE = re.compile(r"[|\s:–-]+")


class Candidate(NamedTuple):
    """A sentence: the number of its passage, and its place among that passage's sentences."""

    passage: int
    place: int
    text: str


class Quote(NamedTuple):
    """An answer of sentences, in the order in which they are told. `score`: how much the best of them tells,
    0..1, by its vector and its words, or by a judge's word on it and its passage."""

    parts: tuple[Candidate, ...]
    score: float

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.parts)


def candidates(passages: Sequence[str]) -> list[Candidate]:
    """The sentences that may answer, of the first passages; headings and rules of tables are left out."""
    found = []
    for number, passage in enumerate(passages[:N_PASSAGES]):
        for place, text in enumerate(sentences(unwrapped(passage))):
            is_rule = _TABLE_RULE.fullmatch(text) is not None
            if not is_rule and len(content_words(text)) >= LEAST_WORDS:
                found.append(Candidate(number, place, text))
    return found[:N_CANDIDATES]


def scored(
    question: str,
    found: Sequence[Candidate],
    headings: Sequence[str],
    similarity: Mapping[str, float],
) -> dict[Candidate, float]:
    """What each sentence tells, up to 1. `headings` of each passage; `similarity` of sentences to the
    question, where it is known."""
    weights = _weights(content_words(question), found)

    def score(one: Candidate) -> float:
        own = content_words(one.text)
        covered = _share(weights, own)
        covered = max(covered, 0.8 * _share(weights, own | content_words(headings[one.passage])))
        near = similarity.get(one.text)
        told = covered if near is None else (
            SIMILARITY_WEIGHT * max(0.0, near) + (1 - SIMILARITY_WEIGHT) * covered
        )  # fmt: skip
        return told - PASSAGE_STEP * one.passage

    return {one: score(one) for one in found}


def quoted(scores: Mapping[Candidate, float]) -> Quote:
    """The answer: the best sentence, and its neighbour where that tells nearly as much. Empty without
    candidates."""
    if not scores:
        return Quote((), 0.0)
    best = max(scores, key=lambda one: scores[one])
    chosen = [best]
    for one in scores:
        place = one.place - best.place
        if one.passage != best.passage or abs(place) != 1:
            continue
        is_one_with = _CONTINUES.match(one.text if place == 1 else best.text) is not None
        if is_one_with or scores[one] >= NEAR * scores[best]:
            chosen.append(one)
    return Quote(_bounded(chosen, best), scores[best])


def to_judge(scores: Mapping[Candidate, float]) -> list[Candidate]:
    """The sentences that a judge is asked about, the best first. Of those that two passages have, one: chunks
    overlap."""
    own = [one for one in scores if one.passage < N_JUDGED_PASSAGES]
    by_text: dict[str, Candidate] = {}
    for one in sorted(own, key=lambda one: -scores[one]):
        by_text.setdefault(one.text, one)
    return list(by_text.values())[:N_JUDGED]


def judged_quote(
    scores: Mapping[Candidate, float],
    sentences_judged: Mapping[Candidate, float],
    passages_judged: Sequence[float],
) -> Quote:
    """The answer by what a judge says of sentences and of their passages, each 0..1: the best sentence, and
    the next one where it is worth nearly as much; before one that speaks of "it", what that is. `scores`: of
    all sentences of these passages."""
    worth = {
        one: told * passages_judged[one.passage] + SCORE_WEIGHT * max(0.0, scores[one])
        for one, told in sentences_judged.items()
    }
    if not worth:
        return Quote((), 0.0)
    best, *rest = sorted(worth, key=lambda one: -worth[one])
    chosen = [best]
    if (before := _one_with(best, scores)) is not None:
        chosen.append(before)
    elif rest and worth[rest[0]] >= SECOND * worth[best]:
        second = rest[0]
        before = _one_with(second, scores)
        if before is None or before == best:
            chosen.append(second)
    score = (passages_judged[best.passage] + sentences_judged[best]) / 2
    return Quote(_bounded(chosen, best), score)


def _one_with(one: Candidate, found: Iterable[Candidate]) -> Candidate | None:
    """The sentence before one that speaks of it by a pronoun."""
    if _CONTINUES.match(one.text) is None:
        return None
    place = one.passage, one.place - 1
    return next((other for other in found if other[:2] == place), None)


def _bounded(chosen: Sequence[Candidate], best: Candidate) -> tuple[Candidate, ...]:
    """Sentences in the order of their passages; the best alone where they are too long."""
    if sum(len(one.text) + 1 for one in chosen) - 1 <= MAX_CHARS:
        return tuple(sorted(chosen))
    return (best._replace(text=best.text[:MAX_CHARS]),)


def sentence_evidence(
    question: str, found: Sequence[Candidate], similarity: Mapping[str, float]
) -> float:
    """What the sentence that tells most tells about the question, 0..1; 0 without vectors."""
    wanted = content_words(question)
    return max(
        (
            EVIDENCE_SIMILARITY * max(0.0, similarity[one.text])
            + (1 - EVIDENCE_SIMILARITY) * coverage(wanted, one.text)
            for one in found
            if one.text in similarity
        ),
        default=0.0,
    )


def unwrapped(text: str) -> str:
    """A text whose paragraphs are one line each, where an editor has broken them into lines."""
    lines: list[str] = []
    n_before = 0  # characters of the line before, as it was written
    for line in text.split("\n"):
        begins = not line.strip() or _NEW_ITEM.match(line) is not None
        if (
            lines
            and n_before >= WRAPPED_CHARS
            and not begins
            and not lines[-1].startswith(("#", "|"))
        ):
            lines[-1] = f"{lines[-1].rstrip()} {line.lstrip()}"
        else:
            lines.append(line)
        n_before = len(line)
    return "\n".join(lines)


def _weights(wanted: set[str], found: Sequence[Candidate]) -> dict[str, float]:
    """What each word of the question is worth: more, where few sentences have it."""
    held = [content_words(one.text) for one in found]
    return {
        word: log(1 + (len(found) + 1) / (1 + sum(word in one for one in held))) for word in wanted
    }


def _share(weights: Mapping[str, float], words: set[str]) -> float:
    total = sum(weights.values())
    return (
        sum(weight for word, weight in weights.items() if word in words) / total if total else 0.0
    )
