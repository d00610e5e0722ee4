"""Names that stand for installed models: `gpt-4o*` for the default one, say. Pure.

Exact names count before patterns, patterns in the order of the table; the name of an installed model is
never an alias (`InstalledModels.named`).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase


class Aliases:
    """`table` maps names and patterns (`*`, `?`, `[...]`) to ids of models, or to `default`."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = {name.lower(): target for name, target in table.items()}

    def target(self, name: str) -> str | None:
        """What a name stands for, whatever its case; None: for nothing."""
        wanted = name.lower()
        if wanted in self._table:
            return self._table[wanted]
        for pattern, target in self._table.items():
            if fnmatchcase(wanted, pattern):
                return target
        return None

    def of(self, *targets: str) -> tuple[str, ...]:
        """The names and patterns that stand for one of these."""
        return tuple(name for name, target in self._table.items() if target in targets)


def is_pattern(name: str) -> bool:
    """Whether an alias stands for many names, and so is none of a model that could be listed."""
    return any(character in name for character in "*?[")
