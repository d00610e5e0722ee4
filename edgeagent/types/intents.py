"""What an assistant model chooses among, how its calls are spelled, and how sure it was of one.

    {"name":"GetWeather","arguments":{ "city":" Rome "}}

An intent is one token of its model: the whole call, or all up to the slots. Slots and the end of a call
are tokens too; only values are ordinary text. The forge trains models that way (`forge.vocabulary`), the
engine reads the tokens back (`engine.intents.intent_scoring`).
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

NO_SLOTS, LAST_SLOT = "}}", '"}}'
# Every text that is a token of its own in such a vocabulary.
CALL_TEXT = re.compile(
    r'\{"name":"[^"]*","arguments":\{(\}\})?|"[^",:]+":"|","[^",:]+":"|"?\}\}', re.DOTALL
)


def intent_text(name: str, has_slots: bool) -> str:
    """The token of an intent: all of its call, or all up to its slots."""
    return f'{{"name":"{name}","arguments":{{' + ("" if has_slots else "}}")


def slot_text(name: str, *, is_first: bool) -> str:
    return f'"{name}":"' if is_first else f'","{name}":"'


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """A slot that a call may fill. A `required` one is filled in every call; a `nullable` one is null
    where the text says nothing of it."""

    name: str
    kind: Literal["optional", "required", "nullable"] = "optional"


class WholeCall(msgspec.Struct, frozen=True, array_like=True):
    """A call that needs no model: a tool's name, and its arguments as JSON."""

    name: str
    arguments: str


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """An intent on offer. `has_slots` says how the model knows it, `slots` which of them may be filled.

    With `call` that one is made where the intent is believed. One that `is_foil` shares in the
    probabilities, and where it is the most probable one none is believed.
    """

    name: str
    has_slots: bool = False
    slots: list[Slot] = []
    call: WholeCall | None = None
    is_foil: bool = False


class IntentQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One question to an assistant model: which of the `candidates` does `text` ask for?

    With `may_abstain` none is believed whose probability is below `threshold`; `otherwise` is what is
    said then. `reply` is said at once, `calls` are made at once, and nothing is chosen. With `tells` the
    client offered no tools and is told in words what the call would be. One that `is_decided` is this
    model's to answer, whatever larger ones there are. `domain` None is all domains.
    """

    text: str
    candidates: list[Candidate]
    out_of_scope: str
    threshold: float
    may_abstain: bool
    otherwise: str
    domain: str | None = None
    reply: str | None = None
    tells: bool = False
    calls: list[WholeCall] = []
    is_decided: bool = False


class Confidence(msgspec.Struct, frozen=True, array_like=True):
    """How sure an assistant model was. `intent` is the most probable one on offer, `probability` its share
    among all on offer, out-of-scope included, `margin` how much more that is than the next one's.
    `is_abstained`: it was not believed."""

    intent: str
    probability: float
    margin: float
    domain: str | None
    is_abstained: bool
