"""Pages of lists: the part that a client requests, and its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PAGE = 20
MAX_PAGE = 100


@dataclass(frozen=True)
class Page:
    """A part of a list: `limit` rows after the row with id `after`."""

    after: str | None = None
    limit: int = PAGE
    is_descending: bool = True


@dataclass(frozen=True)
class RowPage:
    """The rows of one page, and whether there are more."""

    rows: list[dict[str, Any]]
    has_more: bool
