"""`edgeagent audit`: show, export and verify the record of who did what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from edgeagent.cli.shared.options import settings_options
from edgeagent.cli.shared.store import opened, sink, when
from edgeagent.cli.shared.terminal import show_table
from edgeagent.store import audit as chain
from edgeagent.store import audit_anchor


@click.group()
def audit() -> None:
    """Show, export and verify the audit, a chain of rows in which every change is detected.

    Rows name objects and never hold content. Works while the daemon runs.
    """


@audit.command()
@click.option("-n", "n_rows", type=click.IntRange(1, 10_000), default=20, show_default=True,
              metavar="N", help="Number of rows.")  # fmt: skip
@settings_options
def show(config: Path | None, n_rows: int, **flags: Any) -> None:
    """Show the newest rows."""
    with opened(config, flags) as here:
        found = here.database.read(
            lambda conn: chain.page(
                conn, max(0, chain.head(conn, here.audit_key).seq - n_rows), n_rows
            )
        )
    table = Table("seq", "when", "who", "what", "object", box=None, pad_edge=False)
    for row in found:
        table.add_row(str(row.seq), when(row.utc_ms), row.actor, row.action, row.object)
    show_table(table)


@audit.command()
@click.option("--anchor", "anchors", multiple=True, metavar="SEQ:MAC",
              help="A head that you stored elsewhere; may be repeated.")  # fmt: skip
@settings_options
def verify(config: Path | None, anchors: tuple[str, ...], **flags: Any) -> int:
    """Find rows that were edited, deleted, reordered or cut off. Exit status 1: there are some.

    Compares the audit with the anchor file (setting store.audit_anchor) and with each --anchor: an
    `audit_head` line of the log, or the last line of an export. Without an anchor, an older copy of the
    whole database cannot be detected.
    """
    given = [audit_anchor.parse(text) for text in anchors]
    with opened(config, flags) as here:
        kept = audit_anchor.read(here.anchor)
        known = given + ([kept] if kept is not None else [])
        result = here.database.read(lambda conn: chain.verify(conn, here.audit_key, known))
    for problem in result.problems:
        click.echo(f"{problem.kind}: {problem.message}", err=True)
    if not result.is_sound:
        click.echo(f"The audit is NOT sound: {len(result.problems)} problems.", err=True)
        return 1
    span = f"{result.first_seq}-{result.head.seq}" if result.n_rows else "none"
    against = f"{len(known)} anchors" if len(known) != 1 else f"the anchor at row {known[0].seq}"
    click.echo(f"The audit is sound: {result.n_rows} rows ({span}), compared with {against}.")
    click.echo(f"head {audit_anchor.shown(result.head)}")
    return 0


@audit.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write a new file instead of standard output.")  # fmt: skip
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ",
              help="Only rows after this one.")  # fmt: skip
@settings_options
def export(config: Path | None, out: Path | None, after: int, **flags: Any) -> None:
    """Write the rows as JSON lines; the last line is the head, an anchor for `audit verify`."""
    with opened(config, flags) as here:
        with sink(out) as write:
            head = here.database.read(lambda conn: _export(conn, here.audit_key, after, write))
        audit_anchor.publish_head(here.database, here.audit_key, here.anchor)
    if out is not None:
        click.echo(f"Wrote {out}; head {audit_anchor.shown(head)}")


def _export(conn: Any, key: bytes, after: int, write: Any) -> chain.AuditHead:
    for row in chain.rows(conn, after):
        write(json.dumps(row.shown(), ensure_ascii=False).encode() + b"\n")
    head = chain.head(conn, key)
    write(json.dumps({"head": audit_anchor.shown(head)}).encode() + b"\n")
    return head
