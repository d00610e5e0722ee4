"""The conditions of routing rules, compiled.

Regular expressions are those of Rust's `regex` crate, through pydantic-core, which every daemon has loaded.
They take time linear in the text, have neither look-around nor references to groups, and a compiled one has
a bounded size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from edgeagent.errors import SettingsError
from edgeagent.routing.route_request import RouteRequest, RouteState
from edgeagent.settings.route_rules import RouteMatch

Condition = Callable[[RouteRequest, RouteState], bool]

MAX_DEPTH = 8
MAX_CONDITIONS = 200
# What the counts of a pattern, such as {2,5}, may multiply to: the time for a text grows with it.
MAX_REPEATS = 100
_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def compile_match(match: RouteMatch, place: str) -> Condition:
    """A function that tells whether a request fulfils the conditions. `place` names them in errors.

    Raises: SettingsError for no conditions, too many or too deep ones, and an unusable pattern.
    """
    n_conditions = sum(1 for _ in _inner(match, place, 1))
    if n_conditions > MAX_CONDITIONS:
        raise SettingsError(
            f"{place} has {n_conditions} tables of conditions, the limit is {MAX_CONDITIONS}: split the rule."
        )
    return _all(_parts(match, place))


def regexes(match: RouteMatch) -> int:
    """How many patterns the conditions have."""
    return sum(one.regex is not None for one in _inner(match, "", 1))


def uses_device(match: RouteMatch) -> bool:
    """Whether heat or power matter."""
    names = ("battery", "max_battery_percent", "heat", "min_temp_c")
    return any(getattr(one, name) is not None for one in _inner(match, "", 1) for name in names)


def _inner(match: RouteMatch, place: str, depth: int) -> Iterator[RouteMatch]:
    if depth > MAX_DEPTH:
        raise SettingsError(
            f"{place} nests conditions more than {MAX_DEPTH} deep: write it with fewer levels."
        )
    yield match
    below = [*(match.all or ()), *(match.any or ())]
    for one in [*below, match.negated] if match.negated is not None else below:
        yield from _inner(one, place, depth + 1)


def _parts(match: RouteMatch, place: str) -> list[Condition]:
    """One function for each condition of a table."""
    found = [*_of_text(match, place), *_of_request(match), *_of_device(match)]
    if match.all is not None:
        found += [_all(_parts(one, place)) for one in match.all]
    if match.any is not None:
        found.append(_any([_all(_parts(one, place)) for one in match.any]))
    if match.negated is not None:
        inner = _all(_parts(match.negated, place))
        found.append(lambda request, state: not inner(request, state))
    if not found:
        raise SettingsError(
            f"{place} has a table without conditions, which every request fulfils: add one, or set [routing] "
            "default_model."
        )
    return found


def _all(parts: list[Condition]) -> Condition:
    return lambda request, state: all(part(request, state) for part in parts)


def _any(parts: list[Condition]) -> Condition:
    return lambda request, state: any(part(request, state) for part in parts)


def _of_text(match: RouteMatch, place: str) -> list[Condition]:
    found: list[Condition] = []
    if match.keywords_any is not None:
        phrases = [_phrase(keyword, place) for keyword in match.keywords_any]
        words = frozenset(phrase.strip() for phrase in phrases if len(phrase.split()) == 1)
        longer = [(phrase.split()[0], phrase) for phrase in phrases if phrase.strip() not in words]
        found.append(lambda request, state: _has_any(request, words, longer))
    if match.regex is not None:
        is_found = compile_regex(match.regex, place)
        found.append(lambda request, state: is_found(request.text))
    if (languages := match.language) is not None:
        found.append(lambda request, state: request.language in languages)
    return found


def _has_any(request: RouteRequest, words: frozenset[str], longer: list[tuple[str, str]]) -> bool:
    """Whether the text has one of the words, or of the longer phrases, which come with their first word."""
    if not words.isdisjoint(request.words):
        return True
    return any(first in request.words and phrase in request.folded for first, phrase in longer)


def _phrase(keyword: str, place: str) -> str:
    phrase = RouteRequest("", keyword).folded
    if not phrase.strip():
        raise SettingsError(
            f"{place} has the keyword {keyword!r} without letters or digits: use `regex` for it."
        )
    return phrase


def compile_regex(pattern: str, place: str) -> Callable[[str], bool]:
    """A function that tells whether a text has the pattern somewhere. Raises: SettingsError."""
    n_repeats = 1
    for least, most in _COUNT.findall(pattern):
        n_repeats *= max(1, int(most or least))
    if n_repeats > MAX_REPEATS:
        raise SettingsError(
            f"{place} has a regex whose counts multiply to {n_repeats}, the limit is {MAX_REPEATS}: use `*` "
            "or `+`, or smaller counts."
        )
    try:
        schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
        validator = SchemaValidator(schema)
    except SchemaError as exc:
        lines = [line.strip() for line in str(exc).splitlines()]
        why = next((x[len("error: ") :] for x in lines if x.startswith("error: ")), lines[-1])
        raise SettingsError(
            f"{place} has the regex {pattern!r}, which cannot be used: {why.rstrip('.')}. Write it in the "
            "syntax of Rust's regex crate."
        ) from exc
    return partial(_is_match, validator)


def _is_match(validator: SchemaValidator, text: str) -> bool:
    try:
        validator.validate_python(text)
    except ValidationError:
        return False
    return True


def _of_request(match: RouteMatch) -> list[Condition]:
    found: list[Condition] = []
    if (least := match.min_chars) is not None:
        found.append(lambda request, state: request.n_chars >= least)
    if (most := match.max_chars) is not None:
        found.append(lambda request, state: request.n_chars <= most)
    if (tools := match.has_tools) is not None:
        found.append(lambda request, state: request.has_tools == tools)
    if (schema := match.has_schema) is not None:
        found.append(lambda request, state: request.has_schema == schema)
    if (domains := match.domain) is not None:
        found.append(lambda request, state: request.domain in domains)
    if (wanted := match.metadata) is not None:
        found.append(lambda request, state: wanted.items() <= request.metadata.items())
    if (keys := match.key) is not None:
        found.append(lambda request, state: request.key_id in keys or request.owner in keys)
    if (privacy := match.privacy) is not None:
        found.append(lambda request, state: request.privacy == privacy)
    return found


def _of_device(match: RouteMatch) -> list[Condition]:
    found: list[Condition] = []
    if match.time is not None:
        begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in match.time.split("-"))
        found.append(lambda request, state: _is_within(state.minute, begin, end))
    if (battery := match.battery) is not None:
        found.append(lambda request, state: state.is_on_battery is battery)
    if (percent := match.max_battery_percent) is not None:
        found.append(lambda request, state: _at_most(state.battery_percent, percent))
    if (heat := match.heat) is not None:
        found.append(lambda request, state: state.is_throttled is heat)
    if (temp_c := match.min_temp_c) is not None:
        found.append(lambda request, state: _at_most(temp_c, state.hottest_c))
    if (resident := match.resident) is not None:
        found.append(
            lambda request, state: resident in state.models and state.models[resident].is_resident
        )
    if (queue := match.queue) is not None:
        found.append(
            lambda request, state: (
                queue.model in state.models and state.models[queue.model].n_busy >= queue.min
            )
        )
    return found


def _is_within(minute: int, begin: int, end: int) -> bool:
    """Whether a minute of the day is in a span, which may cross midnight. Equal ends are the whole day."""
    if begin < end:
        return begin <= minute < end
    return minute >= begin or minute < end


def _at_most(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value <= bound
