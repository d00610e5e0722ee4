"""Makes grammars of forms: a JSON schema, a regular expression, a Lark grammar.

Only this module uses llguidance, which computes masks of the tokens that may come next. It is imported with
the first such request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeagent.engine.structured import answer_checks
from edgeagent.engine.structured import schema_bounds as schemas
from edgeagent.engine.structured.answer_checks import AnswerCheck
from edgeagent.engine.structured.byte_grammar import ClosingGrammar, closing_of
from edgeagent.engine.structured.constraint import Constraint, Grammar
from edgeagent.engine.structured.schema_relaxation import Attempt, checked_loosely, weaker
from edgeagent.errors import (
    EdgeAgentError,
    InvalidParameter,
    SchemaUnsatisfiable,
    UnsupportedParameter,
)
from edgeagent.types.answer import SchemaNote
from edgeagent.types.generation import Form

PARAM = schemas.PARAM
# No white space between tokens, as in OpenAI's answers: fewer tokens, most of them forced. A small model that
# may write white space there sometimes writes nothing else.
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


# The most bytes that may be forced at the beginning; a longer text may have no end.
MAX_FORCED = 20_000


def limits_for(n_tools: int) -> dict[str, Any]:
    """A grammar of many tools is larger than each of theirs."""
    return LIMITS | {"max_grammar_size": LIMITS["max_grammar_size"] * (1 + n_tools)}


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
    may call, and the special tokens that stand around calls. `spelled` is the grammar with those written as
    text, where there are any."""

    grammar: str
    checked: schemas.BoundedSchema | None
    tools: Mapping[str, schemas.BoundedSchema] = {}
    markers: Mapping[str, int] = {}
    spelled: str | None = None

    @property
    def is_loose(self) -> bool:
        """Whether a schema may be enforced in part."""
        return any(found.whole is not None for found in self._schemas())

    def notes(self) -> list[SchemaNote]:
        """What of the schemas cannot be enforced."""
        named: list[tuple[str | None, schemas.BoundedSchema]] = [*self.tools.items()]
        if self.checked is not None:
            named.append((None, self.checked))
        return [SchemaNote(name, *note) for name, found in named for note in found.notes]

    @property
    def is_plain(self) -> bool:
        """Whether it may be compiled without a test in a helper process."""
        if self.checked is None and not self.tools:
            return False
        return all(found.is_plain for found in self._schemas())

    def _schemas(self) -> list[schemas.BoundedSchema]:
        return [*self.tools.values(), *([self.checked] if self.checked is not None else [])]

    def closing(self) -> ClosingGrammar | None:
        """The grammar by which answers are completed whose tokens run out; None if they are not JSON."""
        found = [checked.narrowed for checked in self._schemas()]
        if not found:
            return None
        from llguidance import LLMatcher, LLParserLimits, LLTokenizer

        limits = LLParserLimits(**limits_for(len(found)))
        tokenizer = LLTokenizer("byte", slices=[])
        matcher = LLMatcher(tokenizer, self.spelled or self.grammar, log_level=0, limits=limits)
        return None if matcher.is_error() else closing_of(matcher, found)

    def trial(self) -> str:
        """The grammar for the test: without special tokens, which belong to one vocabulary."""
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
        """A refusal by llguidance as a typed error, with the name of the tool at fault."""
        if self.tools:
            for name, found in self.tools.items():
                if said := tried(json_grammar(found)):
                    error = complaint(said, found)
                    return type(error)(f"Tool {name!r}: {error.message}", param="tools")
            if self.checked is None or not tried(json_grammar(self.checked)):
                brief = " ".join(message.replace("<non-verbose/>", "").split())[:300].rstrip(". ")
                return InvalidParameter(
                    f"The tools cannot be enforced together: {brief}. Send fewer, or simpler ones.",
                    param="tools",
                )
        return complaint(message, self.checked)


def source_of(form: Form, attempt: Attempt | None = None) -> Source:
    """Read what a client sent. With an `attempt` what it refuses is left out of a schema that need not hold
    wholly. Raises: InvalidParameter, UnsupportedParameter."""
    from llguidance import LLMatcher

    if form.kind == "regex":
        return Source(LLMatcher.grammar_from_regex(form.text), None)
    if form.kind == "lark":
        return Source(LLMatcher.grammar_from_lark(form.text), None)
    checked = checked_form(form, attempt)
    return Source(json_grammar(checked), checked)


def checked_form(form: Form, attempt: Attempt | None = None) -> schemas.BoundedSchema:
    """The schema of an answer, within bounds. Raises: InvalidParameter, UnsupportedParameter."""
    if form.is_strict:
        found = schemas.checked(form.text)
        answer_checks.check_meta(found.schema)
        return found
    found = checked_loosely(schemas.parsed(form.text))
    return found if attempt is None else weaker(found, attempt)


def json_grammar(checked: schemas.BoundedSchema) -> str:
    """What llguidance compiles of a schema. Raises: InvalidParameter."""
    from llguidance import LLMatcher

    try:
        grammar: str = LLMatcher.grammar_from_json_schema(
            json.dumps(checked.narrowed), overrides=JSON_STYLE
        )
    except (ValueError, UnicodeError) as exc:
        raise InvalidParameter(f"The schema cannot be read: {exc}.", param=PARAM) from exc
    return grammar


def complaint(message: str, checked: schemas.BoundedSchema | None) -> EdgeAgentError:
    """A refusal by llguidance as a typed error."""
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


def compile_source(source: Source, tokenizer: Any) -> Grammar:
    """Compile a grammar for one vocabulary and test it. Raises: InvalidParameter, SchemaUnsatisfiable."""
    from llguidance import LLMatcher, LLParserLimits

    started = time.perf_counter()
    limits = LLParserLimits(**limits_for(len(source.tools)))
    matcher = LLMatcher(tokenizer, source.grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise source.complaint(matcher.get_error())
    answer_check = AnswerCheck(source.checked, None) if source.checked is not None else None
    call_checks = {name: AnswerCheck(found, name) for name, found in source.tools.items()}
    notes = source.notes()
    for check in [*call_checks.values(), *([answer_check] if answer_check is not None else [])]:
        notes += check.notes
    grammar = Grammar(matcher, answer_check, call_checks, notes, tokenizer, source.markers)
    grammar.closing = source.closing()
    constraint = Constraint(grammar)  # a grammar that fails at once fails before it is queued
    if not constraint.is_complete:
        constraint.allowed()
    grammar.compile_ms = 1e3 * (time.perf_counter() - started)
    return grammar


def tried(grammar: str) -> str:
    """Why a grammar is refused for a vocabulary of bytes; an empty string if it is not."""
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    tokenizer = LLTokenizer("byte", slices=[])
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**LIMITS))
    n_forced = 0
    while n_forced < MAX_FORCED and (forced := matcher.compute_ff_tokens()):
        n_forced += len(forced)
        if not matcher.consume_tokens(forced):
            break
    matcher.compute_bitmask()
    return str(matcher.get_error())
