"""A compiled grammar, and the state of one answer in it: allowed and forced tokens, and how it can end."""

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

# A vocabulary of this size or less has single bytes only.
SINGLE_BYTES = 512
# In the end of an answer, names of keys included; less than in ordinary text.
BYTES_A_TOKEN = 2


@dataclass(eq=False)
class Grammar:
    """A compiled form, shared by its answers. `is_spoiled` is set when an answer could not go on, because the
    bounds of the grammar may be used up for all of them. `checks` are the checks of calls, by tool; `notes`
    say what answers are not held to."""

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
        """How many tokens one token may add to the end of an answer."""
        n_bytes = self.closing.growth if self.closing is not None else 0
        return n_bytes if self.tokenizer.vocab_size <= SINGLE_BYTES else n_bytes // BYTES_A_TOKEN

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token in the text of an answer; the name of a marker."""
        names = {found: name for name, found in self.markers.items()}
        if token in names:
            return names[token].encode()
        found: bytes = self.tokenizer.decode_bytes([token])
        return found

    def byte_tokens(self, byte: int) -> list[int]:
        found: list[int] = self.tokenizer.tokenize_bytes(bytes([byte]))
        return found

    def spelled(self, text: str) -> list[int]:
        """Tokens that add up to a text. Markers become their special tokens."""
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
    """The state of one answer in its grammar. Made by intake, used by the engine thread.

    `opening` are the tokens that the answer must begin with; it is empty if the grammar will `begin` later.
    `n_tokens` counts accepted tokens, including those. `notes` say what of its schemas the answer is not held
    to, and what of that it does not satisfy.
    """

    def __init__(self, grammar: Grammar, *, is_later: bool = False) -> None:
        self._grammar = grammar
        self._matcher = grammar.matcher.deep_copy()
        self.n_tokens = 0
        self.notes: list[SchemaNote] = list(grammar.notes)
        self._twin = grammar.closing.twin() if grammar.closing is not None else None
        self.opening: list[int] = [] if is_later else self._forced()

    def begin(self, head: str, rest: str) -> bool:
        """Take over after the opening `head` and the `rest` of the last token. False if the grammar accepts
        only the opening."""
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
        """The forced tokens after the `n_tokens` that the answer has."""
        self.n_tokens = n_tokens
        return [] if self._matcher.is_stopped() else self._forced()

    def spelled(self, text: str) -> list[int]:
        """Tokens that add up to a text. Markers become their special tokens."""
        return self._grammar.spelled(text)

    @property
    def growth(self) -> int:
        return self._grammar.growth

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def allowed(self) -> bytes:
        """The tokens that may come next, one bit each, lowest bit first, with the end token if the answer is
        complete. Raises: SchemaUnsatisfiable if there are none."""
        mask: bytes = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise self._stuck(self._matcher.get_error())
        if not mask.strip(b"\0"):
            raise self._stuck("no token of the model's vocabulary continues it")
        return mask

    def accept(self, token: int) -> list[int]:
        """Accept an allowed token. Returns the forced tokens after it, which are accepted too."""
        self.n_tokens += 1
        if not self._matcher.consume_token(token):
            raise self._stuck(self._matcher.get_error())
        self._hear([token])
        return [] if self._matcher.is_stopped() else self._forced()

    def way_out(self, token: int | None, effort: Effort | None = None) -> Sliced[list[int] | None]:
        """The tokens that would end the answer, after `token` if one is given. None if they are not found
        within the bounds of `effort`."""
        if self._twin is None:
            return None
        more = self._grammar.bytes_of(token) if token is not None else b""
        text = yield from self._twin.way_out(more, effort or byte_grammar.TRY)
        if text is None:
            return None
        # An incomplete character is completed by single bytes.
        n_torn = next((i for i, byte in enumerate(text) if byte & 0xC0 != 0x80), len(text))
        torn = [token for byte in text[:n_torn] for token in self._grammar.byte_tokens(byte)]
        return torn + self._grammar.spelled(text[n_torn:].decode("utf-8", "replace"))

    def _forced(self) -> list[int]:
        """The forced tokens. Llguidance omits last tokens that the following text could change."""
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
        """Check the complete answer against the schema. Raises: SchemaViolated."""
        if self._grammar.answer_check is not None:
            self.notes += self._grammar.answer_check.of(text)

    def check_call(self, name: str, arguments: str) -> None:
        """Check a complete call against the schema of its tool. Raises: SchemaViolated."""
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
