"""Exports everything stored for an owner, a conversation or a subject as one JSON document.

    {"edgeagent_export": 1, "what": {...}, "exported_ms": ..., "conversation": [{...}, ...], ...}

There is a section for each table, and each row includes its content. Rows are read in pages to keep memory
use small. Within one read transaction, the document is one state of the database.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgeagent.store.ownership import Selector
from edgeagent.store.row_deletion import key_of
from edgeagent.store.sql import Connection

PAGE_ROWS = 200
PART_ROWS = 16  # of documents, of 64 KiB
FORMAT = 1
# Columns with JSON text, exported as JSON.
_JSON = {
    "metadata",
    "body",
    "scopes",
    "limits",
    "tools",
    "options",
    "checkpoint",
    "error",
    "errors",
    "chances",
    "attributes",
}
# Content is in a table of its own; null if retention has deleted it.
_CONTENT = {
    "response": "(select body from response_content where response_id = response.id) as body",
    "item": """(select body from item_content where item_rowid = item.rowid) as body,
        (select plain from item_content where item_rowid = item.rowid) as plain""",
    "segment": """(select body from segment_content where segment_rowid = segment.rowid) as body,
        (select plain from segment_content where segment_rowid = segment.rowid) as plain""",
    "feedback": """(select body from feedback_content where feedback_rowid = feedback.rowid) as body,
        (select correction from feedback_content where feedback_rowid = feedback.rowid) as correction""",
}
_KEY_COLUMNS = "id, name, owner, scopes, limits, tools, created_ms, expires_ms, revoked_ms"
SECTIONS = (
    "conversation", "response", "item", "transcript", "segment", "audio_job", "feedback", "request",
    "decision", "batch_file", "batch_line", "batch", "vector_store", "vector_store_file", "document",
    "document_part", "chunk", "key",
)  # fmt: skip


@dataclass(frozen=True)
class ExportPage:
    """Rows of one section, and where the next page begins; `next` None: the export is complete."""

    section: str
    rows: list[dict[str, Any]]
    next: tuple[str, Any] | None


def page(
    conn: Connection, selector: Selector, start: tuple[str, Any] | None = None,
    limit: int = PAGE_ROWS,
) -> ExportPage:  # fmt: skip
    """The rows after `start`: a section and the key of its last row (None: from the section's beginning).
    A page has rows of one section and may be empty."""
    section, after = start or (SECTIONS[0], None)
    limit = min(limit, PART_ROWS) if section == "document_part" else limit
    where, key = _where(section, selector), key_of(section)
    behind = "" if after is None else f"and {section}.{key} > :after"
    cursor = conn.execute(
        f"select {section}.{key}, {_columns(section)} from {section} where ({where}) {behind} "
        f"order by {section}.{key} limit :limit",
        selector.values() | {"limit": limit} | ({} if after is None else {"after": after}),
    )
    names = [column[0] for column in cursor.description][1:]
    found = cursor.fetchall()
    rows = [_shown(dict(zip(names, row[1:], strict=True))) for row in found]
    if len(found) == limit:
        return ExportPage(section, rows, (section, found[-1][0]))
    later = SECTIONS[SECTIONS.index(section) + 1 :]
    return ExportPage(section, rows, (later[0], None) if later else None)


def document(
    selector: Selector, exported_ms: int, read: Callable[[tuple[str, Any] | None], ExportPage],
    tell: Callable[[int], object] = lambda _n: None,
) -> Iterator[bytes]:  # fmt: skip
    """The document in pieces; `read` returns the pages. `tell` gets the number of rows of each page."""
    head = {"edgeagent_export": FORMAT, "what": selector.values(), "exported_ms": exported_ms}
    yield json.dumps(head, ensure_ascii=False).removesuffix("}").encode()
    start: tuple[str, Any] | None = None
    section, n_rows = None, 0
    while True:
        found = read(start)
        if found.section != section:
            yield b"%s\n%s: [\n" % (b"," if section is None else b"],", _line(found.section))
            section, n_rows = found.section, 0
        if found.rows:
            yield (b",\n" if n_rows else b"") + b",\n".join(map(_line, found.rows))
            n_rows += len(found.rows)
            tell(len(found.rows))
        if found.next is None:
            break
        start = found.next
    yield b"]}\n"


def write(
    conn: Connection, selector: Selector, exported_ms: int, sink: Callable[[bytes], object],
    tell: Callable[[int], object] = lambda _n: None,
) -> int:  # fmt: skip
    """Write the document to `sink` in pieces. Returns the number of rows."""
    n_rows = 0

    def count(n: int) -> None:
        nonlocal n_rows
        n_rows += n
        tell(n)

    for piece in document(selector, exported_ms, lambda at: page(conn, selector, at), count):
        sink(piece)
    return n_rows


def _line(row: dict[str, Any] | str) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def _where(section: str, selector: Selector) -> str:
    if section == "key":  # keys belong to an owner, not to a conversation or subject
        return "owner = :owner" if selector.is_whole_owner else "false"
    return selector.where(section)


def _columns(section: str) -> str:
    if section == "key":
        return _KEY_COLUMNS
    content = _CONTENT.get(section)
    return f"{section}.*" + (f", {content}" if content else "")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    for name in _JSON & row.keys():
        if row[name] is not None:
            with contextlib.suppress(ValueError):  # keep it as text then
                row[name] = json.loads(row[name])
    for name, value in row.items():
        if isinstance(value, bytes):
            row[name] = base64.b64encode(value).decode()
    return row
