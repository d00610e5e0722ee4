"""The request log: which model each request used and how it went. Counts and times, never content.

Rows are collected in memory and written together: losing a few of them in a crash does no harm, while a
commit for each would wear the SD card.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec

from edgeagent.errors import EdgeAgentError
from edgeagent.store import decisions, erasure_epochs
from edgeagent.store.connection import StoreConnection
from edgeagent.store.database import Database
from edgeagent.store.decisions import DecisionRow
from edgeagent.store.erasure_epochs import ContentOrigin, Pseudonym
from edgeagent.store.row_queries import fetch

logger = logging.getLogger(__name__)

# The most rows that wait, if the disk stays full.
MAX_WAITING = 4096
ENOUGH = 256
MAX_OWNERS = 1024  # whose deletions are remembered one by one


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One finished request. Times in milliseconds, `created_ms` UTC; None: unknown.

    `route` is the reason for the model. `route_name` is the route that the request named, None where it named
    a model or none, and `rule` the rule that matched. `decision` becomes a row of its own
    (store/decisions.py). `traceparent` is the client's W3C trace context, which is not stored. `seen`: the
    newest erasure when the request came (store/erasure_epochs.py); the log sets it.
    """

    id: str
    owner: str
    key_id: str | None
    endpoint: str
    model: str
    route: str
    status: int
    finish: str | None
    n_prompt: int
    n_cached: int
    n_generated: int
    queue_ms: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    total_ms: float
    created_ms: int
    energy_j: float | None = None
    audio_s: float | None = None
    route_name: str | None = None
    rule: str | None = None
    decision: DecisionRow | None = None
    traceparent: str | None = None
    seen: int | None = None


_NOT_COLUMNS = {"decision", "traceparent", "seen"}
_COLUMNS = tuple(name for name in RequestRow.__struct_fields__ if name not in _NOT_COLUMNS)
_INSERT = (
    f"insert or ignore into request ({', '.join(_COLUMNS)}) "
    f"values ({', '.join(':' + name for name in _COLUMNS)})"
)


def insert(db: StoreConnection, rows: list[RequestRow]) -> None:
    for row in rows:
        db.execute(_INSERT, {name: getattr(row, name) for name in _COLUMNS})
        if row.decision is not None:
            decisions.insert(db, row.decision)


def unerased(db: StoreConnection, pseudonym: Pseudonym, rows: list[RequestRow]) -> list[RequestRow]:
    """The rows without those, and without the decisions, whose data was erased since their requests came.
    Call it in the transaction that inserts them: they may have waited through the deletions."""

    def is_erased(row: RequestRow, about: DecisionRow | None) -> bool:
        subjects = [about.subject] if about is not None and about.subject else []
        conversation = about.conversation_id if about is not None else None
        origin = ContentOrigin(row.seen, row.owner, subjects, conversation)
        return erasure_epochs.is_erased(db, pseudonym, origin)

    return [
        msgspec.structs.replace(row, decision=None)
        if row.decision is not None and is_erased(row, row.decision)
        else row
        for row in rows
        if not is_erased(row, None)
    ]


def usage(
    db: StoreConnection, owner: str | None, *, since_ms: int, until_ms: int
) -> list[dict[str, Any]]:
    """Requests and tokens by day (UTC) and model, of one owner or of all.

    `ttft_ms` is the mean over requests that had a first token; failed ones have a status of 400 or above.
    """
    whose = "and owner = :owner" if owner is not None else ""
    return fetch(
        db,
        "select strftime('%Y-%m-%d', created_ms / 1000, 'unixepoch') as day, model, "
        "count(*) as n_requests, sum(status >= 400) as n_failed, sum(n_prompt) as n_prompt, "
        "sum(n_cached) as n_cached, sum(n_generated) as n_generated, "
        "coalesce(sum(audio_s), 0.0) as audio_s, avg(ttft_ms) as ttft_ms, avg(tpot_ms) as tpot_ms, "
        "sum(energy_j) as energy_j "
        f"from request where created_ms >= :since and created_ms < :until {whose} "
        "group by day, model order by day, model",
        {"owner": owner, "since": since_ms, "until": until_ms},
    )


def routes(db: StoreConnection, *, since_ms: int) -> list[dict[str, Any]]:
    """Requests by route, rule, reason and model since a time, the most frequent first.

    `route_name` is null for requests that named a model or none.
    """
    return fetch(
        db,
        "select route_name, rule, route as reason, model, count(*) as n_requests, "
        "sum(status >= 400) as n_failed, sum(n_prompt) as n_prompt, sum(n_generated) as n_generated, "
        "avg(ttft_ms) as ttft_ms, avg(total_ms) as total_ms from request where created_ms >= :since "
        "group by route_name, rule, reason, model order by n_requests desc, route_name, rule, reason, model",
        {"since": since_ms},
    )


def key_tokens(
    db: StoreConnection, *, since_ms: int, slice_ms: int
) -> list[tuple[str, str, int, int, float]]:
    """Tokens and joules of each key and model since a time: key, model, UTC milliseconds, tokens, joules;
    summed by slices of time, oldest first."""
    found = db.execute(
        "select key_id, model, max(created_ms), sum(n_prompt + n_generated), "
        "coalesce(sum(energy_j), 0.0) from request "
        "where created_ms >= :since and key_id is not null "
        "group by key_id, model, created_ms / :slice order by max(created_ms)",
        {"since": since_ms, "slice": slice_ms},
    ).fetchall()
    return [(str(row[0]), str(row[1]), int(row[2]), int(row[3]), float(row[4])) for row in found]


def audio(db: StoreConnection, key_id: str, *, since_ms: int) -> list[tuple[int, float]]:
    """When each recording of a key was transcribed, UTC milliseconds, and its seconds."""
    found = db.execute(
        "select created_ms, audio_s from request where key_id = ? and created_ms >= ? "
        "and audio_s is not null and status = 200 order by created_ms",
        (key_id, since_ms),
    ).fetchall()
    return [(int(row[0]), float(row[1])) for row in found]


class RequestLog:
    """Collects rows and writes them every `flush_s`. Event loop's thread only."""

    def __init__(self, database: Database, flush_s: float) -> None:
        self._database = database
        self._flush_s = flush_s
        self._rows: list[RequestRow] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._deleted_s: dict[str, float] = {}  # by owner: when content was last deleted
        self._all_deleted_s = float("-inf")

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop(), name="request-log")

    def add(self, row: RequestRow) -> None:
        """Add a row, in the context of its request. If too many wait because the disk is full, the oldest
        are dropped."""
        is_deleted = row.decision is not None and self._is_deleted(row.decision)
        row = msgspec.structs.replace(
            row, seen=erasure_epochs.SEEN.get(), decision=None if is_deleted else row.decision
        )
        self._rows.append(row)
        del self._rows[:-MAX_WAITING]
        if len(self._rows) >= ENOUGH or self._flush_s == 0:
            self._wake.set()

    def has(self, owner: str, request_id: str) -> bool:
        """Whether this request of the owner waits to be written."""
        return any(row.id == request_id and row.owner == owner for row in self._rows)

    async def flush(self) -> None:
        """Write the waiting rows. Rows that cannot be written now stay, without their decisions, which have
        text."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        pseudonym = self._database.journal.pseudonym
        try:
            await self._database.write_async(lambda db: insert(db, unerased(db, pseudonym, rows)))
        except EdgeAgentError as exc:
            bare = [msgspec.structs.replace(row, decision=None) for row in rows]
            self._rows = bare + self._rows
            logger.debug("requests_not_written n=%s code=%s", len(rows), exc.code)

    def forget(self, owner: str | None) -> None:
        """Drop the unwritten rows of an owner (None: of everybody)."""
        self._rows = [row for row in self._rows if owner is not None and row.owner != owner]

    def forget_decisions(self, owner: str | None) -> None:
        """Drop the unwritten decisions of an owner (None: of everybody), also those of requests in progress:
        they may be about what was deleted."""
        now = time.monotonic()
        if owner is None or len(self._deleted_s) >= MAX_OWNERS:
            self._all_deleted_s = now
            self._deleted_s.clear()
        if owner is not None:
            self._deleted_s[owner] = now
        self._rows = [
            msgspec.structs.replace(row, decision=None)
            if row.decision is not None and self._is_deleted(row.decision)
            else row
            for row in self._rows
        ]

    def _is_deleted(self, row: DecisionRow) -> bool:
        deleted_s = max(self._all_deleted_s, self._deleted_s.get(row.owner, float("-inf")))
        return row.began_s <= deleted_s

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.flush()

    async def _loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._flush_s or None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.flush()
