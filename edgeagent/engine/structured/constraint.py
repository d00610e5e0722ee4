"""A compiled form, and where one answer is in it: which tokens may come next, which must, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeagent.engine.batching.time_slices import Sliced
from edgeagent.engine.structured import byte_grammar, schema_bounds
from edgeagent.engine.structured.answer_checks import AnswerCheck
from edgeagent.engine.structured.byte_grammar import ClosingGrammar, Effort
from edgeagent.errors import SchemaUnsatisfiable, SchemaViolated
from edgeagent.types.answer import SchemaNote

# A vocabulary of no more tokens has bytes alone.
SINGLE_BYTES = 512
# Of what closes an answer, names of keys included; fewer than a text has.
BYTES_A_TOKEN = 2


@dataclass(eq=False)
class Grammar:
    """A compiled form, shared by the answers that must have it. `is_spoiled` once one of them could
    not go on: its bounds may be used up for all of them. `checks` are those of calls, by tool; `notes` say
    what answers are not held to."""

    matcher: Any
    answer_check: AnswerCheck | None
    checks: dict[str, AnswerCheck] = field(default_factory=dict)
    notes: list[SchemaNote] = field(default_factory=list)
    tokenizer: Any = None
    markers: Mapping[str, int] = field(default_factory=dict)
    compile_ms: float = 0.0
    is_spoiled: bool = False
    closing: ClosingGrammar | None = None

    @property
    def growth(self) -> int:
        """How many tokens one token may add to what must yet be said."""
        n_bytes = self.closing.growth if self.closing is not None else 0
        return n_bytes if self.tokenizer.vocab_size <= SINGLE_BYTES else n_bytes // BYTES_A_TOKEN

    def bytes_of(self, token: int) -> bytes:
        """What a token is in the text of an answer, a marker its name."""
        names = {found: name for name, found in self.markers.items()}
        if token in names:
            return names[token].encode()
        found: bytes = self.tokenizer.decode_bytes([token])
        return found

    def byte_tokens(self, byte: int) -> list[int]:
        found: list[int] = self.tokenizer.tokenize_bytes(bytes([byte]))
        return found

    def spelled(self, text: str) -> list[int]:
        """Tokens that add up to a text, a marker by its own."""
        parts = [text]
        if self.markers:
            parts = re.split("(" + "|".join(map(re.escape, self.markers)) + ")", text)
        tokens: list[int] = []
        for part in parts:
            if part in self.markers:
                tokens.append(self.markers[part])
            elif part:
                tokens += self.tokenizer.greedy_tokenize(part)
        return tokens


class Constraint:
    """Where one answer is in its grammar. Made by intake, used by the engine thread.

    `opening` are the tokens that it must begin with, none where it will `begin` later; `n_tokens` counts
    what was accepted, those too. `notes` say what of its schemas the answer is not held to, and what of
    that it lacks.
    """

    def __init__(self, grammar: Grammar, *, is_later: bool = False) -> None:
        self._grammar = grammar
        self._matcher = grammar.matcher.deep_copy()
        self.n_tokens = 0
        self.notes: list[SchemaNote] = list(grammar.notes)
        self._twin = grammar.closing.twin() if grammar.closing is not None else None
        self.opening: list[int] = [] if is_later else self._forced()

    def begin(self, head: str, rest: str) -> bool:
        """Take over behind what was written: its opening, then the rest of the last token. False where
        the grammar takes the opening alone."""
        if not self._matcher.consume_tokens(self.spelled(head)):
            raise self._stuck(self._matcher.get_error())
        if self._twin is not None:
            self._twin.hear(head.encode())
        tokens = self.spelled(rest)
        if self._matcher.validate_tokens(tokens) < len(tokens):
            return False
        if tokens and not self._matcher.consume_tokens(tokens):
            raise self._stuck(self._matcher.get_error())
        self._hear(tokens)
        return True

    def go_on(self, n_tokens: int) -> list[int]:
        """The tokens that must follow, after the `n_tokens` that the answer has."""
        self.n_tokens = n_tokens
        return [] if self._matcher.is_stopped() else self._forced()

    def spelled(self, text: str) -> list[int]:
        """Tokens that add up to a text, a marker by its own."""
        return self._grammar.spelled(text)

    @property
    def growth(self) -> int:
        return self._grammar.growth

    @property
    def is_complete(self) -> bool:
        """Nothing may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def allowed(self) -> bytes:
        """The tokens that may come next, one bit each, lowest bit first; the end among them when the
        answer is whole. Raises: SchemaUnsatisfiable where there is none."""
        mask: bytes = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise self._stuck(self._matcher.get_error())
        if not mask.strip(b"\0"):
            raise self._stuck("no token of the model's vocabulary continues it")
        return mask

    def accept(self, token: int) -> list[int]:
        """Go on with an allowed token. Returns the tokens that must follow it, already accepted."""
        self.n_tokens += 1
        if not self._matcher.consume_token(token):
            raise self._stuck(self._matcher.get_error())
        self._hear([token])
        return [] if self._matcher.is_stopped() else self._forced()

    def way_out(self, token: int | None, effort: Effort | None = None) -> Sliced[list[int] | None]:
        """The tokens that would end the answer, after `token` if one is given; None where they are not
        found with that much `effort`, of one try if none is given."""
        if self._twin is None:
            return None
        more = self._grammar.bytes_of(token) if token is not None else b""
        text = yield from self._twin.way_out(more, effort or byte_grammar.TRY)
        if text is None:
            return None
        # A character that is half written is ended by single bytes.
        n_torn = next((i for i, byte in enumerate(text) if byte & 0xC0 != 0x80), len(text))
        torn = [token for byte in text[:n_torn] for token in self._grammar.byte_tokens(byte)]
        return torn + self._grammar.spelled(text[n_torn:].decode("utf-8", "replace"))

    def _forced(self) -> list[int]:
        """Llguidance leaves away last tokens that might be spelled otherwise with what follows."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens and not self._matcher.consume_tokens(tokens):
            raise self._stuck(self._matcher.get_error())
        self.n_tokens += len(tokens)
        self._hear(tokens)
        return tokens

    def _hear(self, tokens: list[int]) -> None:
        if self._twin is not None:
            self._twin.hear(b"".join(map(self._grammar.bytes_of, tokens)))

    def check(self, text: str) -> None:
        """The whole answer against the schema. Raises: SchemaViolated."""
        if self._grammar.answer_check is not None:
            self.notes += self._grammar.answer_check.of(text)

    def check_call(self, name: str, arguments: str) -> None:
        """A whole call against its tool's schema. Raises: SchemaViolated."""
        if name not in self._grammar.checks:
            raise SchemaViolated(
                f"The answer calls {name[:80]!r}, which is none of the tools: send the request again."
            )
        self.notes += self._grammar.checks[name].of(arguments)

    def _stuck(self, why: str) -> SchemaUnsatisfiable:
        self._grammar.is_spoiled = True
        brief = " ".join(why.replace("<non-verbose/>", "").split())[:200].rstrip(". ")
        if brief in ("NoExtensionBias", "NoExtension"):  # llguidance's names for it
            brief = "there is no value that it could have"
        return SchemaUnsatisfiable(
            f"The answer cannot go on within the form asked for: {brief}. Simplify the schema.",
            param=schema_bounds.PARAM,
        )
