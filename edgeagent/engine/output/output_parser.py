"""Parses one answer while it is generated: reasoning, text, calls.

    start -> reasoning -> text -> calls        each but the last may be missing

Text that may become a marker, a stop string or the opening of a call is held back. Where a grammar has to
take over, `handover` says so, and which part of the last piece the grammar must read.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from edgeagent.engine.output.text_stream import StopFilter
from edgeagent.engine.tool_syntax.reasoning import Reasoning
from edgeagent.engine.tool_syntax.tool_syntax import CallReader, Family, find_marker
from edgeagent.types.answer import (
    CallDelta,
    FinishReason,
    SchemaNote,
    TokenChunk,
    TokenLogprob,
    Usage,
)
from edgeagent.types.intents import Confidence

Phase = Literal["start", "reasoning", "text", "calls"]
# When the grammar of an answer takes over: with its first token, after its reasoning, with a call.
Takeover = Literal["never", "at once", "after reasoning", "with a call"]


class Pieces(NamedTuple):
    """New pieces of an answer."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    confidence: Confidence | None = None
    scored: tuple[TokenLogprob, ...] = ()

    def and_then(self, more: Pieces) -> Pieces:
        return Pieces(
            self.text + more.text,
            self.reasoning + more.reasoning,
            self.calls + more.calls,
            self.logprobs + more.logprobs,
            more.confidence or self.confidence,
            self.scored + more.scored,
        )

    def chunk(
        self, index: int, finish: FinishReason | None = None, usage: Usage | None = None,
        error: tuple[str, str] | None = None, stop: str | None = None,
        notes: Sequence[SchemaNote] = (), tokens: Collection[int] = (),
        retry_after_s: float | None = None,
    ) -> TokenChunk:  # fmt: skip
        """The pieces as they are sent, of answer `index`."""
        if finish is None and self[1:] == NOTHING[1:]:  # text in the middle of an answer
            return TokenChunk(index, self.text)
        return TokenChunk(
            index, self.text, finish, usage, error, self.reasoning, [*self.calls], [*self.logprobs],
            stop, self.confidence, [*self.scored], notes=[*notes], tokens=[*tokens],
            retry_after_s=retry_after_s,
        )  # fmt: skip


NOTHING = Pieces()


class GrammarHandover(NamedTuple):
    """A grammar takes over. It reads `head` as already generated; `rest` is the part of the last piece after
    that, `kept` the piece without the rest. `is_torn`: the piece ends within a code point."""

    head: str
    rest: str
    kept: str = ""
    is_torn: bool = False


class CallSyntax(NamedTuple):
    """The calls that an answer may have: their syntax and the names of the tools. Without `may_repeat` the
    answer ends where it repeats a call: a model that was not trained to call would never stop."""

    family: Family
    names: frozenset[str]
    may_repeat: bool = True


class OutputParser:
    """The parser of one answer. Used by one thread.

    `markers` are the names of tokens that add no text. `is_reasoning`: the prompt has opened the reasoning
    section. Stop strings apply to the text only, not to reasoning or calls.
    """

    def __init__(
        self,
        stop: list[str],
        *,
        markers: Mapping[int, str],
        reasoning: Reasoning | None = None,
        is_reasoning: bool = False,
        calling: CallSyntax | None = None,
        is_call: bool = False,
        takeover: Takeover = "never",
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._filter = StopFilter(stop)
        self._markers = markers
        self._reasoning = reasoning
        self._calling = calling
        self._is_call = is_call  # everything after the reasoning is calls
        self._takeover: Takeover = takeover
        self._calls: CallReader | None = None
        self._past: list[str] = []  # the calls so far, the last one maybe incomplete
        self._again: list[CallDelta] = []
        self._held = ""
        self._unsure = ""  # text that looked like a call and has no name yet
        self._has_text = False
        self._is_after_reasoning = False
        self._handover: GrammarHandover | None = None
        self._n_read = 0
        # Which of the characters read are text, as spans [first, last) of them.
        self.passed: list[list[int]] = []
        self.n_calls = 0
        self.is_repeating = False
        self.n_reasoning = 0
        self.phase: Phase
        if is_reasoning:
            self.phase = "reasoning"
        elif reasoning is not None and takeover != "at once":
            self.phase = "start"
        else:
            self._answer()

    @property
    def is_stopped(self) -> bool:
        """A stop string has come."""
        return self._filter.is_stopped

    @property
    def stopped_by(self) -> str | None:
        """The stop string that has come."""
        return self._filter.stopped_by

    @property
    def closing(self) -> str:
        """The marker that ends the reasoning."""
        assert self._reasoning is not None
        return self._reasoning.closing

    def push(self, token: int, piece: bytes) -> Pieces:
        """The pieces that became certain with one token."""
        text = self.marker(token) or self._decoder.decode(piece)
        self._n_read += len(text)
        was_reasoning = self.phase == "reasoning"
        said = self._route(text)
        self.n_reasoning += was_reasoning or self.phase == "reasoning"
        if self._handover is not None:
            kept = text[: len(text) - len(self._handover.rest)]
            is_torn = bool(self._decoder.getstate()[0])
            self._handover = self._handover._replace(kept=kept, is_torn=is_torn)
        return said

    @property
    def has_said_all(self) -> bool:
        """Whether no more text can follow, only calls."""
        return self.phase == "calls" and not self._unsure

    def marker(self, token: int) -> str | None:
        """The name of a token that adds no text of its own."""
        return self._markers.get(token)

    def handover(self) -> GrammarHandover | None:
        """The handover that the last token caused, if any. Returned once."""
        handover, self._handover = self._handover, None
        return handover

    def go_on(self, rest: str) -> Pieces:
        """Parse the rest of the last piece, which the grammar has accepted."""
        return self._route(rest)

    def forget_rest(self) -> None:
        """Drop the rest of the last piece, which the grammar has refused."""
        self._decoder.reset()

    def finish(self) -> Pieces:
        """The text that was held back, when no more follows."""
        held, self._held = self._held, ""
        if self.phase == "reasoning":
            return Pieces(reasoning=held.rstrip())
        if self.phase == "calls":
            return Pieces(self._pass(self._unsure) + self._filter.finish())
        if self._is_after_reasoning and not self._has_text:
            held = held.lstrip()
        return Pieces(self._pass(held) + self._filter.finish())

    def finished_calls(self) -> list[tuple[str, str]]:
        """Name and arguments of the calls that were completed since the last time."""
        finished = self._calls.finished() if self._calls is not None else []
        if finished and self._again:
            self.is_repeating = True
        return finished

    # --- the phases

    def _answer(self) -> None:
        """Go on to the text, or to the calls."""
        self.phase = "text"
        if self._is_call:
            self._open_calls()

    def _open_calls(self) -> None:
        assert self._calling is not None
        self.phase = "calls"
        self._calls = self._calling.family.reader()

    def _route(self, text: str) -> Pieces:
        match self.phase:
            case "start":
                return self._start(text)
            case "reasoning":
                return self._think(text)
            case "text":
                return self._speak(text)
            case "calls":
                return self._call(text)

    def _start(self, text: str) -> Pieces:
        assert self._reasoning is not None
        self._held += text
        begun = self._held.lstrip()
        if begun.startswith(self._reasoning.opening):
            self._held = ""
            self.phase = "reasoning"
            return self._think(begun[len(self._reasoning.opening) :])
        if self._reasoning.opening.startswith(begun):
            return Pieces()
        held, self._held = self._held, ""
        self._answer()
        return self._route(held)

    def _think(self, text: str) -> Pieces:
        assert self._reasoning is not None
        self._held += text
        if not self._has_text:
            self._held = self._held.lstrip()
        found = find_marker(self._held, self._reasoning.closing)
        if found is not None and found.end is not None:
            thought, rest = self._held[: found.start].rstrip(), self._held[found.end :]
            self._held, self._has_text = "", False
            self._is_after_reasoning = True
            self._answer()
            if self._takeover == "after reasoning":
                self._handover = GrammarHandover("", rest if rest.strip() else "")
                return Pieces(reasoning=thought)
            return Pieces(reasoning=thought).and_then(self._route(rest))
        certain = self._held[: found.start if found is not None else None].rstrip()
        self._held = self._held[len(certain) :]
        self._has_text |= bool(certain)
        return Pieces(reasoning=certain)

    def _speak(self, text: str) -> Pieces:
        if self._is_after_reasoning and not self._has_text and not self._held:
            text = text.lstrip()
        if self._calling is None:
            self._has_text |= bool(text)
            return Pieces(self._pass(text))
        self._held += text
        # An object within a JSON answer may have a name too: only at its beginning it is a call.
        may_call = self._takeover == "with a call" or not self._has_text
        family, names, _ = self._calling
        is_first = self._takeover == "with a call" and not self._has_text
        found = family.find(self._held, names, is_first=is_first) if may_call else None
        if found is not None and found.end is not None:
            before = self._pass(self._held[: found.start].rstrip(), self._held)
            if self._filter.is_stopped:
                return Pieces(before)
            return Pieces(before + self._filter.finish()).and_then(
                self._begin_call(found.end, found.head)
            )
        # White space before a call is not part of the text.
        certain = self._held[: found.start if found is not None else None].rstrip()
        said = self._pass(certain, self._held)
        self._held = self._held[len(certain) :]
        self._has_text |= bool(certain)
        return Pieces(said)

    def _pass(self, text: str, held: str | None = None) -> str:
        """Pass text on to the stop filter. It begins `held`, the last characters read, or is all of them."""
        if text:
            first = self._n_read - len(held if held is not None else text)
            if self.passed and self.passed[-1][1] == first:
                self.passed[-1][1] += len(text)
            else:
                self.passed.append([first, first + len(text)])
        return self._filter.push(text)

    def _begin_call(self, end: int, head: str) -> Pieces:
        written, rest = self._held[:end], self._held[end:]
        self._held = ""
        self._open_calls()
        if self._takeover == "with a call":
            self._handover = GrammarHandover(head, rest)
            return self._call(head)
        said = self._call(written + rest)
        self._unsure = "" if self.n_calls else written + rest
        return said

    def _call(self, text: str) -> Pieces:
        assert self._calls is not None
        deltas = self._calls.feed(text)
        assert self._calling is not None
        if not self._calling.may_repeat:
            deltas = self._without_repeats(deltas)
        self.n_calls += sum(delta.name is not None for delta in deltas)
        if self._unsure:
            self._unsure = "" if self.n_calls else self._unsure + text
        return Pieces(calls=tuple(deltas))

    def _without_repeats(self, deltas: list[CallDelta]) -> list[CallDelta]:
        """Hold back the pieces of a call until it differs from all earlier calls."""
        out: list[CallDelta] = []
        for delta in deltas:
            if delta.name is not None:
                self._past.append(f"{delta.name} ")
            self._past[-1] += delta.arguments
            self._again.append(delta)
            *earlier, this = self._past
            if not any(call.startswith(this) for call in earlier):
                out += self._again
                self._again = []
        return out
