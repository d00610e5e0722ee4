"""Filters on the attributes of documents in a vector store, as SQL conditions with bound values.

{"type": "and", "filters": [{"type": "gte", "key": "year", "value": 2024}, ...]}
"""

from __future__ import annotations

from typing import Any

from edgeagent.errors import InvalidParameter

MAX_FILTERS = 64
MAX_DEPTH = 8
_COMPARISONS = {"eq": "=", "ne": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_LISTS = {"in", "nin"}
_NEGATED = {"ne", "nin"}


class AttributeFilter:
    """A condition on `vector_store_file f`; bind `values` with it. Raises: InvalidParameter."""

    def __init__(self, given: Any) -> None:
        self.values: dict[str, Any] = {}
        self._n = 0
        self.sql = self._compiled(given, 1)

    def _compiled(self, given: Any, depth: int) -> str:
        if not isinstance(given, dict):
            raise _bad("a filter is an object with a `type`")
        self._n += 1
        if self._n > MAX_FILTERS or depth > MAX_DEPTH:
            raise _bad(f"at most {MAX_FILTERS} filters, nested {MAX_DEPTH} deep, are read")
        kind = given.get("type")
        if kind in ("and", "or"):
            inner = given.get("filters")
            if not isinstance(inner, list) or not inner:
                raise _bad(f"`{kind}` needs a list `filters`")
            joined = f" {kind} ".join(self._compiled(each, depth + 1) for each in inner)
            return f"({joined})"
        if kind not in _COMPARISONS and kind not in _LISTS:
            known = ", ".join([*_COMPARISONS, *sorted(_LISTS), "and", "or"])
            raise _bad(f"the type {str(kind)[:40]!r} is none of {known}")
        return self._comparison(kind, given.get("key"), given.get("value"))

    def _comparison(self, kind: str, key: Any, value: Any) -> str:
        if not isinstance(key, str) or not 1 <= len(key) <= 64:
            raise _bad("`key` is a text of 1 to 64 characters")
        values = value if kind in _LISTS else [value]
        if not isinstance(values, list) or not 1 <= len(values) <= MAX_FILTERS:
            raise _bad(f"`value` of `{kind}` is a list of 1 to {MAX_FILTERS} values")
        key_name = self._bound(key)
        operator = _COMPARISONS.get(kind, "=")
        terms = " or ".join(self._term(operator, each) for each in values)
        found = f"exists (select 1 from json_each(f.attributes) a where a.key = :{key_name} and ({terms}))"
        return f"not {found}" if kind in _NEGATED else found

    def _term(self, operator: str, value: Any) -> str:
        # A text is never compared with a number, and true is not 1.
        if isinstance(value, bool):
            if operator != "=":
                raise _bad("true and false are neither greater nor less than others")
            return f"a.type = '{'true' if value else 'false'}'"
        if isinstance(value, int | float) and abs(value) < 1e308:
            return f"(a.type in ('integer', 'real') and a.atom {operator} :{self._bound(float(value))})"
        if isinstance(value, str) and len(value) <= 512:
            return f"(a.type = 'text' and a.atom {operator} :{self._bound(value)})"
        raise _bad("`value` is a number, a text of at most 512 characters, true or false")

    def _bound(self, value: Any) -> str:
        name = f"filter{len(self.values)}"
        self.values[name] = value
        return name


def _bad(what: str) -> InvalidParameter:
    return InvalidParameter(f"`filters`: {what}.", param="filters")
