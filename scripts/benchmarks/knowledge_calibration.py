"""`scripts/bench knowledge-calibration`: weights and thresholds of knowledge bases, chosen on one half of the
questions and reported on the other.

Questions and documents are those of `scripts/bench knowledge`: the entries of two FAQs without their titles,
which are the questions. Each question is asked of the documents of its FAQ (answerable), of the same without
the entry that answers it (missing: near the subject, though others may tell something), and of the documents
of the other FAQ (foreign). `--lists` keeps what was found, so that only the arithmetic is done again.

    fusion       recall@5 by the weight of the rank in the list of words beside the similarity of vectors
    evidence     shares declined of each kind, by the weight of the similarity and the least evidence
    verbatim     how near other wordings of a stored question come to it, and the nearest other question
"""

from __future__ import annotations

import argparse
import base64
import json
import random
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from edgeagent.knowledge.fusion import WORDS_WEIGHT, fused
from edgeagent.knowledge.words import content_words, coverage
from edgeagent.serving.knowledge.file_search import VERBATIM_COVERAGE
from edgeagent.serving.knowledge.retrieval import SIMILARITY_WEIGHT
from scripts.benchmarks import machine
from scripts.benchmarks.knowledge import Client, Entry, entries, note, unpacked
from scripts.benchmarks.served import serving

METHODS = ("words", "vectors")
CORPORA = ("python", "debian")
N_HITS = 50
SEED = 1
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 100.0)
SIMILARITY_WEIGHTS = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
DECLINED = 0.9


class Hit(NamedTuple):
    """A passage in a ranked list: document, text, cosine of the vectors (0: unknown), covered words."""

    file_id: str
    text: str
    similarity: float
    covered: float


class Case(NamedTuple):
    """A question with its lists: `own` from its FAQ, `other` from the other one."""

    question: str
    file_id: str
    own: dict[str, list[Hit]]
    other: dict[str, list[Hit]]


class Found(NamedTuple):
    cases: list[Case]
    wordings: list[tuple[str, str]]  # stored question, another wording
    vectors: dict[str, list[float]]  # of all questions and wordings


def found(args: argparse.Namespace) -> Found:
    """All lists and vectors, from a daemon."""
    if args.lists is not None and args.lists.exists():
        kept = json.loads(args.lists.read_text())
    else:
        kept = _asked(args)
        if args.lists is not None:
            args.lists.write_text(json.dumps(kept))
    cases = [
        Case(q, file_id, *({m: [Hit(*h) for h in hits] for m, hits in lists.items()} for lists in both))
        for q, file_id, *both in kept["cases"]
    ]  # fmt: skip
    random.Random(SEED).shuffle(cases)
    return Found(cases, [(a, b) for a, b in kept["wordings"]], kept["vectors"])


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    asked = entries(unpacked(args.cache))
    with serving(args.models_dir, preload=False, n_threads=args.threads) as daemon:
        client = Client(daemon.url)
        for n, entry in enumerate(asked):
            entry.file_id = client.upload(f"{entry.corpus}-{n}.txt", entry.text.encode())
        stores = {
            corpus: client.store(corpus, [e.file_id for e in asked if e.corpus == corpus])[0]
            for corpus in CORPORA
        }
        note("indexed")
        cases = []
        for entry in asked:
            other = next(c for c in CORPORA if c != entry.corpus)
            lists = [_lists(client, stores[c], entry) for c in (entry.corpus, other)]
            cases.append([entry.question, entry.file_id, *lists])
        wordings = [(entry.question, one) for entry in asked for one in _wordings(entry.question)]
        texts = sorted({entry.question for entry in asked} | {one for _, one in wordings})
        return {"cases": cases, "wordings": wordings, "vectors": _vectors(client, texts)}


def _lists(client: Client, store: str, entry: Entry) -> dict[str, list[Any]]:
    """The lists of both methods; the cosine is found from the evidence that the search tells."""
    wanted = content_words(entry.question)
    lists: dict[str, list[Any]] = {}
    known: dict[str, float] = {}
    for method in reversed(METHODS):
        rows = client.search(
            store, entry.question, search_method=method, max_num_results=N_HITS,
            ranking_options={"ranker": "none"},
        )  # fmt: skip
        lists[method] = []
        for row in rows:
            text = row["content"][0]["text"]
            covered = coverage(wanted, text)
            told = (row["score"] - (1 - SIMILARITY_WEIGHT) * covered) / SIMILARITY_WEIGHT
            similarity = known.setdefault(text, told if method == "vectors" else 0.0)
            lists[method].append([row["file_id"], text, similarity, covered])
    return lists


def _wordings(question: str) -> list[str]:
    """Other wordings by rule: its content words only, with words of politeness, with a letter left out."""
    words = [w for w in question.split() if content_words(w)]
    longest = max(question.split(), key=len)
    return [
        " ".join(words),
        f"Hello, please tell me: {question}",
        question.replace(longest, longest[:2] + longest[3:], 1),
    ]


def _vectors(client: Client, texts: Sequence[str]) -> dict[str, list[float]]:
    vectors: dict[str, list[float]] = {}
    for at in range(0, len(texts), 64):
        body = {
            "model": "all-minilm-l6-v2",
            "input": texts[at : at + 64],
            "encoding_format": "base64",
        }
        rows = client.post("/v1/embeddings", body)["data"]
        for text, row in zip(texts[at : at + 64], rows, strict=True):
            vectors[text] = array("f", base64.b64decode(row["embedding"])).tolist()
    return vectors


# ---- fusion


def recall(cases: Sequence[Case], weight: float) -> float:
    """The share of questions whose entry is among the first five documents found."""
    n_found = 0
    for case in cases:
        similarity = {(h.file_id, h.text): h.similarity for h in case.own["vectors"]}
        by_words = [(h.file_id, h.text) for h in case.own["words"]]
        order = fused(by_words, similarity, words_weight=weight)
        n_found += case.file_id in list(dict.fromkeys(one[0] for one in order))[:5]
    return n_found / len(cases)


# ---- evidence


def strongest(lists: dict[str, list[Hit]], weight: float, without: str | None = None) -> float:
    """The evidence of the best passage."""
    hits = [h for h in lists["vectors"] if h.file_id != without]
    return max((weight * h.similarity + (1 - weight) * h.covered for h in hits), default=0.0)


def evidences(cases: Sequence[Case], weight: float) -> dict[str, list[float]]:
    return {
        "answerable": [strongest(case.own, weight) for case in cases],
        "missing": [strongest(case.own, weight, case.file_id) for case in cases],
        "foreign": [strongest(case.other, weight) for case in cases],
    }


def threshold(values: Sequence[float], share: float) -> float:
    """The least evidence that declines this share of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


def declined(values: Sequence[float], least: float) -> float:
    return sum(value < least for value in values) / len(values)


# ---- verbatim


def verbatim(told: Found) -> list[tuple[float, float, float]]:
    """By the least similarity: the share of other wordings that get the stored answer, and of questions that
    would get the answer of another one."""
    questions = sorted({case.question for case in told.cases})
    nearest = []
    for question in questions:
        others = (_near(told, question, other) for other in questions if other != question)
        nearest.append(max(others))
    same = [_near(told, stored, wording) for stored, wording in told.wordings]
    rows = []
    for least in (0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.95):
        right = sum(near >= least for near in same) / len(same)
        rows.append((least, right, sum(near >= least for near in nearest) / len(nearest)))
    return rows


def _near(told: Found, a: str, b: str) -> float:
    """The similarity of two questions; 0 where they share too few words."""
    words, others = content_words(a), content_words(b)
    if len(words & others) < VERBATIM_COVERAGE * max(1, len(words | others)):
        return 0.0
    return sum(x * y for x, y in zip(told.vectors[a], told.vectors[b], strict=True))


def report(console: Console, told: Found) -> None:
    half = len(told.cases) // 2
    chosen, held_out = told.cases[:half], told.cases[half:]
    table = Table("weight of words", "recall@5, half to choose by", "other half")
    for weight in WEIGHTS:
        mark = " (in use)" if weight == WORDS_WEIGHT else ""
        table.add_row(
            f"{weight:g}{mark}", f"{recall(chosen, weight):.1%}", f"{recall(held_out, weight):.1%}"
        )
    console.print(table)
    table = Table(
        "similarity's weight", "least evidence", "declined of other half: answerable", "missing", "foreign"
    )  # fmt: skip
    for weight in SIMILARITY_WEIGHTS:
        mark = " (in use)" if weight == SIMILARITY_WEIGHT else ""
        least = threshold(evidences(chosen, weight)["foreign"], DECLINED)
        shares = {kind: declined(v, least) for kind, v in evidences(held_out, weight).items()}
        table.add_row(
            f"{weight:g}{mark}", f"{least:.3f}", *(f"{one:.1%}" for one in shares.values())
        )
    console.print(table)
    all_of = evidences(told.cases, SIMILARITY_WEIGHT)
    table = Table("least evidence", *(f"declined of {kind}" for kind in all_of))
    for least in (0.3, 0.35, 0.4, 0.42, 0.44, 0.46, 0.5, 0.55, 0.6, 0.7):
        table.add_row(f"{least}", *(f"{declined(v, least):.1%}" for v in all_of.values()))
    console.print(table)
    table = Table("verbatim_similarity", "other wordings answered", "questions with a wrong answer")
    for row in verbatim(told):
        table.add_row(f"{row[0]}", f"{row[1]:.1%}", f"{row[2]:.1%}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench knowledge-calibration", description=__doc__
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/knowledge"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lists", type=Path, help="file that keeps what was found")
    args = parser.parse_args()
    console = Console()
    console.print(machine.describe())
    report(console, found(args))


if __name__ == "__main__":
    main()
