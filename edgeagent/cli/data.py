"""`edgeagent data`: show, export, erase, hold, back up and restore the data stored on this device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from rich.table import Table

from edgeagent.cli.data_copy import copy
from edgeagent.cli.data_erase import erase
from edgeagent.cli.data_query import query, rows, schema, tables
from edgeagent.cli.keys import actor
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.cli.shared.progress import row_progress
from edgeagent.cli.shared.sizes import megabytes
from edgeagent.cli.shared.store import (
    is_in_use,
    opened,
    selected,
    selector_options,
    sink,
    when,
)
from edgeagent.cli.shared.terminal import confirm, show_table
from edgeagent.errors import BackupFailed, NotFound, StoreUnusable
from edgeagent.settings import Settings
from edgeagent.store import (
    audit,
    audit_anchor,
    data_stats,
    export,
    journal_progress,
    journal_replay,
    ownership,
    recovery,
)
from edgeagent.store.backup import Backups
from edgeagent.store.database_files import StoreFiles, StoreLock
from edgeagent.store.erasure import label, n_rows
from edgeagent.store.ownership import Selector
from edgeagent.store.sql import Connection, now_ms
from edgeagent.store.store_key import Seal, obtain


@click.group()
def data() -> None:
    """Show, query, copy, export, erase, hold, back up and restore the data stored on this device.

    All commands but `restore` work while the daemon runs. --owner, --conversation and --subject select
    whose data; together they select what matches all of them.
    """


for command in (tables, rows, query, schema, copy, erase):
    data.add_command(command)


@data.command("stats")
@settings_options
def stats_(config: Path | None, **flags: Any) -> None:
    """Show sizes, counts and ages of the stored data, by retention class."""
    with opened(config, flags) as here:
        found = here.database.read(data_stats.classes)
        facts = here.database.read(data_stats.database)
        files = data_stats.files(here.database.files, here.database.backups)
        days = here.settings.store.retention.days
    table = Table(
        "class", "rows", "text", "oldest", "newest", "held", "kept", box=None, pad_edge=False
    )
    for one in found:
        kept = f"{days[one.kind]:g} days" if days[one.kind] else "for ever"
        text = megabytes(one.text_bytes) if one.text_bytes else ""
        table.add_row(
            one.kind, str(one.n_rows), text, when(one.oldest_ms), when(one.newest_ms),
            str(one.n_held or ""), kept,
        )  # fmt: skip
    show_table(table)
    click.echo(
        f"database {megabytes(files.database_bytes)} ({megabytes(facts['free_bytes'])} free inside), "
        f"log {megabytes(files.log_bytes)}, owners {facts['n_owners']}"
    )
    newest = f", the newest of {files.newest_backup}" if files.newest_backup else ""
    click.echo(f"backups {files.n_backups} ({megabytes(files.backup_bytes)}){newest}")
    if files.n_prefixes:
        click.echo(
            f"KV cache of conversations and system prompts: {files.n_prefixes} files "
            f"({megabytes(files.prefix_bytes)})"
        )
    if files.recording_bytes:
        click.echo(f"audio of transcription jobs: {megabytes(files.recording_bytes)}")
    if files.quarantine_bytes:
        click.echo(f"quarantined as damaged: {megabytes(files.quarantine_bytes)}")
    if facts["clock_doubt"]:
        click.echo(f"retention is paused, because the clock may be wrong: {facts['clock_doubt']}")


@data.command("export")
@selector_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write a new file instead of standard output.")  # fmt: skip
@settings_options
def export_(
    config: Path | None, owner: str | None, conversation: str | None, subject: str | None,
    out: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Write all data of an owner, conversation or subject as one JSON document, with its metadata."""
    selector = selected(owner, conversation, subject)
    with opened(config, flags) as here, row_progress() as tell:
        total = here.database.read(partial(n_rows, selector=selector))
        if not total:
            raise NotFound(f"Nothing is stored for {selector.named()}: check the spelling.")
        with sink(out) as write:
            # One read: the document is one state of the database.
            here.database.read(
                lambda conn: export.write(
                    conn, selector, now_ms(), write, lambda n: tell("export", n, total)
                )
            )
        _audit(here.database, here.audit_key, "data.export", selector)
        audit_anchor.publish_head(here.database, here.audit_key, here.anchor)
    if out is not None:
        click.echo(f"Wrote {out} ({megabytes(out.stat().st_size)}, {total} rows)")


@data.command()
@selector_options
@settings_options
def hold(
    config: Path | None, owner: str | None, conversation: str | None, subject: str | None,
    **flags: Any,
) -> None:  # fmt: skip
    """Put the selected data under legal hold: neither retention nor erasure deletes it."""
    _set_hold(config, flags, selected(owner, conversation, subject), is_held=True)


@data.command()
@selector_options
@settings_options
def release(
    config: Path | None, owner: str | None, conversation: str | None, subject: str | None,
    **flags: Any,
) -> None:  # fmt: skip
    """End a legal hold. The next retention run deletes what is over its age."""
    _set_hold(config, flags, selected(owner, conversation, subject), is_held=False)


@data.command()
@settings_options
def backup(config: Path | None, **flags: Any) -> None:
    """Make a backup of the database, encrypted with its key, and verify it. The oldest backup is deleted.

    A backup opens only with the key that made it: keep a copy of that key elsewhere.
    """
    with opened(config, flags) as here, row_progress() as tell:
        tell("backup", 0, None)
        made = here.database.backups.take()
        size = made.path.stat().st_size
    click.echo(f"Backup {made.path} ({megabytes(size)}) is made and verified.")


@data.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
def restore(config: Path | None, file: Path | None, yes: bool, **flags: Any) -> None:
    """Replace the database with the backup FILE. Default: the newest intact backup.

    The daemon must not run. The old database moves to the store's quarantine folder; data stored after
    the backup is only there. Later revocations, erasures and deletions are applied again, and the daemon
    deletes what is over its age before it answers.
    """
    settings = configured(config, **flags).settings
    if is_in_use(settings):
        raise StoreUnusable(
            f"Store {settings.store_dir} is in use, a restore needs exclusive access: stop the daemon first."
        )
    if file is not None and not file.is_file():
        raise BackupFailed(
            f"There is no file {file}: `edgeagent data stats` counts the backups here."
        )
    confirm("Data stored after the backup will be moved to quarantine. Restore?", yes=yes)
    click.echo(_restore(settings, file))
    with opened(config, flags) as here:
        for notice in here.database.notices:
            click.echo(notice.message)
        if (why := here.database.read(here.database.rollback_detector.refusal)) is not None:
            click.echo(f"The daemon will stay locked. {why}", err=True)
        _audit(here.database, here.audit_key, "data.restore", None)
        # The backup's audit is older than the anchor, as intended here.
        audit_anchor.publish_head(here.database, here.audit_key, here.anchor, is_restored=True)


def _restore(settings: Settings, file: Path | None) -> str:
    """Raises: BackupFailed, StoreUnusable, KeyUnusable."""
    files = StoreFiles(settings.store_dir)
    try:
        files.make()
        secret = obtain(settings)
        seal = Seal.read(files.seal)
        if seal is not None:
            seal.refuse_other(secret, files.folder)
        backups = Backups(files, secret.raw if secret else None, settings.store.n_backups)
        lock = StoreLock(files.folder)
        try:
            if not lock.take():
                raise StoreUnusable(f"Store {files.folder} is in use: stop the daemon first.")
            newest = None if file is not None else backups.newest_sound()
            chosen = file or (newest.path if newest else None)
            if chosen is None:
                raise BackupFailed(f"No backup in {files.backups} is intact: give another FILE.")
            return recovery.restore(files, backups, chosen).message
        finally:
            lock.close()
    except OSError as exc:
        raise BackupFailed(f"The backup cannot be restored: {exc}. Check the disk.") from exc


def _set_hold(
    config: Path | None, flags: dict[str, Any], selector: Selector, *, is_held: bool
) -> None:
    kind: Literal["hold", "release"] = "hold" if is_held else "release"
    with opened(config, flags) as here:
        found = here.database.read(partial(ownership.counts, selector=selector))
        if not any(found[table] for table in ownership.HOLDABLE):
            raise NotFound(
                f"Nothing that can be held is stored for {selector.named()}: check the spelling."
            )
        journal = here.database.journal
        entered = journal.append(kind, journal_replay.selector_entry(journal, selector))

        def change(conn: Connection) -> dict[str, int]:
            changed = ownership.set_hold(conn, selector, is_held)
            journal_progress.mark_applied(conn, entered, entered.head.n)
            audit.append(
                conn, here.audit_key, actor=actor(), action=f"data.{kind}",
                object=label(here.audit_key, selector),
            )  # fmt: skip
            return changed

        changed = here.database.write(change, essential=True).result()
        audit_anchor.publish_done(here.database, here.audit_key, here.anchor)
    told = ", ".join(f"{n} of {table}" for table, n in changed.items() if n) or "nothing new"
    click.echo(f"{'Held' if is_held else 'Released'}: {told}.")


def _audit(database: Any, key: bytes, action: str, selector: Selector | None) -> None:
    what = "store" if selector is None else label(key, selector)
    database.write(
        lambda conn: audit.append(conn, key, actor=actor(), action=action, object=what),
        essential=True,
    ).result()
