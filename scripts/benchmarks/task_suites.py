"""Four suites of tasks for `edgeagent evaluate --suite`, made of public data by a fixed seed.

    scripts/bench task-suites shared/data suites
    edgeagent evaluate MODEL... --suite suites/classification.jsonl --suite suites/questions.jsonl \
        --suite suites/generation.jsonl --suite suites/summarization.jsonl

classification: texts of Banking77, four topics each. questions: which city SNIPS's requests name. generation:
city and party size of such requests as an object of a schema. summarization: short dialogues of MTS-Dialog.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SEED = 1
TEXTS, DIALOGUES, TOPICS = 24, 8, 4
MOST_DIALOGUE = 700  # characters
Row = dict[str, Any]
GUESTS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "string"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def classification(data: Path, draws: random.Random) -> Iterable[Row]:
    rows = rows_of(data / "banking77/train.csv")
    topics = sorted({row["category"] for row in rows})
    for row in draws.sample(rows, TEXTS):
        choices = [
            row["category"],
            *draws.sample([t for t in topics if t != row["category"]], TOPICS - 1),
        ]
        draws.shuffle(choices)
        told = [choice.replace("_", " ") for choice in choices]
        answer = row["category"].replace("_", " ")
        prompt = f"Which topic does this message have: {', '.join(told)}?\n\n{row['text']}"
        yield {"kind": "choice", "prompt": prompt, "choices": told, "answer": answer}


def requests(data: Path, intent: str, slots: set[str], draws: random.Random) -> list[Row]:
    """Requests of SNIPS that have these slots, each once: the text and what its slots say."""
    known = json.loads((data / f"snips/train_{intent}.json").read_text(encoding="latin-1"))[intent]
    found = []
    for row in known:
        parts = row["data"]
        said = {part["entity"]: part["text"].strip() for part in parts if "entity" in part}
        if slots <= said.keys():
            found.append({"text": "".join(part["text"] for part in parts).strip(), **said})
    return draws.sample(found, TEXTS)


def questions(data: Path, draws: random.Random) -> Iterable[Row]:
    for row in requests(data, "GetWeather", {"city"}, draws):
        prompt = (
            f"{row['text']}\n\nWhich city is this about? Answer with the name of the city only."
        )
        yield {"kind": "exact", "prompt": prompt, "answers": [row["city"]], "max_tokens": 16}


def generation(data: Path, draws: random.Random) -> Iterable[Row]:
    for row in requests(data, "BookRestaurant", {"city", "party_size_number"}, draws):
        prompt = (
            f"Write the city and the number of people of this request as JSON.\n\n{row['text']}"
        )
        expected = {"city": row["city"], "people": row["party_size_number"]}
        yield {
            "kind": "schema",
            "prompt": prompt,
            "schema": GUESTS,
            "expected": expected,
            "max_tokens": 48,
        }


def summarization(data: Path, draws: random.Random) -> Iterable[Row]:
    rows = rows_of(data / "mts-dialog/MTS-Dialog-ValidationSet.csv")
    short = [row for row in rows if 200 < len(row["dialogue"]) < MOST_DIALOGUE]
    for row in draws.sample(short, DIALOGUES):
        prompt = f"Summarize this dialogue in a sentence or two.\n\n{row['dialogue']}"
        yield {
            "kind": "summary",
            "prompt": prompt,
            "reference": row["section_text"],
            "max_tokens": 80,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench task-suites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="directory with banking77, snips and mts-dialog")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for make in (classification, questions, generation, summarization):
        rows = list(make(given.data, random.Random(SEED)))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (given.out / f"{make.__name__}.jsonl").write_text(text, encoding="utf-8")
        print(f"{make.__name__}: {len(rows)} tasks")
