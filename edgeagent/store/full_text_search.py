"""Full-text search over an owner's content, if the setting `store.search` is on."""

from __future__ import annotations

from typing import Any

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch

MAX_WORDS = 32


def matching(text: str) -> str | None:
    """An FTS5 query for rows with all the words of `text`; the last word may be incomplete.

    Words are quoted, so that user input contains no operators. None if there is no word.
    """
    words = ["".join(c for c in word if c.isalnum() or c == "_") for word in text.split()]
    words = [word for word in words if word][:MAX_WORDS]
    if not words:
        return None
    return " ".join(f'"{word}"' for word in words) + "*"


def find_items(
    db: StoreConnection, owner: str, text: str, *, limit: int = 20
) -> list[dict[str, Any]]:
    """This owner's items with all the words, best match first."""
    query = matching(text)
    if query is None:
        return []
    return fetch(
        db,
        "select item.id, item.conversation_id, item.response_id, item.role, item.created_ms, "
        "item_content.plain from item_fts join item on item.rowid = item_fts.rowid "
        "join item_content on item_content.item_rowid = item.rowid "
        "where item_fts match :query and item.owner = :owner order by rank limit :limit",
        {"query": query, "owner": owner, "limit": limit},
    )


def find_segments(
    db: StoreConnection, owner: str, text: str, *, limit: int = 20
) -> list[dict[str, Any]]:
    """This owner's transcript segments with all the words, best match first."""
    query = matching(text)
    if query is None:
        return []
    return fetch(
        db,
        "select segment.transcript_id, segment.position, segment.start_s, segment.end_s, "
        "segment_content.plain from segment_fts join segment on segment.rowid = segment_fts.rowid "
        "join segment_content on segment_content.segment_rowid = segment.rowid "
        "join transcript on transcript.id = segment.transcript_id "
        "where segment_fts match :query and transcript.owner = :owner order by rank limit :limit",
        {"query": query, "owner": owner, "limit": limit},
    )
