"""Writing TOML that people can read: the few shapes that our own files have.

The standard library reads TOML and does not write it. A table holds values, lists of values,
tables, and lists of tables; None is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(tree: Mapping[str, Any]) -> str:
    """`tree` as TOML text. Raises: TypeError for a value that TOML has no form for."""
    return "\n".join(_tables(tree, "", "")).lstrip("\n")


def _tables(tree: Mapping[str, Any], path: str, head: str) -> list[str]:
    """The text of one table, then of the tables in it: values must come before the next header."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in tree.items() if not _is_nested(v)]
    # A table that only holds tables is there without a header of its own; a list's item is not.
    is_needed = lines or not tree or head.startswith("[[")
    parts = ["\n".join([*([head] if head else []), *lines]) + "\n"] if is_needed else []
    for key, value in tree.items():
        inner = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, Mapping):
            parts += _tables(value, inner, f"[{inner}]")
        elif _is_nested(value) and value is not None:
            for item in value:
                parts += _tables(item, inner, f"[[{inner}]]")
    return parts


def _is_nested(value: Any) -> bool:
    """Whether a value is written after the plain ones of its table, or (None) not at all."""
    is_list_of_tables = isinstance(value, list | tuple) and any(
        isinstance(item, Mapping) for item in value
    )
    return value is None or isinstance(value, Mapping) or is_list_of_tables


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"{type(value).__name__} has no form in TOML")


def _key(text: str) -> str:
    is_bare = text and text.isascii() and all(c.isalnum() or c in "-_" for c in text)
    return text if is_bare else _value(text)
