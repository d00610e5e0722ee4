"""Statistics of stored data for `edgeagent data stats`: how much, of which kind, since when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeagent.store import clock
from edgeagent.store.backup import Backups
from edgeagent.store.database_files import StoreFiles, beside
from edgeagent.store.sql import Connection, scalar

# Per retention class: rows, bytes of text, oldest, newest, and rows under legal hold.
_CLASSES = {
    "content": """select count(*), sum(n_bytes), min(created_ms), max(created_ms), sum(held) from (
        select octet_length(c.body) + octet_length(c.plain) as n_bytes, i.created_ms,
            coalesce((select is_held from conversation where id = i.conversation_id), 0)
            or coalesce((select is_held from response where id = i.response_id), 0) as held
        from item_content c join item i on i.rowid = c.item_rowid
        union all select octet_length(c.body), r.created_ms, r.is_held
        from response_content c join response r on r.id = c.response_id)""",
    "responses": """select count(*), 0, min(at), max(at), sum(is_held) from (
        select updated_ms as at, is_held from conversation
        union all select created_ms, is_held from response)""",
    "transcripts": """select count(*), (select sum(octet_length(body) + octet_length(plain))
        from segment_content), min(created_ms), max(created_ms), sum(is_held) from transcript""",
    "recordings": """select count(*), 0, min(created_ms), max(created_ms), sum((select t.is_held
        from audio_job j join transcript t on t.id = j.transcript_id where j.id = recording.id))
        from recording""",
    "batches": """select count(*), sum(n_bytes), min(created_ms), max(created_ms), 0
        from batch_file""",
    "knowledge": """select count(*), sum(n_bytes), min(created_ms), max(created_ms), sum(is_held)
        from document""",
    "feedback": """select count(*), (select sum(octet_length(body)) from feedback_content),
        min(created_ms), max(created_ms), 0 from feedback""",
    "requests": "select count(*), 0, min(created_ms), max(created_ms), 0 from request",
    "audit": "select count(*), 0, min(utc_ms), max(utc_ms), 0 from audit",
}


@dataclass(frozen=True)
class ClassStats:
    """`text_bytes`: uncompressed content. Times in UTC milliseconds; None without rows."""

    kind: str
    n_rows: int
    text_bytes: int
    oldest_ms: int | None
    newest_ms: int | None
    n_held: int


@dataclass(frozen=True)
class FileStats:
    database_bytes: int
    log_bytes: int
    n_backups: int
    backup_bytes: int
    newest_backup: str | None
    quarantine_bytes: int
    n_prefixes: int
    prefix_bytes: int
    recording_bytes: int


def classes(conn: Connection) -> list[ClassStats]:
    """Statistics of every retention class. Reads all content once."""
    found = []
    for kind, sql in _CLASSES.items():
        n_rows, n_bytes, oldest, newest, n_held = conn.execute(sql).fetchone()
        found.append(ClassStats(kind, n_rows, n_bytes or 0, oldest, newest, n_held or 0))
    return found


def files(places: StoreFiles, backups: Backups) -> FileStats:
    """Sizes on disk. Raises: OSError."""
    listed = backups.listed()
    return FileStats(
        database_bytes=_size(places.database),
        log_bytes=_size(beside(places.database)[0]),
        n_backups=len(listed),
        backup_bytes=sum(_size(backup.path) for backup in listed),
        newest_backup=listed[-1].taken if listed else None,
        quarantine_bytes=sum(_size(path) for path in places.quarantine.rglob("*")),
        n_prefixes=sum(1 for path in places.prefixes.glob("*")),
        prefix_bytes=sum(_size(path) for path in places.prefixes.glob("*")),
        recording_bytes=sum(_size(path) for path in places.recordings.glob("*")),
    )


def database(conn: Connection) -> dict[str, Any]:
    """Further facts: free space inside the file, owners, and whether the clock is doubted."""
    seen = clock.remembered(conn)
    page = int(scalar(conn, "pragma page_size"))  # SQLCipher answers in text
    return {
        "free_bytes": int(scalar(conn, "pragma freelist_count")) * page,
        "n_owners": scalar(
            conn,
            "select count(*) from (select owner from conversation union select owner from response "
            "union select owner from item union select owner from transcript "
            "union select owner from request)",
        ),
        "clock_doubt": seen.doubt if seen else None,
    }


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
