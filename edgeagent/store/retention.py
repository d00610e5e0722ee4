"""How long data is kept, and the sweep that deletes older data, a few rows at a time.

    read the clock; while it is doubted nothing is deleted (store/clock.py), except before serving: what
        was over its age already at a time that has certainly passed
    for each class with an age: delete what is older and not under legal hold, in short transactions
    clean up the remains of deleted rows (store/row_deletion.py)

Classes: `content` is the text of items and responses, without their rows, and what was computed of system
prompts, counted from its last use; `responses` are stored responses
and conversations with everything in them, counted from a conversation's last change; `transcripts` include
their segments and jobs; `recordings` are the stored audio of jobs; `requests` (with the decisions of
routes), `feedback` and `audit` are rows on their own; `batches` are files of requests, their answers and the
batches that have ended; `knowledge` are vector stores, counted from their last use, and documents in none.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edgeagent.store import audit, batches, clock, row_deletion
from edgeagent.store.clock import EVERYDAY, Clock, ClockBounds, ClockJudgement, Doubt
from edgeagent.store.ownership import HELD
from edgeagent.store.row_deletion import BATCH, Store, key_of
from edgeagent.store.sql import Connection, marks, scalar

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
INTERVAL_S = 3600.0
SWEPT = "swept"  # a checkpoint: when the last sweep finished, UTC milliseconds
AUDIT_BATCH = 10_000  # each cut of the chain costs a row
CLASSES = (
    "content", "recordings", "transcripts", "responses", "batches", "knowledge", "feedback", "requests",
    "audit",
)  # fmt: skip
_DATED = {
    "conversation": ("created_ms", "updated_ms"),
    "response": ("created_ms",),
    "item": ("created_ms",),
    "transcript": ("created_ms",),
    "audio_job": ("created_ms", "updated_ms"),
    "recording": ("created_ms",),
    "feedback": ("created_ms",),
    "request": ("created_ms",),
    "decision": ("created_ms",),
    "batch_file": ("created_ms",),
    "batch": ("created_ms",),
    "document": ("created_ms",),
    "vector_store_file": ("created_ms",),
    "vector_store": ("created_ms", "used_ms"),
    "warm_prefix": ("made_ms", "used_ms"),
}
_WITH_CONTENT = (
    "conversation",
    "response",
    "item",
    "transcript",
    "recording",
    "batch_file",
    "batch",
    "document",
    "vector_store",
)

_OLD_CONVERSATIONS = (
    f"select id from conversation where updated_ms < :before and not {HELD['conversation']}"
)
_OLD_RESPONSES = f"""select id from response where not {HELD["response"]} and (
    (conversation_id is null and created_ms < :before)
    or conversation_id in ({_OLD_CONVERSATIONS}))"""
# A batch that has not ended keeps its files.
_OPEN_BATCH = ", ".join(f"'{status}'" for status in batches.OPEN)
_OLD_BATCHES = f"""created_ms < :before and status not in ({_OPEN_BATCH})
    and not {HELD["batch"]}"""
_OLD_FILES = f"""select id from batch_file where created_ms < :before and not {HELD["batch_file"]}
    and not exists (select 1 from batch b
    where batch_file.id in (b.input_file_id, b.output_file_id, b.error_file_id)
    and b.status in ({_OPEN_BATCH}))"""
_OLD_TRANSCRIPTS = "select id from transcript where created_ms < :before and not is_held"

_OLD_STORES = "select n from vector_store where used_ms < :before and not is_held"
_OLD_STORE_FILES = f"select n from vector_store_file where store_n in ({_OLD_STORES})"
_OLD_DOCUMENTS = f"""select id from document where created_ms < :before and not {HELD["document"]}
    and not exists (select 1 from vector_store_file f where f.document_id = document.id)"""


@dataclass(frozen=True)
class DeletionStep:
    """Rows of one table that a class deletes. `is_content`: delete only their content."""

    table: str
    where: str
    is_content: bool = False


STEPS: Mapping[str, tuple[DeletionStep, ...]] = {
    "content": (
        DeletionStep(
            "item",
            f"""created_ms < :before and not {HELD["item"]} and exists
            (select 1 from item_content where item_rowid = item.rowid)""",
            is_content=True,
        ),
        DeletionStep(
            "response",
            f"""created_ms < :before and not {HELD["response"]} and exists
            (select 1 from response_content where response_id = response.id)""",
            is_content=True,
        ),
        DeletionStep("warm_prefix", "used_ms < :before"),
    ),
    "recordings": (
        DeletionStep(
            "recording",
            """created_ms < :before and not exists (select 1 from audio_job j
            join transcript t on t.id = j.transcript_id where j.id = recording.id and t.is_held)""",
        ),
    ),
    "transcripts": (
        DeletionStep("segment", f"transcript_id in ({_OLD_TRANSCRIPTS})"),
        DeletionStep("transcript", f"id in ({_OLD_TRANSCRIPTS})"),
    ),
    "responses": (
        DeletionStep(
            "item",
            f"""not {HELD["item"]} and (conversation_id in ({_OLD_CONVERSATIONS})
            or response_id in ({_OLD_RESPONSES})
            or (conversation_id is null and response_id is null and created_ms < :before))""",
        ),
        DeletionStep("response", f"id in ({_OLD_RESPONSES})"),
        DeletionStep("conversation", f"id in ({_OLD_CONVERSATIONS})"),
    ),
    "batches": (
        DeletionStep("batch_line", f"file_id in ({_OLD_FILES})"),
        DeletionStep("batch_file", f"id in ({_OLD_FILES})"),
        DeletionStep("batch", _OLD_BATCHES),
    ),
    "knowledge": (
        DeletionStep("chunk", f"file_n in ({_OLD_STORE_FILES})"),
        DeletionStep("vector_store_file", f"n in ({_OLD_STORE_FILES})"),
        DeletionStep("vector_store", f"n in ({_OLD_STORES})"),
        DeletionStep("document_part", f"document_id in ({_OLD_DOCUMENTS})"),
        DeletionStep("document", f"id in ({_OLD_DOCUMENTS})"),
    ),
    "feedback": (DeletionStep("feedback", f"created_ms < :before and not {HELD['feedback']}"),),
    "requests": (
        DeletionStep("request", "created_ms < :before"),
        DeletionStep("decision", "created_ms < :before"),
    ),
}


@dataclass(frozen=True)
class Purge:
    """Delete the rows of a class from before a time."""

    kind: str
    before_ms: int


@dataclass
class SweepResult:
    """What a sweep did. `doubt`: why it did not trust the clock."""

    doubt: Doubt | None = None
    wait_s: float | None = None
    deleted: Counter[str] = field(default_factory=Counter)
    n_redated: int = 0
    is_clean: bool = True
    owners: set[str] = field(default_factory=set)  # whose content was deleted


def plan(now_ms: int, days: Mapping[str, float]) -> list[Purge]:
    """What is due at `now_ms`. Pure. `days`: age of each class; 0 keeps it for ever."""
    return [
        Purge(kind, now_ms - int(days[kind] * DAY_MS)) for kind in CLASSES if days.get(kind, 0) > 0
    ]


class Sweeper:
    """Enforces the retention ages of a store. One thread at a time; `due_in_s` uses the monotonic clock."""

    def __init__(
        self, store: Store, key: bytes, days: Mapping[str, float], clock: Clock,
        *, bounds: ClockBounds = EVERYDAY, monotonic: Callable[[], float] = time.monotonic,
        interval_s: float = INTERVAL_S, should_stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._store = store
        self._key = key
        self._days = days
        self._clock = clock
        self._bounds = bounds
        self._monotonic = monotonic
        self._interval_s = interval_s
        self._should_stop = should_stop
        self._due = monotonic()
        self._told: Doubt | None = None

    def due_in_s(self) -> float:
        """Seconds until the next sweep; 0 when one is due."""
        return max(0.0, self._due - self._monotonic())

    def is_overdue(self) -> bool:
        """Whether this database was not swept for two intervals, or was swept in the future of this clock."""
        if not plan(0, self._days):
            return False
        at_ms = int(self._store.read(last_swept_ms))
        return not 0 <= self._clock.read().wall_ms - at_ms <= 2000 * self._interval_s

    def sweep(self, *, is_brief: bool = False) -> SweepResult:
        """Read the clock and delete what is due. Blocks, in steps between which other writers can run.

        `is_brief`, before serving: while the clock is doubted, ages count up to the latest trusted time
        (an older copy of the database makes a correct clock look doubtful); the next sweep cleans up the
        remains. Raises: what the store raises; the next sweep continues from there.
        """
        self._due = self._monotonic() + self._interval_s
        judgement, floor_ms = self._look()
        swept = SweepResult(judgement.doubt, judgement.wait_s)
        now_ms = judgement.remember.wall_ms if judgement.doubt is None else floor_ms
        if judgement.doubt is None or (is_brief and now_ms):
            self._write(row_deletion.prepare)
            if judgement.may_redate:
                latest = now_ms + int(self._bounds.ahead_s * 1000)
                swept.n_redated = self._write(partial(redate, now_ms=now_ms, latest_ms=latest))
            for purge in plan(now_ms, self._days):
                self._carry_out(purge, swept)
            if judgement.doubt is None and not self._should_stop():
                self._write(partial(_keep_swept, now_ms=now_ms))
        if not is_brief and not self._should_stop() and self._store.read(row_deletion.marked):
            swept.is_clean = row_deletion.clean(self._store)
        if swept.deleted or swept.n_redated:
            told = " ".join(f"{kind}={n}" for kind, n in sorted(swept.deleted.items()))
            logger.info("retention_swept redated=%d %s", swept.n_redated, told)
        return swept

    def _look(self) -> tuple[ClockJudgement, int]:
        # Read the rows before the clock: a row written in between must not seem to be from the future.
        newest = self._store.read(newest_row_ms)
        reading = self._clock.read()
        found, floor = self._store.read(
            partial(clock.look, now=reading, newest_row_ms=newest, bounds=self._bounds)
        )
        self._write(partial(clock.keep, judgement=found, floor=floor))
        if found.doubt != self._told:
            self._told = found.doubt
            if found.doubt is not None:
                wait_s = -1 if found.wait_s is None else found.wait_s
                logger.warning("retention_waits doubt=%s wait_s=%.0f", found.doubt, wait_s)
        return found, floor

    def _carry_out(self, purge: Purge, swept: SweepResult) -> None:
        is_first = True
        for batch in _batches(purge, self._key):
            after: Any = None
            while not self._should_stop():
                done, after, owners = self._write(partial(batch, after=after, is_first=is_first))
                if not done:
                    break
                is_first = False
                swept.deleted.update(done)
                swept.owners |= owners

    def _write(self, fn: Callable[[Any], Any]) -> Any:
        return self._store.write(fn, essential=True).result()


def last_swept_ms(conn: Connection) -> int:
    """When the last sweep of this database finished; 0 before the first."""
    return int(scalar(conn, "select body from checkpoint where name = ?", (SWEPT,)) or 0)


def _keep_swept(conn: Connection, *, now_ms: int) -> None:
    conn.execute("insert or replace into checkpoint values (?, ?)", (SWEPT, str(now_ms)))


def newest_row_ms(conn: Connection) -> int | None:
    """The latest time on any row made by a client or the audit."""
    found = [
        scalar(conn, f"select max({columns[-1]}) from {table}") for table, columns in _DATED.items()
    ]
    found.append(scalar(conn, "select utc_ms from audit order by seq desc limit 1"))
    return max((ms for ms in found if ms is not None), default=None)


def redate(conn: Connection, *, now_ms: int, latest_ms: int) -> int:
    """Set rows from the future to now: a wrong clock made them, and they would be kept for years.

    Audit rows stay unchanged; they are immutable. Returns how many rows were changed.
    """
    n_rows = 0
    for table, columns in _DATED.items():
        for column in columns:
            sql = f"update {table} set {column} = ? where {column} > ?"
            n_rows += int(conn.execute(sql, (now_ms, latest_ms)).rowcount)
    return n_rows


Batch = Callable[
    ..., tuple[Counter[str], Any, set[str]]
]  # deleted rows, the last key, owners of the content


def _batches(purge: Purge, key: bytes) -> Iterator[Batch]:
    if purge.kind == "audit":
        yield partial(_purge_audit, purge=purge, key=key)
    for step in STEPS.get(purge.kind, ()):
        yield partial(_purge_step, purge=purge, key=key, step=step)


def _purge_audit(
    conn: Connection, *, purge: Purge, key: bytes, after: Any, is_first: bool
) -> tuple[Counter[str], Any, set[str]]:
    n_rows = audit.purge(conn, key, purge.before_ms, AUDIT_BATCH)
    return Counter({"audit": n_rows}) if n_rows else Counter(), None, set()


def _purge_step(
    conn: Connection, *, purge: Purge, key: bytes, step: DeletionStep, after: Any, is_first: bool
) -> tuple[Counter[str], Any, set[str]]:
    """Delete the next rows of a step, with keys after `after`. The first deletion of a class in a sweep is
    audited with it."""
    row_key = key_of(step.table)
    behind = "" if after is None else f"and {row_key} > :after"
    found = conn.execute(
        f"select {row_key} from {step.table} where ({step.where}) {behind} "
        f"order by {row_key} limit {BATCH}",
        {"before": purge.before_ms} | ({} if after is None else {"after": after}),
    ).fetchall()
    ids = [row[0] for row in found]
    if not ids:
        return Counter(), None, set()
    owners = set()
    if step.table in _WITH_CONTENT:
        sql = f"select distinct owner from {step.table} where {row_key} in ({marks(len(ids))})"
        owners = {row[0] for row in conn.execute(sql, ids).fetchall()}
    remove = row_deletion.delete_content if step.is_content else row_deletion.delete
    done = remove(conn, step.table, ids)
    row_deletion.mark(conn)
    if is_first:
        what = f"{purge.kind} before {purge.before_ms}"
        audit.append(conn, key, actor="system", action="retention.purge", object=what)
    return done, ids[-1], owners
