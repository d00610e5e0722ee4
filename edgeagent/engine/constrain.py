"""Answers that must have a form: JSON by a schema, a regular expression, a Lark grammar.

The only home of llguidance, which turns a grammar and a vocabulary into masks of the tokens that may
come next, and of jsonschema_rs, which checks what came out: a second opinion that shares no code with
the first. Both are imported when the first such request comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeagent.engine import closing
from edgeagent.engine import schema as schemas
from edgeagent.errors import (
    EdgeAgentError,
    InvalidParameter,
    SchemaUnsatisfiable,
    SchemaViolated,
    UnsupportedParameter,
)
from edgeagent.types import Form

PARAM = schemas.PARAM
# No white space between tokens, as OpenAI writes it: fewer tokens, and most of them are forced. A
# small model that may put blanks there now and then puts nothing else.
JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}
# Half or less of llguidance's own: a step's bounds are what one schema may take from the others. A
# lexer state takes 1 to 2 kB.
LIMITS = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 25_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}


class Vocabulary(NamedTuple):
    """A model's tokens as bytes, special ones with 0xFF before them, and where llama.cpp's vocabulary
    and tokenizer lie in memory."""

    pieces: list[bytes]
    end_tokens: list[int]
    address: int
    tokenize_address: int


def tokenizer_of(vocabulary: Vocabulary) -> Any:
    """llguidance's view of a vocabulary: 0.2 s and 24 MB for 49,152 tokens.

    Half of both is for its slices, without which every mask within a text of bounded length takes
    340 us instead of 8 (EPYC Zen 5).
    """
    from llguidance import LLTokenizer

    return LLTokenizer.from_llamacpp(
        tokens=vocabulary.pieces,
        vocab_ptr=vocabulary.address,
        tokenize_fptr=vocabulary.tokenize_address,
        eos_token=vocabulary.end_tokens,
        slices=LLTokenizer.json_slices(),
    )


class Source(NamedTuple):
    """What llguidance compiles, the checked schema of the answer if there is one, those of the tools it
    may call, and the special tokens that stand around calls."""

    grammar: str
    checked: schemas.Checked | None
    tools: Mapping[str, schemas.Checked] = {}
    markers: Mapping[str, int] = {}

    @property
    def is_plain(self) -> bool:
        """Whether it may be compiled without a trial in a process of its own."""
        if self.checked is None and not self.tools:
            return False
        return all(found.is_plain for found in self._schemas())

    def _schemas(self) -> list[schemas.Checked]:
        return [*self.tools.values(), *([self.checked] if self.checked is not None else [])]

    def trial(self) -> str:
        """What is to be tried: without special tokens, which belong to one vocabulary."""
        if not self.tools:
            return self.grammar
        grammars = [
            f"v{i}: %json {json.dumps({'x-guidance': JSON_STYLE} | found.narrowed)}"
            for i, found in enumerate(self._schemas())
            if not found.is_plain
        ]
        names = " | ".join(rule.partition(":")[0] for rule in grammars)
        return "\n".join([f"start: {names}", *grammars])

    def complaint(self, message: str) -> EdgeAgentError:
        """A refusal of the whole as an error of ours, with the name of the tool that is at fault."""
        if self.tools:
            for name, found in self.tools.items():
                if said := tried(_json_grammar(found)):
                    error = complaint(said, found)
                    return type(error)(f"Tool {name!r}: {error.message}", param="tools")
            if self.checked is None or not tried(_json_grammar(self.checked)):
                brief = " ".join(message.replace("<non-verbose/>", "").split())[:300].rstrip(". ")
                return InvalidParameter(
                    f"The tools cannot be enforced together: {brief}. Send fewer, or simpler ones.",
                    param="tools",
                )
        return complaint(message, self.checked)


def source_of(form: Form) -> Source:
    """Read what a client sent. Raises: InvalidParameter, UnsupportedParameter."""
    from llguidance import LLMatcher

    if form.kind == "regex":
        return Source(LLMatcher.grammar_from_regex(form.text), None)
    if form.kind == "lark":
        return Source(LLMatcher.grammar_from_lark(form.text), None)
    checked = schemas.checked(form.text)
    check_meta(checked.schema)
    return Source(_json_grammar(checked), checked)


def _json_grammar(checked: schemas.Checked) -> str:
    from llguidance import LLMatcher

    try:
        grammar: str = LLMatcher.grammar_from_json_schema(
            json.dumps(checked.narrowed), overrides=JSON_STYLE
        )
    except (ValueError, UnicodeError) as exc:
        raise InvalidParameter(f"The schema cannot be read: {exc}.", param=PARAM) from exc
    return grammar


def check_meta(schema: dict[str, Any]) -> None:
    """Every keyword's value is of the kind that it must be."""
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as exc:
        path = "/".join(["#", *map(str, exc.instance_path)])
        keyword = next((p for p in reversed(exc.instance_path) if isinstance(p, str)), "")
        raise InvalidParameter(
            f"The schema's `{keyword}` at {path} is not valid: {exc.message[:200]}.", param=PARAM
        ) from exc
    except (jsonschema_rs.ReferencingError, ValueError) as exc:
        raise InvalidParameter(
            f"The schema cannot be read: {str(exc)[:200]}.", param=PARAM
        ) from exc


def complaint(message: str, checked: schemas.Checked | None) -> EdgeAgentError:
    """llguidance's refusal of a grammar as an error of ours."""
    brief = " ".join(message.replace("<non-verbose/>", "").split())[:300].rstrip(". ")
    if message.startswith("Unsatisfiable"):
        return SchemaUnsatisfiable(f"No value can satisfy the schema: {brief}.", param=PARAM)
    if "oneOf constraints are not supported" in message:
        path = schemas.first_path(checked, "oneOf") if checked else "#"
        return UnsupportedParameter(
            f"The schema's keyword `oneOf` at {path} has alternatives that are not told apart by a "
            "type or a constant: use `anyOf`.",
            param=PARAM,
        )
    keyword = schemas.guilty_keyword(brief)
    where = ""
    if keyword and checked:
        where = f" (`{keyword}` at {schemas.first_path(checked, keyword)})"
    return InvalidParameter(
        f"The form asked for cannot be enforced{where}: {brief}. Simplify it.", param=PARAM
    )


@dataclass(eq=False)
class Grammar:
    """A compiled form, shared by the answers that must have it. `is_spoiled` once one of them could
    not go on: its bounds may be used up for all of them. `validators` are those of calls, by tool."""

    matcher: Any
    validator: Any | None
    validators: dict[str, Any] = field(default_factory=dict)
    tokenizer: Any = None
    markers: Mapping[str, int] = field(default_factory=dict)
    compile_ms: float = 0.0
    is_spoiled: bool = False
    _marks: dict[str, list[int]] = field(default_factory=dict)

    def mark(self, text: str) -> list[int]:
        """Tokens of one of the few texts that JSON is closed with."""
        if text not in self._marks:
            self._marks[text] = self.tokenizer.greedy_tokenize(text)
        return self._marks[text]


def compile_source(source: Source, tokenizer: Any) -> Grammar:
    """Masks for one vocabulary, tried once. Raises: InvalidParameter, SchemaUnsatisfiable."""
    from llguidance import LLMatcher, LLParserLimits

    started = time.perf_counter()
    limits = LIMITS | {"max_grammar_size": LIMITS["max_grammar_size"] * (1 + len(source.tools))}
    matcher = LLMatcher(tokenizer, source.grammar, log_level=0, limits=LLParserLimits(**limits))
    if matcher.is_error():
        raise source.complaint(matcher.get_error())
    grammar = Grammar(
        matcher,
        _validator(source.checked.schema) if source.checked is not None else None,
        {name: _validator(found.schema) for name, found in source.tools.items()},
        tokenizer,
        source.markers,
    )
    constraint = Constraint(grammar)  # what fails at once fails before it is queued
    if not constraint.is_complete:
        constraint.allowed()
    grammar.compile_ms = 1e3 * (time.perf_counter() - started)
    return grammar


def _validator(schema: dict[str, Any]) -> Any:
    import jsonschema_rs

    try:
        # Formats are annotations to JSON Schema; the mask gives them their shape. The linear regex
        # engine, since the answer is checked on the engine's thread.
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=False,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as exc:
        raise InvalidParameter(
            f"The schema cannot be checked: {str(exc).splitlines()[0][:200]}.", param=PARAM
        ) from exc


class Constraint:
    """Where one answer is in its grammar. Made by intake, used by the engine thread.

    `opening` are the tokens that it must begin with, none where it will `begin` later; `n_tokens` counts
    what was accepted, those too.
    """

    def __init__(self, grammar: Grammar, *, is_later: bool = False) -> None:
        self._grammar = grammar
        self._matcher = grammar.matcher.deep_copy()
        self.n_tokens = 0
        self.opening: list[int] = [] if is_later else self._forced()

    def begin(self, head: str, rest: str) -> bool:
        """Take over behind what was written: its opening, then the rest of the last token. False where
        the grammar takes the opening alone."""
        if not self._matcher.consume_tokens(self.spelled(head)):
            raise self._stuck(self._matcher.get_error())
        tokens = self.spelled(rest)
        if self._matcher.validate_tokens(tokens) < len(tokens):
            return False
        if tokens and not self._matcher.consume_tokens(tokens):
            raise self._stuck(self._matcher.get_error())
        return True

    def go_on(self, n_tokens: int) -> list[int]:
        """The tokens that must follow, after the `n_tokens` that the answer has."""
        self.n_tokens = n_tokens
        return [] if self._matcher.is_stopped() else self._forced()

    def spelled(self, text: str) -> list[int]:
        """Tokens that add up to a text, a marker by its own."""
        if text in self._grammar.markers:
            return [self._grammar.markers[text]]
        tokens: list[int] = self._grammar.tokenizer.greedy_tokenize(text) if text else []
        return tokens

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
        return [] if self._matcher.is_stopped() else self._forced()

    def way_out(self, token: int | None, most: int) -> list[int] | None:
        """The tokens that would end the answer, after `token` if one is given: at most `most`, or None."""
        ahead = self._matcher
        if token is not None:
            ahead = ahead.deep_copy()
            if not ahead.consume_token(token):
                return None
        return closing.way_out(ahead, self._grammar.mark, most)

    def _forced(self) -> list[int]:
        """Llguidance leaves away last tokens that might be spelled otherwise with what follows."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens and not self._matcher.consume_tokens(tokens):
            raise self._stuck(self._matcher.get_error())
        self.n_tokens += len(tokens)
        return tokens

    def check(self, text: str) -> None:
        """The whole answer against the schema. Raises: SchemaViolated."""
        self._check("answer", text, self._grammar.validator)

    def check_call(self, name: str, arguments: str) -> None:
        """A whole call against its tool's schema. Raises: SchemaViolated."""
        if name not in self._grammar.validators:
            raise SchemaViolated(
                f"The answer calls {name[:80]!r}, which is none of the tools: send the request again."
            )
        self._check(f"call of {name!r}", arguments, self._grammar.validators[name])

    @staticmethod
    def _check(what: str, text: str, validator: Any | None) -> None:
        if validator is None:
            return
        try:
            is_valid = validator.is_valid(json.loads(text))
        except (ValueError, RecursionError) as exc:
            raise SchemaViolated(
                f"The {what} is no JSON that can be checked ({type(exc).__name__}): send the request "
                "again, or simplify the schema."
            ) from exc
        if not is_valid:
            raise SchemaViolated(
                f"The {what} does not satisfy its schema, although it was held to it: send the request "
                "again, or simplify the schema."
            )

    def _stuck(self, why: str) -> SchemaUnsatisfiable:
        self._grammar.is_spoiled = True
        brief = " ".join(why.replace("<non-verbose/>", "").split())[:200].rstrip(". ")
        if brief in ("NoExtensionBias", "NoExtension"):  # llguidance's names for it
            brief = "there is no value that it could have"
        return SchemaUnsatisfiable(
            f"The answer cannot go on within the form asked for: {brief}. Simplify the schema.",
            param=PARAM,
        )


def tried(grammar: str) -> str:
    """What is wrong with a grammar, on a vocabulary of bytes; empty when nothing is."""
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    tokenizer = LLTokenizer("byte", slices=[])
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**LIMITS))
    matcher.compute_ff_tokens()
    matcher.compute_bitmask()
    return str(matcher.get_error())
