"""Aliases of installed models, for example `gpt-4o*` for the default model. Pure.

Exact names take precedence over patterns, and patterns apply in the order of the table. The name of an
installed model is never an alias (`InstalledModels.named`).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase


class Aliases:
    """`table` maps names and patterns (`*`, `?`, `[...]`) to model ids, or to `default`."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = {name.lower(): target for name, target in table.items()}

    def target(self, name: str) -> str | None:
        """The model that a name stands for, ignoring case; None where it is not an alias."""
        wanted = name.lower()
        if wanted in self._table:
            return self._table[wanted]
        for pattern, target in self._table.items():
            if fnmatchcase(wanted, pattern):
                return target
        return None

    def of(self, *targets: str) -> tuple[str, ...]:
        """The names and patterns that stand for one of these models."""
        return tuple(name for name, target in self._table.items() if target in targets)


def is_pattern(name: str) -> bool:
    """Whether an alias stands for many names, so that it cannot be listed as a model."""
    return any(character in name for character in "*?[")
