"""The tables that users may read with SQL: read-only views over a restricted connection.

A connection of `open_views` has a temporary view for each readable table, with the same name and limited to
a selection. An authorizer restricts statements to those: only SELECT, no other tables or columns, no
PRAGMA, ATTACH or extension; the connection is also query-only. Digests and hints of API keys and the
store's internal tables (`HIDDEN`) are never shown.

SQLite tells an authorizer which view reads a table by the view's name, which a statement can imitate with a
common table expression (`with item as (select * from main.item)`). So each view reads another one with a
random name, and only that one may read the table.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagent.store.connection import SqliteError, StoreConnection, connect, translate
from edgeagent.store.ownership import TABLES, Selector

MOST_HEAP_BYTES = 256 << 20  # SQLite's memory limit in this process: sorting happens in memory
_STEPS_PER_CHECK = 100_000  # of SQLite's virtual machine between two checks for Ctrl-C
_SAVEPOINT = "sqlite_utils_query"  # sqlite-utils wraps each query in one

_KEY_COLUMNS = (
    "id", "name", "owner", "scopes", "limits", "tools", "is_break_glass", "created_ms", "expires_ms",
    "revoked_ms", "replaced_by",
)  # fmt: skip


@dataclass(frozen=True)
class ReadableTable:
    """A table that may be read. `columns` None: all. `parent`: which rows belong to a selection, where
    `Selector.where` does not say so; None: the table is shown only without a selection."""

    name: str
    about: str
    columns: tuple[str, ...] | None = None
    parent: str | None = None


# Tables that refer to others come after them.
READABLE = (
    ReadableTable("conversation", "conversations: owner, subject, metadata"),
    ReadableTable("response", "answers: model, status, conversation"),
    ReadableTable("response_content", "their text and instructions, as JSON",
             parent="response_id in (select id from response)"),
    ReadableTable("item", "what was said, call by call: kind, role, place"),
    ReadableTable("item_content", "its content, as JSON and as plain text",
             parent="item_rowid in (select rowid from item)"),
    ReadableTable("transcript", "dictations: model, language, length"),
    ReadableTable("segment", "their pieces: times, confidence"),
    ReadableTable("segment_content", "the words of each piece",
             parent="segment_rowid in (select rowid from segment)"),
    ReadableTable("audio_job", "transcription jobs: name, status, progress"),
    ReadableTable("batch", "batches of requests: endpoint, status, progress"),
    ReadableTable("batch_file", "their files: name, size"),
    ReadableTable("batch_line", "requests and answers in them, by line"),
    ReadableTable("vector_store", "knowledge bases: name, metadata, last use"),
    ReadableTable("document", "files as they were sent: name, digest, size"),
    ReadableTable("document_part", "their bytes, part by part"),
    ReadableTable("vector_store_file", "documents in knowledge bases: status, attributes"),
    ReadableTable("chunk", "the pieces of documents that are found and cited"),
    ReadableTable("feedback", "ratings of answers"),
    ReadableTable("feedback_content", "comments beside them",
             parent="feedback_rowid in (select rowid from feedback)"),
    ReadableTable("request", "every request: route, status, tokens, timings"),
    ReadableTable("decision", "choices of routes: probability, model, hashed words"),
    ReadableTable("key", "API keys, without digests and hints", _KEY_COLUMNS, parent="key"),
    ReadableTable("audit", "who did what; `edgeagent audit verify` checks it"),
    ReadableTable("measurement", "what `edgeagent doctor --measure` found"),
)  # fmt: skip
# Internal tables: sealed heads, numbers of erasures, cached prefixes, recordings and their keys, search
# indexes and vectors (which repeat content), migrations.
HIDDEN = frozenset(
    {
        "checkpoint", "erasure", "prefix", "warm_prefix", "recording", "properties", "migrations", "item_fts",
        "segment_fts", "chunk_fts", "chunk_bits", "chunk_vector",
    }
)  # fmt: skip
_ALLOWED_CODES = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
_TABLE_FUNCTIONS = frozenset({"json_each", "json_tree"})
# Functions that load code, write files, or reach below SQL.
_BAD_FUNCTIONS = re.compile(r"load_|fts|rtree|sqlcipher|readfile|writefile|edit$", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """A column of a view. `kind`: TEXT, INTEGER, REAL or BLOB. `refers_to`: table and column that it
    references, if any."""

    name: str
    kind: str
    is_key: bool
    refers_to: tuple[str, str] | None


@dataclass(frozen=True)
class QueryViews:
    """A connection with its views and their columns. One thread; `close` may be called twice."""

    db: StoreConnection
    path: Path
    columns: dict[str, list[Column]]
    statements: dict[str, str]  # CREATE TABLE of each table, without hidden columns

    def close(self) -> None:
        self.db.close()


def open_views(path: Path, key: bytes | None, selector: Selector | None) -> QueryViews:
    """Open one state of the database for reading, limited to the selection (None: everything).

    Statements that are wrong or not allowed raise SqliteError or SqliteWarning. Raises: what `translate`
    gives.
    """
    db = connect(path, key, role="reader")
    try:
        db.execute("PRAGMA query_only = OFF")  # creating temporary views is a write, too
        db.execute(f"PRAGMA hard_heap_limit = {MOST_HEAP_BYTES}")
        views = QueryViews(db, path, {}, {})
        inner: set[str] = set()
        for table in READABLE:
            condition = _condition(table, selector)
            if condition is not None:
                inner.add(_make_view(views, table, condition))
        tables = {row[0].lower() for row in db.execute("select name from main.sqlite_master")}
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")
    except SqliteError as exc:
        db.close()
        raise translate(exc, path) from exc
    db.conn.text_factory = lambda raw: raw.decode("utf-8", "replace")
    # Python checks for Ctrl-C only between its own instructions.
    db.conn.set_progress_handler(lambda: 0, _STEPS_PER_CHECK)
    db.conn.set_authorizer(_authorizer(frozenset(views.columns), frozenset(inner), tables))
    return views


def _condition(table: ReadableTable, selector: Selector | None) -> str | None:
    """The selected rows of a table as an SQL condition; None: the table is not part of the selection."""
    if selector is None:
        return "true"
    if table.name == "key":  # keys belong to an owner, not to a conversation or subject
        condition = "owner = :owner" if selector.is_whole_owner else "false"
    elif table.name in TABLES:
        condition = selector.where(table.name)
    elif table.parent is not None:
        condition = table.parent
    else:
        return None
    # Views cannot have bound values.
    values = {name: _literal(value) for name, value in selector.values().items()}
    return re.sub(r":(owner|conversation|subject)\b", lambda found: values[found[1]], condition)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _make_view(views: QueryViews, table: ReadableTable, condition: str) -> str:
    """Create the two views of a table; returns the name of the inner one, which may read it."""
    name, db = table.name, views.db
    found = db.execute(f'PRAGMA main.table_info("{name}")').fetchall()
    foreign = {
        column: (other, to)
        for _, _, other, column, to, *_ in db.execute(f'PRAGMA main.foreign_key_list("{name}")')
    }
    shown = [
        Column(column, kind.upper(), bool(place), foreign.get(column))
        for _, column, kind, _, _, place in found
        if table.columns is None or column in table.columns
    ]
    inner = f"rows_{secrets.token_hex(16)}"
    names = ", ".join(f'"{column.name}"' for column in shown)
    # Where no column is used, SQLite names the table to the authorizer without the view: always use one.
    used = min((column for column in shown if not column.is_key), key=lambda c: c.name != "owner")
    db.execute(
        f'create temp view "{inner}" as select {names} from main."{name}" '
        f"where ({condition}) and typeof(\"{used.name}\") != ''"
    )
    db.execute(f'create temp view "{name}" as select * from "{inner}"')
    views.columns[name] = shown
    hidden = {column for _, column, *_ in found} - {column.name for column in shown}
    made = db.execute("select sql from main.sqlite_master where name = ?", (name,)).fetchone()[0]
    views.statements[name] = _without(made, hidden)
    return inner


def _without(statement: str, columns: set[str]) -> str:
    """A CREATE TABLE statement without some columns; ours have one column per line."""
    lines = statement.splitlines()
    kept = [line for line in lines if not line.strip() or line.split()[0] not in columns]
    return "\n".join(kept) + ";"


def _authorizer(
    views: frozenset[str], inner: frozenset[str], tables: set[str]
) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """The authorizer callback for SQLite. `tables`: all table names of the database."""

    def may_read(table: str, column: str, database: str | None, by: str | None) -> bool:
        if by in inner:
            return True
        if database == "temp":
            return table in views or table in inner
        if table.lower() in _TABLE_FUNCTIONS:
            return True
        # No column is read and no database is named: one of our views, or a table expression of the
        # statement.
        is_named_only = database is None and column == ""
        is_foreign = table.lower() in tables - views or table.lower().startswith("sqlite_")
        return is_named_only and not is_foreign

    def is_allowed(code: int, first: Any, second: Any, database: Any, by: Any) -> bool:
        if code == sqlite3.SQLITE_READ:
            return may_read(first, second, database, by)
        if code == sqlite3.SQLITE_FUNCTION:
            return _BAD_FUNCTIONS.match(second) is None
        if code == sqlite3.SQLITE_SAVEPOINT:
            return bool(second == _SAVEPOINT)
        return code in _ALLOWED_CODES

    def decide(code: int, first: Any, second: Any, database: Any, by: Any) -> int:
        return (
            sqlite3.SQLITE_OK
            if is_allowed(code, first, second, database, by)
            else sqlite3.SQLITE_DENY
        )

    return decide
