"""The intents of one question as tokens of the model, and the choice among them.

The intent is one softmax at one position over the tokens on offer: no token is decoded for it. Where it
has slots, they follow as tokens; their values are free text, never longer than the question.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgeagent.engine.llama import Llama
from edgeagent.engine.prompt import PromptBuilder, token_of
from edgeagent.errors import ModelUnusable
from edgeagent.intents import (
    CALL_TEXT,
    LAST_SLOT,
    NO_SLOTS,
    Candidate,
    Choosing,
    Confidence,
    Slot,
    intent_text,
    slot_text,
)

Ids = np.ndarray[Any, np.dtype[np.int64]]


class CallTokens:
    """The tokens of one model that calls are made of. Intake thread only."""

    def __init__(self, llama: Llama, prompts: PromptBuilder, model_id: str) -> None:
        self._llama = llama
        self._prompts = prompts
        self._model_id = model_id
        self._ids: dict[str, int] = {}

    def id_of(self, text: str) -> int:
        """Raises: ModelUnusable where the vocabulary has no such token."""
        found = self._ids.get(text)
        if found is None:
            token = token_of(self._llama, text)
            if token is None:
                raise ModelUnusable(
                    f"The vocabulary of {self._model_id} has no token for {text!r}: its file and its list "
                    "of tools do not belong together; install both anew."
                )
            found = self._ids[text] = token
        return found

    @cached_property
    def values(self) -> Ids:
        """The tokens that a value may have: ordinary text."""
        n = self._llama.n_vocab
        plain = [t for t in range(n) if self._llama.piece(t) and t not in self._special]
        return np.array([t for t in plain if t not in self._llama.end_tokens], np.int64)

    @cached_property
    def _special(self) -> dict[int, str]:
        """The tokens of calls, with their texts."""
        texts = {
            t: self._llama.piece(t).decode("utf-8", "replace") for t in range(self._llama.n_vocab)
        }
        return {t: text for t, text in texts.items() if CALL_TEXT.fullmatch(text)}

    @cached_property
    def _frame(self) -> tuple[array[int], array[int]]:
        return self._prompts.frame()

    def prompt(self, text: str) -> tuple[array[int], int]:
        """The question as the model knows it, and how many tokens of that are the text's."""
        before, behind = self._frame
        tokens = self._plain(text)
        return before + tokens + behind, len(tokens)

    def _plain(self, text: str) -> array[int]:
        """Ordinary text: a call that is spelled out in it is no call, nor is a control token."""
        tokens = self._cut(text)
        found = {self._special[t] for t in tokens if t in self._special}
        if not found:
            return tokens
        parts = re.split(
            "(" + "|".join(map(re.escape, sorted(found, key=len, reverse=True))) + ")", text
        )
        out = array("i")
        for part in parts:
            for piece in part if part in found else [part]:  # letter by letter
                out += self._plain(piece) if piece else array("i")
        return out

    def _cut(self, text: str) -> array[int]:
        return self._llama.tokens_of(text, add_special=False, parse_special=False)


@dataclass(frozen=True, eq=False)
class Offer:
    """The candidates of one question. `ids` are their tokens, out-of-scope last: int64 [n + 1].

    `first`, `later` are the tokens of slots, `no_slots` and `last_slot` those that end a call; `values`
    the tokens that a value may have, `n_value` of them at most.
    """

    choosing: Choosing
    ids: Ids
    first: dict[str, int]
    later: dict[str, int]
    no_slots: int
    last_slot: int
    values: Ids
    n_value: int

    @classmethod
    def of(cls, choosing: Choosing, tokens: CallTokens, n_text: int) -> Offer:
        """Raises: ModelUnusable."""
        names = [intent_text(c.name, c.has_slots) for c in choosing.candidates]
        names.append(intent_text(choosing.out_of_scope, False))
        slots = sorted({slot.name for c in choosing.candidates for slot in c.slots})
        return cls(
            choosing,
            np.array([tokens.id_of(name) for name in names], np.int64),
            {name: tokens.id_of(slot_text(name, is_first=True)) for name in slots},
            {name: tokens.id_of(slot_text(name, is_first=False)) for name in slots},
            tokens.id_of(NO_SLOTS) if slots else -1,
            tokens.id_of(LAST_SLOT) if slots else -1,
            tokens.values if slots else np.empty(0, np.int64),
            max(1, n_text),
        )

    def weigh(self, logits: np.ndarray[Any, Any]) -> tuple[int, Confidence]:
        """The number of the most probable candidate, and how sure that is. logits: float32 [n_vocab].

        Believed is a candidate whose probability is not below the threshold; out-of-scope only shares in
        the probabilities. The same rule gives the forge's figures and its thresholds (`forge.classes`).
        """
        choosing = self.choosing
        values = logits[self.ids].astype(np.float64)
        shares = np.exp(values - values.max())
        shares /= shares.sum()
        best = int(shares[:-1].argmax())
        next_best = float(np.delete(shares, best).max())
        probability = float(shares[best])
        return best, Confidence(
            choosing.candidates[best].name,
            probability,
            probability - next_best,
            choosing.domain,
            choosing.may_abstain and probability < choosing.threshold,
        )


@dataclass(eq=False)
class Choice:
    """How far one answer is: undecided, then in the slots of what was chosen. Engine thread only.

    `value` are the tokens of the slot that is being filled, `filled` those that are done.
    """

    offer: Offer
    confidence: Confidence | None = None
    chosen: Candidate | None = None
    slot: str | None = None
    value: list[int] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)

    def open_slots(self) -> list[Slot]:
        """Those that may still come."""
        assert self.chosen is not None
        taken = {*self.filled, self.slot}
        return [slot for slot in self.chosen.slots if slot.name not in taken]

    def next_token(self, logits: np.ndarray[Any, Any]) -> tuple[int, str | None, bool]:
        """The most probable token that may follow, the slot that it begins if any, and whether it ends
        the call. logits: float32 [n_vocab]."""
        offer, may_turn = self.offer, self.slot is None or bool(self.value)
        open_slots = self.open_slots()
        turns: dict[int, tuple[str | None, bool]] = {}
        if may_turn:
            ids = offer.first if self.slot is None else offer.later
            turns = {ids[slot.name]: (slot.name, False) for slot in open_slots}
            if all(slot.kind != "required" for slot in open_slots):
                turns[offer.no_slots if self.slot is None else offer.last_slot] = (None, True)
        if self.slot is not None and len(self.value) < offer.n_value:
            best = int(offer.values[logits[offer.values].argmax()])
            if all(logits[best] >= logits[turn] for turn in turns):
                return best, None, False
        token = max(turns, key=lambda turn: float(logits[turn]))
        return token, *turns[token]

    def finished_value(self, pieces: bytes) -> str:
        """The slot that is done as a piece of JSON, with what stands before it."""
        assert self.slot is not None
        opening = "," if self.filled else "{"
        self.filled.append(self.slot)
        return (
            f"{opening}{json.dumps(self.slot)}:{json.dumps(unescaped(pieces), ensure_ascii=False)}"
        )

    def ending(self) -> str:
        """What closes the arguments: nulls for what has to be there and is not."""
        self.slot = None
        nulls = [f"{json.dumps(s.name)}:null" for s in self.open_slots() if s.kind == "nullable"]
        opening = "" if self.filled else "{"
        joint = "," if self.filled and nulls else ""
        return opening + joint + ",".join(nulls) + "}"


def unescaped(pieces: bytes) -> str:
    """A value as text. It was learnt as the inside of a JSON string; what is none is taken as it is."""
    text = pieces.decode("utf-8", "replace")
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
