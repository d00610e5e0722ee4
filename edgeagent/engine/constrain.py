"""Answers that must have a form: JSON by a schema, a regular expression, a Lark grammar.

The only home of llguidance, which turns a grammar and a vocabulary into masks of the tokens that may
come next, and of jsonschema_rs, which checks what came out: a second opinion that shares no code with
the first. Both are imported when the first such request comes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """What llguidance compiles, and the checked schema if it is one."""

    grammar: str
    checked: schemas.Checked | None

    @property
    def is_plain(self) -> bool:
        """Whether it may be compiled without a trial in a process of its own."""
        return self.checked is not None and self.checked.is_plain


def source_of(form: Form) -> Source:
    """Read what a client sent. Raises: InvalidParameter, UnsupportedParameter."""
    from llguidance import LLMatcher

    if form.kind == "regex":
        return Source(LLMatcher.grammar_from_regex(form.text), None)
    if form.kind == "lark":
        return Source(LLMatcher.grammar_from_lark(form.text), None)
    checked = schemas.checked(form.text)
    _check_meta(checked.schema)
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(checked.narrowed), overrides=JSON_STYLE
        )
    except (ValueError, UnicodeError) as exc:
        raise InvalidParameter(f"The schema cannot be read: {exc}.", param=PARAM) from exc
    return Source(grammar, checked)


def _check_meta(schema: dict[str, Any]) -> None:
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
    not go on: its bounds may be used up for all of them."""

    matcher: Any
    validator: Any | None
    compile_ms: float = 0.0
    is_spoiled: bool = False


def compile_source(source: Source, tokenizer: Any) -> Grammar:
    """Masks for one vocabulary, tried once. Raises: InvalidParameter, SchemaUnsatisfiable."""
    from llguidance import LLMatcher, LLParserLimits

    started = time.perf_counter()
    matcher = LLMatcher(tokenizer, source.grammar, log_level=0, limits=LLParserLimits(**LIMITS))
    if matcher.is_error():
        raise complaint(matcher.get_error(), source.checked)
    validator = _validator(source.checked.schema) if source.checked is not None else None
    grammar = Grammar(matcher, validator)
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

    `opening` are the tokens that it must begin with; `n_tokens` counts what was accepted, those too.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._matcher = grammar.matcher.deep_copy()
        self.n_tokens = 0
        self.opening: list[int] = self._forced()

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

    def _forced(self) -> list[int]:
        """Llguidance leaves away last tokens that might be spelled otherwise with what follows."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens and not self._matcher.consume_tokens(tokens):
            raise self._stuck(self._matcher.get_error())
        self.n_tokens += len(tokens)
        return tokens

    def check(self, text: str) -> None:
        """The whole answer against the schema. Raises: SchemaViolated."""
        validator = self._grammar.validator
        if validator is None:
            return
        try:
            is_valid = validator.is_valid(json.loads(text))
        except (ValueError, RecursionError) as exc:
            raise SchemaViolated(
                f"The answer is no JSON that can be checked ({type(exc).__name__}): send the request "
                "again, or simplify the schema."
            ) from exc
        if not is_valid:
            raise SchemaViolated(
                "The answer does not satisfy the schema, although it was held to it: send the request "
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
