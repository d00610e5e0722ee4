"""The store for commands that read it with SQL: read-only, audited, with translated errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeagent.cli.keys import actor
from edgeagent.cli.shared.options import configured
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.row_output import Row
from edgeagent.cli.shared.store import StoreSession, opened, selected
from edgeagent.errors import BadRequest, EdgeAgentError, Forbidden, NotFound, StoreUnusable
from edgeagent.store import audit, audit_anchor, ownership
from edgeagent.store.connection import (
    SqliteError,
    SqliteWarning,
    is_damage,
    is_storage,
    translate,
)
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.erasure import label
from edgeagent.store.ownership import Selector
from edgeagent.store.query_views import MOST_HEAP_BYTES, QueryViews, open_views
from edgeagent.store.sql import Connection, scalar

if TYPE_CHECKING:
    from sqlite_utils import Database as SqliteUtils

_REFUSALS = (
    "not authorized", "is prohibited", "readonly database", "cannot modify", "vtable constructor",
)  # fmt: skip


@dataclass(frozen=True)
class ReadableStore:
    """A consistent state of the store, limited to a selection (None: everything). For one thread."""

    who: Selector | None
    views: QueryViews
    db: SqliteUtils

    @property
    def scope(self) -> str:
        """Whose data this is, in words."""
        return self.who.named() if self.who is not None else "every owner and subject"

    def run(self, sql: str, values: Mapping[str, str] | None = None) -> Iterator[Row]:
        """The rows of a SELECT, one by one; columns with equal names become `id`, `id_2`.

        Raises: BadRequest for invalid SQL, Forbidden for anything but reading the readable tables,
        StoreError for disk errors.
        """
        try:
            yield from self.db.query(sql, dict(values or {}))
        except (SqliteError, SqliteWarning, ValueError, OverflowError, MemoryError) as exc:
            raise _translated(exc, self.views.path) from exc

    def n_rows(self, table: str) -> int:
        """The number of rows of a table in this selection."""
        (found,) = self.run(f'select count(*) as n from "{table}"')
        return int(found["n"])

    def refuse_unknown(self, table: str) -> None:
        """Raises: BadRequest if there is no such table, or the selection has no rows in it."""
        if table not in self.views.columns:
            names = ", ".join(self.views.columns)
            raise BadRequest(
                f"There is no table {printable(table[:60])!r} of {self.scope}: use {names}."
            )


def _translated(exc: Exception, path: Path) -> EdgeAgentError | click.Abort:
    text = printable(str(exc)[:200])
    if text == "interrupted":  # Ctrl-C inside SQLite
        return click.Abort()
    if (is_storage(exc) and "readonly" not in text) or is_damage(exc):
        return translate(exc, path)
    if isinstance(exc, MemoryError) or text == "out of memory":
        return BadRequest(
            f"The statement needs more than {MOST_HEAP_BYTES >> 20} MiB of memory: select fewer or "
            "shorter values, or sort less."
        )
    if any(refusal in text for refusal in _REFUSALS) or "returns rows" in text:
        why = "it returns no rows" if "returns rows" in text else text
        return Forbidden(
            f"The statement is refused ({why}): only one SELECT on the tables of `edgeagent data tables` "
            "is allowed."
        )
    return BadRequest(
        f"The SQL is invalid ({text}): `edgeagent data schema` shows tables and columns."
    )


def selected_or_all(
    owner: str | None, conversation: str | None, subject: str | None
) -> Selector | None:
    """The selection of the options; None without any of them: all data."""
    if owner is None and conversation is None and subject is None:
        return None
    return selected(owner, conversation, subject)


@contextmanager
def reading(
    config: Path | None, flags: dict[str, Any], who: Selector | None, action: str, *, what: str = "",
    sql: str | None = None,
) -> Iterator[ReadableStore]:  # fmt: skip
    """Open the store for reading. Works beside a running daemon, whose write-ahead log cannot shrink
    meanwhile.

    The audit records it before anything is read: `action`, whose data, `what`, and a keyed digest of `sql`,
    which may name people. Raises: StoreUnusable if there is no store; NotFound if nothing is stored for
    `who`; what opening the store raises.
    """
    from sqlite_utils import (
        Database as SqliteUtils,
    )  # slow to import, and other commands do not need it

    files = StoreFiles(configured(config, **flags).settings.store_dir)
    if not files.database.exists():
        raise StoreUnusable(
            f"There is no store in {files.folder}: give the daemon's state directory with --state-dir."
        )
    with opened(config, flags) as here:
        if who is not None and not here.database.read(lambda conn: _is_any(conn, who)):
            raise NotFound(f"Nothing is stored for {who.named()}: check the spelling.")
        _audit(here, action, who, what, sql)
        secret = here.database.secret
        views = open_views(here.database.files.database, secret.raw if secret else None, who)
        try:
            # No plugins of sqlite-utils: they would get the decrypted connection.
            db = SqliteUtils(views.db.conn, recursive_triggers=False, execute_plugins=False)
            yield ReadableStore(who, views, db)
        finally:
            views.close()


def _is_any(conn: Connection, who: Selector) -> bool:
    if any(ownership.counts(conn, who).values()):
        return True
    sql = "select 1 from key where owner = :owner limit 1"
    return who.is_whole_owner and scalar(conn, sql, who.values()) is not None


def _audit(
    here: StoreSession, action: str, who: Selector | None, what: str, sql: str | None
) -> None:
    key = here.audit_key
    whose = "store" if who is None else label(key, who)
    digest = audit.pseudonym(key, "sql", sql) if sql is not None else ""
    named = " ".join(filter(None, (whose, what, digest)))
    here.database.write(
        lambda conn: audit.append(conn, key, actor=actor(), action=action, object=named),
        essential=True,
    ).result()
    audit_anchor.publish_done(here.database, key, here.anchor)
