"""Questions beside the passages that a search finds for them, out of texts by hand.

    answered     the passage has the words that answer
    removed      the same passage, without what has these words
    other        a passage of the organisation that is found, too, and has not these words
    missing      what is found for a question that nothing answers
    foreign      a passage of another organisation that shares words with the question

A passage is a chunk, as knowledge bases cut documents; some are cut to a few of their sentences.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, NamedTuple

from edgeagent.knowledge.document import Chunk, ChunkSizes, ParserLimits, below
from edgeagent.knowledge.fusion import fused
from edgeagent.knowledge.parsing import parse
from edgeagent.knowledge.sentences import sentences
from edgeagent.knowledge.words import content_words
from edgeagent.serving.knowledge.judge import N_JUDGED
from scripts.judge.texts import Document, Organisation

N_FOUND = 6  # passages of a question that are kept
NEAREST = 0.6  # share of the pairs that are not answered with the passage that is found first
REMOVED = 0.5  # share of the answered ones with the same passage beside it, without the answer
SHORTENED = 0.45  # share of the passages that are cut to a few sentences
FOREIGN = 0.19  # pairs of questions with passages of others, for each question
N_OTHERS = 150  # passages that the nearest one is picked from
LIMITS = ParserLimits()


class Pair(NamedTuple):
    """`words`: what answers, in the passage."""

    kind: str
    question: str
    passage: str
    words: str | None

    @property
    def is_answered(self) -> bool:
        return self.words is not None


@dataclass
class Asked:
    """A question with the passages that are found, the best first, and how near each is."""

    organisation: str
    question: str
    words: str | None
    passages: list[Chunk]
    similarity: list[float]
    answering: list[Chunk] = field(default_factory=list)


Vectors = Callable[[Sequence[str]], Any]


def content(chunk: Chunk) -> str:
    return below(chunk.headings, chunk.text)


def chunks(document: Document) -> list[Chunk]:
    return parse(f"{document.title}.md", document.markdown.encode(), ChunkSizes(), LIMITS)


def asked(of: Organisation, vectors: Vectors) -> list[Asked]:
    """All questions of an organisation, searched for in all of its documents. `vectors`: unit vectors of
    texts, as rows."""
    own = [(document, chunks(document)) for document in of.documents]
    base = [chunk for _, held in own for chunk in held]
    places = vectors([content(chunk) for chunk in base])
    stems = [content_words(content(chunk)) for chunk in base]
    questions = [(one, held) for document, held in own for one in document.questions]
    near = vectors([one.text for one, _ in questions]) @ places.T
    found = []
    for (one, held), row in zip(questions, near.tolist(), strict=True):
        order = fused(by_words(content_words(one.text), stems), dict(enumerate(row)))[:N_FOUND]
        answering = [c for c in held if one.words is not None and holds(c.text, one.words)]
        found.append(
            Asked(of.name, one.text, one.words, [base[n] for n in order], [row[n] for n in order], answering)
        )  # fmt: skip
    return found


def holds(text: str, words: str) -> bool:
    return plain(words) in plain(text)


def plain(text: str) -> str:
    return " ".join(text.replace("*", "").replace("`", "").split())


def by_words(wanted: set[str], stems: Sequence[set[str]]) -> list[int]:
    """The texts that have wanted words, those with most of the rare ones first."""
    weights = {
        word: log(1 + len(stems) / (1 + sum(word in own for own in stems))) for word in wanted
    }
    scores = [sum(weights[word] for word in wanted & own) for own in stems]
    return sorted((n for n, score in enumerate(scores) if score), key=lambda n: -scores[n])


def pairs(questions: Sequence[Asked], seed: int) -> list[Pair]:
    """Pairs of one pass over the questions; another seed makes others."""
    rng = random.Random(seed)
    return [pair for one in questions for pair in _pairs(one, rng)]


def _pairs(one: Asked, rng: random.Random) -> Iterator[Pair]:
    others = [chunk for chunk in one.passages if chunk not in one.answering]
    if not others:
        return
    near = others[0] if rng.random() < NEAREST else rng.choice(others[:N_JUDGED])
    if one.words is None:
        yield Pair("missing", one.question, shortened(near, None, rng), None)
        return
    for chunk in one.answering[:1]:
        yield Pair("answered", one.question, shortened(chunk, one.words, rng), one.words)
        rest = without(chunk, one.words) if rng.random() < REMOVED else None
        if rest is not None:
            yield Pair("removed", one.question, rest, None)
            return
    yield Pair("other", one.question, shortened(near, None, rng), None)


def foreign_pairs(questions: Sequence[Asked], seed: int) -> list[Pair]:
    """Questions with passages of other organisations, of one pass over the questions."""
    rng = random.Random(seed)
    passages = [(one.organisation, content(one.passages[0])) for one in questions if one.passages]
    some = rng.sample(passages, min(20 * N_OTHERS, len(passages)))
    held = [(name, text, content_words(text)) for name, text in some]
    found = []
    for one in rng.sample(list(questions), round(FOREIGN * len(questions))):
        wanted = content_words(one.question)
        others = [
            (len(wanted & words), text)
            for name, text, words in rng.sample(held, min(N_OTHERS, len(held)))
            if name != one.organisation
        ]
        if others:
            found.append(Pair("foreign", one.question, max(others)[1], None))
    return found


def parts(text: str) -> list[str]:
    """The lines of a text, and the sentences of long ones."""
    return [part for line in text.split("\n") for part in (sentences(line) or [line])]


def joined(headings: str, kept: Sequence[str]) -> str:
    """Parts with their headings; rows and items stay lines."""
    text = ""
    for part in kept:
        is_line = part.lstrip().startswith(("|", "-", "*", "#")) or " | " in part
        text += f"{chr(10) if is_line else ' '}{part}" if text else part
    return below(headings, text)


def shortened(chunk: Chunk, words: str | None, rng: random.Random) -> str:
    """The passage, or a few sentences in a row of it, among them those with the words."""
    all_parts = parts(chunk.text)
    if rng.random() > SHORTENED or len(all_parts) < 3:
        return content(chunk)
    n = rng.randint(1, min(4, len(all_parts) - 1))
    places = range(len(all_parts) - n + 1)
    if words is not None:
        places_with = [at for at in places if holds(" ".join(all_parts[at : at + n]), words)]
        if not places_with:
            return content(chunk)
        at = rng.choice(places_with)
    else:
        at = rng.choice(places)
    return joined(chunk.headings, all_parts[at : at + n])


def without(chunk: Chunk, words: str) -> str | None:
    """The passage without the sentence or line that has the words; None: nothing else is told."""
    kept = [part for part in parts(chunk.text) if not holds(part, words)]
    text = joined(chunk.headings, kept)
    if not "".join(kept).strip() or len(kept) == len(parts(chunk.text)) or holds(text, words):
        return None
    return text
