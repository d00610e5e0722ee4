"""The question to an assistant model, its confidence, and how its calls are tokenized.

    {"name":"GetWeather","arguments":{ "city":" Rome "}}

An intent is one token of the model: the whole call, or the call up to its slots. Slots and the end of a
call are tokens, too; only values are ordinary text. The forge trains models in this way
(`forge.tokenizer`), and the engine reads the tokens (`engine.intents.intent_scoring`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

NO_SLOTS, LAST_SLOT = "}}", '"}}'
# Every text that is one token in such a vocabulary.
CALL_TEXT = re.compile(
    r'\{"name":"[^"]*","arguments":\{(\}\})?|"[^",:]+":"|","[^",:]+":"|"?\}\}', re.DOTALL
)


def intent_text(name: str, has_slots: bool) -> str:
    """The token of an intent: the whole call, or the call up to its slots."""
    return f'{{"name":"{name}","arguments":{{' + ("" if has_slots else "}}")


def slot_text(name: str, *, is_first: bool) -> str:
    return f'"{name}":"' if is_first else f'","{name}":"'


def call_texts(intents: Iterable[str], slot_names: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Every token that is part of a call, intents first, in order."""
    slots = sorted({name for names in slot_names.values() for name in names})
    return [
        *(intent_text(name, name in slot_names) for name in intents),
        *(slot_text(name, is_first=True) for name in slots),
        *(slot_text(name, is_first=False) for name in slots),
        NO_SLOTS,
        LAST_SLOT,
    ]


class Slot(msgspec.Struct, frozen=True, array_like=True):
    """A slot that a call may fill. A `required` slot is filled in every call; a `nullable` slot is null
    if the text does not mention it."""

    name: str
    kind: Literal["optional", "required", "nullable"] = "optional"


class WholeCall(msgspec.Struct, frozen=True, array_like=True):
    """A complete call without a model: the name of a tool and its arguments as JSON."""

    name: str
    arguments: str


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """An intent that may be chosen. `has_slots` tells how the model was trained, `slots` which ones may
    be filled.

    `call` is made instead of the intent's own call. `answer` is what a client without tools is told in
    place of the call in words. An intent that `is_foil` takes part in the probabilities;
    if it is the most probable one, no intent is chosen.
    """

    name: str
    has_slots: bool = False
    slots: list[Slot] = []
    call: WholeCall | None = None
    is_foil: bool = False
    answer: str = ""


class IntentQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One question to an assistant model: which of the `candidates` does `text` ask for?

    With `may_abstain` an intent with a probability below `threshold` is not chosen, and the answer is
    `otherwise`. With a `reply` or `calls` nothing is chosen: the answer is that text or those calls. With
    `tells` the client offered no tools and gets a description of the call. A question that `is_decided`
    is not passed on to a larger model. `domain` None means all domains.
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
    """The confidence of an assistant model. `intent` is the most probable candidate, `probability` its share
    among all candidates including out-of-scope, `margin` the lead over the second. `is_abstained`: the
    probability was below the threshold."""

    intent: str
    probability: float
    margin: float
    domain: str | None
    is_abstained: bool
