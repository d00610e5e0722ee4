"""Reads JSON lines, one object each:

    {"text": "book a table for two", "intent": "book", "slots": {"party_size": "two"}}
    {"intent": "book", "answer": "Done.", "description": "Book a table", "parameters": {...}}
    {"text": "book for two", "intent": "book", "spans": [["party_size", 9, 12]]}
    {"text": "what is love", "intent": "oos"}

Slots may also be marked in the text; `spans` have name, start and end of each, in characters. An object
without a text describes its intent: a fixed `answer`, and `description` and `parameters` as in a tool.

Text and intent may have other usual names (`column_names`), and an intent may be a number. Other fields are
not read, which is said, except those that look like a misspelled one: these are refused.
"""

from __future__ import annotations

import difflib
import itertools
import json
from pathlib import Path
from typing import Any

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import Slot
from edgeagent.forge.domain.example import Domain, Note, Place, slot_name
from edgeagent.forge.domain.readers.column_names import ANSWER, INTENT, TEXT, column_name
from edgeagent.forge.domain.readers.inline_slots import unmarked
from edgeagent.forge.domain.readers.text_lines import MAX_BYTES, read_text

_KNOWN = ("text", "intent", "slots", "spans", "answer", "description", "parameters", "examples")


def read_jsonl(path: Path, max_bytes: int = MAX_BYTES) -> Domain:
    """Raises: ForgeFailed."""
    domain = Domain()
    # Not `splitlines`: U+2028 and its like end no line of JSON.
    for number, line in enumerate(read_text(path, domain.notes, max_bytes).split("\n"), start=1):
        if not line.strip():
            continue
        place = Place(path, number)
        try:
            body = json.loads(line, parse_constant=_no_number)
            json.dumps(body, ensure_ascii=False).encode()  # no half of a surrogate pair
        except (ValueError, RecursionError) as exc:
            raise ForgeFailed(
                f"{place}: not JSON ({str(exc)[:100]}): write one object per line."
            ) from exc
        _add(domain, body, place)
    return domain


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _add(domain: Domain, body: Any, place: Place) -> None:
    if not isinstance(body, dict):
        raise ForgeFailed(
            f'{place}: the line is not an object: write {{"text": ..., "intent": ...}}.'
        )
    body = _named(domain, body, place)
    intent = body.get("intent")
    if isinstance(intent, int) and not isinstance(intent, bool):
        intent = str(intent)
    if not isinstance(intent, str):
        raise ForgeFailed(f"{place}: 'intent' is missing: add the name of the intent.")
    name = domain.intent(intent, place)
    texts = body.get("examples", [])
    if not isinstance(texts, list):
        raise ForgeFailed(f"{place}: 'examples' is not a list: write a list of texts.")
    for text in [*([body["text"]] if "text" in body else []), *texts]:
        if not isinstance(text, str):
            raise ForgeFailed(f"{place}: a text is not a string: write it in quotes.")
        if "spans" in body:
            domain.add(text, name, place, _spans(body["spans"], text, place))
            continue
        plain, marked = unmarked(text, place)
        slots = _slots(body.get("slots"), plain, place) if "text" in body else []
        domain.add(plain, name, place, marked or slots)
    _describe(domain, name, body, place)


def _named(domain: Domain, body: dict[str, Any], place: Place) -> dict[str, Any]:
    """The fields that are read, by their own names. Raises: ForgeFailed for a misspelled one."""
    found = {key: body[key] for key in _KNOWN if body.get(key) is not None}
    others = {column_name(key): key for key in reversed(body) if key not in _KNOWN}
    for key, names in (("text", TEXT), ("intent", INTENT), ("answer", ANSWER)):
        if key not in found and (other := next((others[n] for n in names if n in others), None)):
            found[key] = body[other]
            others = {name: one for name, one in others.items() if one != other}
    for other in sorted(others.values()):
        near = difflib.get_close_matches(other, _KNOWN, 1, 0.8)
        if near:
            raise ForgeFailed(
                f"{place}: {other[:80]!r} is not known: {near[0]!r} is meant? Correct it."
            )
        said = f"the field {other[:80]!r} is not read."
        if all(note.text != said for note in domain.notes):
            domain.notes.append(Note(place, said))
    return found


def _spans(spans: Any, text: str, place: Place) -> list[Slot]:
    found, at = [], 0
    for span in spans if isinstance(spans, list) else [None]:
        match span:
            case [str(name), int(start), int(end)] if at <= start < end <= len(text):
                found.append(Slot(slot_name(name, place), text[start:end], start, end))
                at = end
            case _:
                raise ForgeFailed(
                    f"{place}: 'spans' is not a list of [name, start, end] in the order of the text: "
                    "correct it."
                )
    return found


def _slots(values: Any, text: str, place: Place) -> list[Slot]:
    if not values:
        return []
    if isinstance(values, dict):
        values = {k: str(v) if type(v) in (int, float) else v for k, v in values.items()}
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise ForgeFailed(
            f'{place}: \'slots\' is not an object of texts: write {{"NAME": "VALUE"}}.'
        )
    found = []
    for name, value in values.items():
        start = text.lower().find(value.lower())
        if start < 0 or not value.strip():
            raise ForgeFailed(
                f"{place}: the slot {name[:64]!r} is {value[:80]!r}, which is not in the text: values are "
                "copied from the text; write it as it stands there."
            )
        end = start + len(value)
        found.append(Slot(slot_name(name, place), text[start:end], start, end))
    found.sort(key=lambda slot: slot.start)
    for one, other in itertools.pairwise(found):
        if other.start < one.end:
            raise ForgeFailed(
                f"{place}: the slots {one.name!r} and {other.name!r} overlap: mark them in the text."
            )
    return found


def _describe(domain: Domain, intent: str, body: dict[str, Any], place: Place) -> None:
    for key, kind, said in (
        ("answer", str, "a text"), ("description", str, "a text"), ("parameters", dict, "an object"),
    ):  # fmt: skip
        if key in body and not isinstance(body[key], kind):
            raise ForgeFailed(f"{place}: {key!r} is not {said}: correct it.")
    if body.get("answer", "").strip():
        domain.answers[intent] = body["answer"].strip()
    told = {key: body[key] for key in ("description", "parameters") if key in body}
    if told:
        domain.tools[intent] = domain.tools.get(intent, {}) | told
