"""Writes TOML text with tomli-w, leaving out fields that are None.

The standard library reads TOML but does not write it; TOML has no null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w


def to_toml(tree: Mapping[str, Any]) -> str:
    """`tree` as TOML text; keys with the value None are left out.

    Raises: TypeError for a value that TOML cannot represent, such as None in a list.
    """
    return tomli_w.dumps(_without_none(tree))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in value]
    return value
