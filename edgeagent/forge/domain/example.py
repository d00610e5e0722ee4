"""The examples of a domain: texts by intent, each with the place that it was read from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import OUT_OF_SCOPE, Slot

MAX_TEXT = 500  # characters of one text
MAX_EXAMPLES = 50_000
MAX_INTENTS = 500
MAX_SLOTS = 100  # names of slots
# Other names that files use for texts without an intent.
_OUTSIDE = frozenset(
    {OUT_OF_SCOPE, "out_of_scope", "out-of-scope", "outofscope", "nlu_fallback", "none"}
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SEPARATORS = re.compile(r"[\s./]+")
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")
_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss",
                          "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "ł": "l", "Ł": "L"})  # fmt: skip


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file, counted from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Example:
    """A text and its intent (`OUT_OF_SCOPE` for none); `slots` in the order of the text."""

    text: str
    intent: str
    place: Place
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class Note:
    """What a reader decided by itself, such as the encoding of a file."""

    place: Place
    text: str


@dataclass
class Domain:
    """What was read. `answers`: a fixed text for an intent. `tools`: the schema of an intent's arguments,
    and its description as "description". `notes` are shown to whoever brought the examples; `written` is how
    the intents are written there."""

    examples: list[Example] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)

    @property
    def intents(self) -> tuple[str, ...]:
        """The names of intents, sorted, without out-of-scope."""
        return tuple(sorted({e.intent for e in self.examples} - {OUT_OF_SCOPE}))

    @property
    def inside(self) -> list[Example]:
        return [e for e in self.examples if e.intent != OUT_OF_SCOPE]

    @property
    def outside(self) -> list[Example]:
        return [e for e in self.examples if e.intent == OUT_OF_SCOPE]

    @property
    def slot_names(self) -> dict[str, tuple[str, ...]]:
        """The slots of each intent that has any, sorted."""
        found: dict[str, set[str]] = {}
        for example in self.examples:
            for slot in example.slots:
                found.setdefault(example.intent, set()).add(slot.name)
        return {intent: tuple(sorted(names)) for intent, names in sorted(found.items())}

    def without_slots(self) -> Domain:
        """The same texts, with no slots to fill."""
        examples = [replace(example, slots=()) for example in self.examples]
        return Domain(examples, self.answers, self.tools)

    def add(self, text: str, intent: str, place: Place, slots: Iterable[Slot] = ()) -> None:
        """Add an example. An empty text is left out, and a long one is cut, with a note.

        Raises: ForgeFailed with the place, for a name that cannot be one, or too many examples.
        """
        left = len(text) - len(text.lstrip())
        text = text.strip()
        name = self.intent(intent, place)
        if not text:
            self.notes.append(Note(place, "the text is empty: the line is left out."))
            return
        moved = tuple(Slot(s.name, s.value, s.start - left, s.end - left) for s in slots)
        if len(text) > MAX_TEXT:
            said = f"the text has {len(text)} characters, and {MAX_TEXT} are read: shorten or split it."
            self.notes.append(Note(place, said))
            text = text[:MAX_TEXT].rstrip()
            moved = tuple(slot for slot in moved if slot.end <= len(text))
        if len(self.examples) >= MAX_EXAMPLES:
            raise _too_many(place)
        if name == OUT_OF_SCOPE:
            moved = ()
        self.examples.append(Example(text, name, place, moved))

    def intent(self, text: str, place: Place) -> str:
        """The name of an intent that is written so. Raises: ForgeFailed for two that would have the same."""
        name, written = intent_name(text, place), _SEPARATORS.sub("_", text.strip())
        if name == OUT_OF_SCOPE:
            return name
        if name not in self.written and name != written:
            said = f"the intent {text.strip()[:80]!r} is named {name!r}: names are letters, digits, '_', '-'."
            self.notes.append(Note(place, said))
        self._claim(name, written, place)
        return name

    def _claim(self, name: str, written: str, place: Place) -> None:
        other = self.written.setdefault(name, written)
        if other != written:
            raise ForgeFailed(
                f"{place}: the intents {other[:80]!r} and {written[:80]!r} would both be named {name!r}: "
                "rename one, or write both alike."
            )

    def merge(self, other: Domain) -> None:
        """Raises: ForgeFailed for too many examples together."""
        if len(self.examples) + len(other.examples) > MAX_EXAMPLES:
            raise _too_many(other.examples[-1].place)
        for name, written in other.written.items():
            place = next((e.place for e in other.examples if e.intent == name), None)
            self._claim(name, written, place or Place(Path(), 0))
        self.notes += other.notes
        self.examples += other.examples
        self.answers |= other.answers
        self.tools |= other.tools


def _too_many(place: Place) -> ForgeFailed:
    return ForgeFailed(
        f"{place}: there are more than {MAX_EXAMPLES} examples: leave some out; a few hundred of each intent "
        "are enough."
    )


def intent_name(text: str, place: Place) -> str:
    """The name of an intent: that of a tool. Latin letters lose their marks, and what is no letter or digit
    becomes an underscore.

    Raises: ForgeFailed for a name without any that is left, or one that is too long.
    """
    name = _SEPARATORS.sub("_", text.strip())
    if name.lower() in _OUTSIDE:
        return OUT_OF_SCOPE
    if not _NAME.fullmatch(name):
        plain = unicodedata.normalize("NFKD", name.translate(_LETTERS))
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        name = (
            "" if any(c.isalnum() and not c.isascii() for c in plain) else _OTHERS.sub("_", plain)
        )
        name = name.strip("_-")
    if not _NAME.fullmatch(name):
        raise ForgeFailed(
            f"{place}: {text[:80]!r} is not the name of an intent: use letters from a to z, digits, '_' and "
            "'-', at most 64, beginning with a letter or digit."
        )
    return name


def slot_name(text: str, place: Place) -> str:
    """Raises: ForgeFailed for a name that cannot be one of a tool's arguments."""
    name = text.strip()
    if not _NAME.fullmatch(name):
        raise ForgeFailed(
            f"{place}: {text[:80]!r} is not the name of a slot: use letters, digits, '_' and '-', at most 64."
        )
    return name
