"""`edgeagent data copy`: the data of an owner, conversation or subject as a plain SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeagent.cli.shared.options import settings_options
from edgeagent.cli.shared.progress import row_progress
from edgeagent.cli.shared.read_only_store import ReadableStore, reading
from edgeagent.cli.shared.row_output import Row
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.store import selected, selector_options
from edgeagent.durable import sync_file, sync_folder
from edgeagent.errors import InvalidParameter
from edgeagent.store.sql import now_ms
from edgeagent.types.version import VERSION

if TYPE_CHECKING:
    from sqlite_utils import Database as SqliteUtils

BATCH_ROWS = 20  # held in memory at a time; one may have megabytes
ABOUT = "edgeagent_copy"  # the table that says what the file is
_TYPES: dict[str, type] = {"TEXT": str, "INTEGER": int, "REAL": float, "BLOB": bytes}
WARNING = (
    "NOT ENCRYPTED: everyone who can read {out} can read the data, and neither `data erase` nor retention "
    "deletes it. Delete the file when it is no longer needed."
)


@click.command()
@click.argument("out", metavar="OUT.db", type=click.Path(path_type=Path, dir_okay=False))
@selector_options
@settings_options
def copy(
    config: Path | None, out: Path, owner: str | None, conversation: str | None, subject: str | None,
    **flags: Any,
) -> None:  # fmt: skip
    """Copy the selected data into OUT.db, a plain SQLite file that is NOT ENCRYPTED.

    Every tool for SQLite can open it: sqlite3, sqlite-utils, Datasette. It is a consistent copy with the
    tables and columns of `edgeagent data schema` and the table edgeagent_copy, which tells whose data it
    is. OUT.db must not exist; only you can read it. The copy is recorded in the audit.

    \b
        edgeagent data copy --subject patient-17 patient-17.db
        sqlite3 patient-17.db "select plain from item_content"
    """
    who = selected(owner, conversation, subject)
    if out.exists() or out.is_symlink():
        raise InvalidParameter(f"File {out} exists and is not overwritten: give another name.")
    with (
        reading(config, flags, who, "data.copy") as store,
        row_progress() as tell,
        _new_file(out) as draft,
    ):
        n_rows = _fill(draft, store, tell)
    size = megabytes(out.stat().st_size)
    click.echo(f"Wrote {out} ({size}, {n_rows} rows of {store.scope})")
    click.secho(WARNING.format(out=out), fg="red", bold=True, err=True)


def _fill(draft: Path, store: ReadableStore, tell: Callable[[str, int, int | None], None]) -> int:
    """Write every table of the selection. Gives the number of rows. Raises: sqlite3.Error."""
    from sqlite_utils import Database as SqliteUtils

    names = list(store.views.columns)
    total = sum(store.n_rows(name) for name in names)
    target = SqliteUtils(draft, recursive_triggers=False, execute_plugins=False)
    try:
        # The file is renamed when complete, so it needs no journal, which would be unencrypted, too.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        for name in names:
            _copy_table(target, store, name, lambda n: tell("copy", n, total))
        target.table(ABOUT).insert(_about(store, total))
    finally:
        target.close()
    return total


def _copy_table(
    target: SqliteUtils, store: ReadableStore, name: str, tell: Callable[[int], None]
) -> None:
    columns = store.views.columns[name]
    keys = tuple(column.name for column in columns if column.is_key)
    target.table(name).create(
        {column.name: _TYPES[column.kind] for column in columns},
        pk=keys[0] if len(keys) == 1 else keys or None,
        foreign_keys=[
            (column.name, *column.refers_to)
            for column in columns
            if column.refers_to is not None and column.refers_to[0] != name
        ],
    )

    def told() -> Iterator[Row]:
        for row in store.run(f'select * from "{name}"'):
            yield row
            tell(1)

    target.table(name).insert_all(told(), batch_size=BATCH_ROWS)


def _about(store: ReadableStore, n_rows: int) -> Row:
    assert store.who is not None
    return {
        "what": store.scope, **dict.fromkeys(("owner", "conversation", "subject")),
        **store.who.values(), "n_rows": n_rows, "copied_ms": now_ms(), "made_by": f"edgeagent {VERSION}",
    }  # fmt: skip


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """An empty file, readable by its owner only; renamed to `out` at the end of the block, deleted on an
    error.

    Raises: InvalidParameter if it cannot be written, or `out` was created meanwhile.
    """
    draft = out.with_name(f".{out.name}.part")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        yield draft
        sync_file(draft)
        _name(draft, out)
        sync_folder(out.parent)
    except (OSError, sqlite3.Error) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise InvalidParameter(
            f"File {out} cannot be written: {why}. Give a writable path with enough space."
        ) from exc
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _name(draft: Path, out: Path) -> None:
    try:
        out.hardlink_to(draft)  # fails where there is such a file by now
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as that of a stick
        draft.replace(out)
