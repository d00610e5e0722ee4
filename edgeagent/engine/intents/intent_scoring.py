"""Scores the intents of one question and chooses among them.

The intent is chosen by one softmax over the tokens of the candidates, without decoding a token. Its slots, if
it has any, follow as tokens; a value consists of whole words of the question, so that none can be invented.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgeagent.engine.llama.model import Llama
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder, token_of
from edgeagent.errors import ModelUnusable
from edgeagent.types.intents import (
    CALL_TEXT,
    LAST_SLOT,
    NO_SLOTS,
    Candidate,
    Confidence,
    IntentQuestion,
    Slot,
    intent_text,
    slot_text,
)

Ids = np.ndarray[Any, np.dtype[np.int64]]
# Bytes of a text that one token stands for at most.
LONGEST_PIECE = 32
_SPACE = frozenset(b" \t\n\r\f\v")


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
    def pieces(self) -> dict[bytes, int]:
        return plain_pieces(self._llama)

    @cached_property
    def _special(self) -> dict[int, str]:
        return call_texts(self._llama)

    @cached_property
    def _frame(self) -> tuple[array[int], array[int]]:
        return self._prompts.frame()

    def prompt(self, text: str) -> array[int]:
        """The prompt of a question, in the form of the training data."""
        before, behind = self._frame
        return before + self._plain(text) + behind

    def _plain(self, text: str) -> array[int]:
        """The tokens of ordinary text, in which names of calls and of control tokens are text."""
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


def call_texts(llama: Llama) -> dict[int, str]:
    """The tokens that calls are made of, with their texts."""
    texts = {t: llama.piece(t).decode("utf-8", "replace") for t in range(llama.n_vocab)}
    return {t: text for t, text in texts.items() if CALL_TEXT.fullmatch(text)}


def plain_pieces(llama: Llama) -> dict[bytes, int]:
    """The tokens of ordinary text, by what they stand for."""
    others = call_texts(llama).keys() | llama.end_tokens
    found = ((t, llama.piece(t)) for t in range(llama.n_vocab) if t not in others)
    return {piece: t for t, piece in found if piece}


@dataclass(frozen=True, eq=False)
class IntentOffer:
    """The candidates of one question. `ids` are their tokens, out-of-scope last: int64 [n + 1].

    `first`, `later` are the tokens of slots, `no_slots` and `last_slot` those that end a call; `pieces`
    the tokens of ordinary text.
    """

    intent_question: IntentQuestion
    ids: Ids
    first: dict[str, int]
    later: dict[str, int]
    no_slots: int
    last_slot: int
    pieces: Mapping[bytes, int]

    @classmethod
    def of(cls, intent_question: IntentQuestion, tokens: CallTokens) -> IntentOffer:
        """Raises: ModelUnusable."""
        names = [intent_text(c.name, c.has_slots) for c in intent_question.candidates]
        names.append(intent_text(intent_question.out_of_scope, False))
        slots = sorted({slot.name for c in intent_question.candidates for slot in c.slots})
        return cls(
            intent_question,
            np.array([tokens.id_of(name) for name in names], np.int64),
            {name: tokens.id_of(slot_text(name, is_first=True)) for name in slots},
            {name: tokens.id_of(slot_text(name, is_first=False)) for name in slots},
            tokens.id_of(NO_SLOTS) if slots else -1,
            tokens.id_of(LAST_SLOT) if slots else -1,
            tokens.pieces if slots else {},
        )

    @cached_property
    def text(self) -> bytes:
        return self.intent_question.text.strip().encode("utf-8", "surrogatepass")

    @cached_property
    def starts(self) -> list[int]:
        """Where in the text a value may begin: with a word, or with a sign."""
        text = self.text
        return [at for at in range(len(text)) if text[at] not in _SPACE and _is_edge(text, at)]

    def weigh(self, logits: np.ndarray[Any, Any]) -> tuple[int, Confidence]:
        """The number of the most probable candidate, and how sure that is. logits: float32 [n_vocab].

        A candidate counts as sure if its probability reaches the threshold. "Out of scope" takes its share
        of the probabilities and is never returned. `forge.intent_classes` uses the same rule.
        """
        return weigh(self.intent_question, logits[self.ids])


def weigh(question: IntentQuestion, scores: np.ndarray[Any, Any]) -> tuple[int, Confidence]:
    """The number of the most probable candidate, and how sure that is. `scores` are the logits of the
    candidates, out-of-scope last."""
    values = scores.astype(np.float64)
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    best = int(shares[:-1].argmax())
    next_best = float(np.delete(shares, best).max())
    probability = float(shares[best])
    return best, Confidence(
        question.candidates[best].name,
        probability,
        probability - next_best,
        question.domain,
        question.candidates[best].is_foil
        or (question.may_abstain and probability < question.threshold),
    )


@dataclass(eq=False)
class IntentChoice:
    """The state of one answer: undecided, then in the slots of the chosen intent. Engine thread only.

    `value` is what the slot that is being filled has so far, and stands at `places` of the text; `filled`
    are those that are done.
    """

    offer: IntentOffer
    confidence: Confidence | None = None
    chosen: Candidate | None = None
    slot: str | None = None
    value: bytes = b""
    places: list[int] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)

    def open_slots(self) -> list[Slot]:
        """The slots that may still follow."""
        assert self.chosen is not None
        taken = {*self.filled, self.slot}
        return [slot for slot in self.chosen.slots if slot.name not in taken]

    def next_token(self, logits: np.ndarray[Any, Any]) -> tuple[int, bytes | None]:
        """The most probable token that may follow, and the piece of a value that it is; None where it turns
        to another slot or to the end. logits: float32 [n_vocab]."""
        values = self._values()
        turns = self._turns(is_stuck=self.slot is not None and not values)
        token = max([*turns, *values], key=lambda one: float(logits[one]))
        return token, values.get(token)

    def _turns(self, *, is_stuck: bool) -> list[int]:
        """The tokens of slots that may begin here, and of the end where nothing is missing. There are some
        where the value `is_stuck`: it cannot go on."""
        offer, is_first = self.offer, self.slot is None
        if not (is_first or is_stuck or self._is_whole()):
            return []
        ids, end = (offer.first, offer.no_slots) if is_first else (offer.later, offer.last_slot)
        open_slots = self.open_slots()
        may_end = all(slot.kind != "required" for slot in open_slots)
        return [*(ids[slot.name] for slot in open_slots), *([end] if may_end else [])]

    def _is_whole(self) -> bool:
        """Whether the value ends with a word of the text, or with a sign."""
        text, n = self.offer.text, len(self.value)
        ends = [at + n for at in self.places] if n else []
        return any(text[end - 1] not in _SPACE and _is_edge(text, end) for end in ends)

    def _values(self) -> dict[int, bytes]:
        """The tokens that go on with the value as the text does."""
        if self.slot is None:
            return {}
        text, pieces, found = self.offer.text, self.offer.pieces, {}
        for at in (at + len(self.value) for at in self.places):
            for end in range(at + 1, min(at + LONGEST_PIECE, len(text)) + 1):
                token = pieces.get(text[at:end])
                if token is not None:
                    found[token] = text[at:end]
        return found

    def go_on(self, piece: bytes) -> None:
        """Add a piece to the value."""
        self.value += piece
        self.places = [at for at in self.places if self.offer.text.startswith(self.value, at)]

    def turn(self, token: int) -> str:
        """End the slot that is being filled, and begin the one of `token`, or end the call: `slot` is None
        then. Returns the arguments' next piece of JSON."""
        told = ""
        if self.slot is not None:
            value = self.value.decode("utf-8", "replace")
            told = f"{json.dumps(self.slot)}:{json.dumps(value, ensure_ascii=False)}"
            told = ("," if self.filled else "{") + told
            self.filled.append(self.slot)
        names = {**_reversed(self.offer.first), **_reversed(self.offer.later)}
        self.slot, self.value, self.places = names.get(token), b"", self.offer.starts
        return told if self.slot is not None else told + self._ending()

    def _ending(self) -> str:
        """The end of the arguments: null for required slots that are missing."""
        nulls = [f"{json.dumps(s.name)}:null" for s in self.open_slots() if s.kind == "nullable"]
        opening = "" if self.filled else "{"
        joint = "," if self.filled and nulls else ""
        return opening + joint + ",".join(nulls) + "}"


def _is_edge(text: bytes, at: int) -> bool:
    """Whether no word goes on from before a place to behind it."""
    return at in (0, len(text)) or not (_is_letter(text[at - 1]) and _is_letter(text[at]))


def _is_letter(byte: int) -> bool:
    return byte >= 0x80 or chr(byte).isalnum()


def _reversed(ids: Mapping[str, int]) -> dict[int, str]:
    return {token: name for name, token in ids.items()}
