"""Prompt-answer pairs that an adapter learns from: reads, checks and splits them."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeagent.errors import ForgeFailed

MAX_BYTES = 64 << 20
MAX_PAIRS = 100_000
MAX_CHARS = 20_000  # of a prompt, and of an answer
LEAST_PAIRS = 8
HELD_SHARE = 0.1
LEAST_HELD, MOST_HELD = 2, 200
_HEADS = (("prompt", "answer"), ("question", "answer"), ("prompt", "completion"))


class Pair(NamedTuple):
    """What somebody says, and what the model is to answer. `line` of its file."""

    prompt: str
    answer: str
    line: int = 0


class Split(NamedTuple):
    """Pairs to learn from, and those that only measure."""

    train: list[Pair]
    held: list[Pair]


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON line. Other fields are refused, so that a misspelled one is not learnt as an empty answer."""

    answer: str = ""
    prompt: str = ""
    question: str = ""
    completion: str = ""


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a CSV or JSON lines file, each prompt once. Raises: ForgeFailed, with file and line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ForgeFailed(f"{path} has more than {MAX_BYTES >> 20} MiB: divide it.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise ForgeFailed(f"{path} cannot be read ({exc.strerror}): check the path.") from exc
    except UnicodeDecodeError as exc:
        raise ForgeFailed(f"{path} is not UTF-8 (byte {exc.start}): convert it.") from exc
    found = _of_csv(path, text) if path.suffix.lower() in (".csv", ".tsv") else _of_json(path, text)
    return _checked(path, found)


def split(pairs: Sequence[Pair], seed: int) -> Split:
    """A tenth, at least 2 and at most 200, is held out. The same pairs and seed give the same split."""
    order = list(pairs)
    random.Random(seed).shuffle(order)
    n = min(MOST_HELD, max(LEAST_HELD, round(HELD_SHARE * len(order))))
    return Split(order[n:], order[:n])


def digest_of(pairs: Sequence[Pair]) -> str:
    """The same for the same pairs in the same order."""
    told = msgspec.json.encode([(pair.prompt, pair.answer) for pair in pairs])
    return hashlib.sha256(told).hexdigest()


def _of_csv(path: Path, text: str) -> list[Pair]:
    tab = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=tab, strict=True)
    try:
        head = [name.strip().lower() for name in next(reader, [])]
        columns = next((names for names in _HEADS if set(names) <= set(head)), None)
        if columns is None:
            raise ForgeFailed(
                f"{path}:1: no columns `prompt` and `answer` are named: name them in the first line."
            )
        places = [head.index(name) for name in columns]
        found = []
        for row in reader:
            if any(field.strip() for field in row):
                if len(row) <= max(places):
                    raise ForgeFailed(f"{path}:{reader.line_num}: the row has no answer: add it.")
                found.append(Pair(row[places[0]], row[places[1]], reader.line_num))
    except csv.Error as exc:
        raise ForgeFailed(f"{path}:{reader.line_num}: no CSV ({exc}): correct the line.") from exc
    return found


def _of_json(path: Path, text: str) -> list[Pair]:
    decode = msgspec.json.Decoder(_Row).decode
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise ForgeFailed(
                f'{path}:{number}: no {{"prompt": ..., "answer": ...}} ({exc}): correct the line.'
            ) from exc
        found.append(Pair(row.prompt or row.question, row.answer or row.completion, number))
    return found


def _checked(path: Path, pairs: list[Pair]) -> list[Pair]:
    kept: dict[str, Pair] = {}
    for pair in pairs:
        for what, said in (("prompt", pair.prompt), ("answer", pair.answer)):
            if not said.strip():
                raise ForgeFailed(f"{path}:{pair.line}: the {what} is empty: write one.")
            if len(said) > MAX_CHARS:
                raise ForgeFailed(
                    f"{path}:{pair.line}: the {what} has {len(said)} characters, at most {MAX_CHARS} are "
                    "learnt: shorten it."
                )
        clean = Pair(pair.prompt.strip(), pair.answer.strip(), pair.line)
        before = kept.get(clean.prompt)
        if before is not None and before.answer != clean.answer:
            raise ForgeFailed(
                f"{path}:{clean.line}: the prompt of line {before.line} has another answer here: keep one."
            )
        kept.setdefault(clean.prompt, clean)
    if not LEAST_PAIRS <= len(kept) <= MAX_PAIRS:
        raise ForgeFailed(
            f"{path} has {len(kept)} different prompts, {LEAST_PAIRS} to {MAX_PAIRS} can be learnt from: "
            "change their number."
        )
    return list(kept.values())
