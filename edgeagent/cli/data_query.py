"""`edgeagent data tables`, `rows`, `query` and `schema`: read the stored data with SQL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgeagent.cli.shared.options import settings_options
from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.read_only_store import ReadableStore, reading, selected_or_all
from edgeagent.cli.shared.row_output import Format, Row, format_options, write_rows
from edgeagent.cli.shared.store import refuse_other_encodings, selector_options
from edgeagent.errors import BadRequest
from edgeagent.store.query_views import READABLE

MOST_SQL = 1_000_000  # characters; SQLite takes more, nobody types more


@click.command()
@selector_options
@format_options
@settings_options
def tables(
    config: Path | None, owner: str | None, conversation: str | None, subject: str | None,
    shape: Format, **flags: Any,
) -> None:  # fmt: skip
    """List the readable tables with their numbers of rows, columns and content.

    \b
        edgeagent data tables
        edgeagent data tables --subject patient-17 --json

    JSON: an array of {"table", "n_rows", "columns", "about"}; columns are one text, separated by spaces.
    """
    who = selected_or_all(owner, conversation, subject)
    with reading(config, flags, who, "data.tables") as store:
        write_rows(_overview(store), shape)


@click.command()
@click.argument("table")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="Limit of rows.")
@selector_options
@format_options
@settings_options
def rows(
    config: Path | None, table: str, limit: int | None, owner: str | None, conversation: str | None,
    subject: str | None, shape: Format, **flags: Any,
) -> None:  # fmt: skip
    """Show the rows of TABLE, all of them or those of the selected data. `data tables` lists the names.

    \b
        edgeagent data rows request -n 20
        edgeagent data rows item_content --owner clinic --nl > clinic.jsonl

    JSON: an object for each row, with the columns that `edgeagent data schema TABLE` shows; JSON in a
    column (body, metadata) remains text.
    """
    who = selected_or_all(owner, conversation, subject)
    what = f"table:{printable(table[:60])}"
    with reading(config, flags, who, "data.rows", what=what) as store:
        store.refuse_unknown(table)
        # No more than the integers of SQLite, in which all rows have room.
        n_most = min(limit, 1 << 62) if limit is not None else -1
        _show(store, store.run(f'select * from "{table}" limit {n_most}'), shape)


@click.command()
@click.argument("sql")
@click.option("-p", "--param", "parameters", nargs=2, multiple=True, metavar="NAME VALUE",
              help="Value of :NAME in the statement; may be repeated.")  # fmt: skip
@selector_options
@format_options
@settings_options
def query(
    config: Path | None, sql: str, parameters: tuple[tuple[str, str], ...], owner: str | None,
    conversation: str | None, subject: str | None, shape: Format, **flags: Any,
) -> None:  # fmt: skip
    """Run one SELECT statement on the tables of `edgeagent data tables` and show its rows.

    With --owner, --conversation or --subject, every table contains only their data. The database is
    read-only. With - as SQL, the statement is read from standard input, hidden from other users of the
    machine. Each statement is recorded in the audit. While a result is read, the write-ahead log of the
    store cannot shrink.

    \b
        edgeagent data query "select model, count(*) as n from request group by model"
        edgeagent data query --owner clinic --csv "select plain from item_content" > said.csv
        edgeagent data query --json -p day 86400000 \\
            "select status, total_ms from request where created_ms > unixepoch() * 1000 - :day"

    JSON: an object for each row, named by the columns of the result; bytes are
    {"$base64": true, "encoded": "..."}. CSV contains texts as stored: a spreadsheet may interpret a text
    that begins with = as a formula.
    """
    who = selected_or_all(owner, conversation, subject)
    text = _statement(sql)
    with reading(config, flags, who, "data.query", sql=text) as store:
        _show(store, store.run(text, dict(parameters)), shape)


@click.command()
@click.argument("table", required=False)
@settings_options
def schema(config: Path | None, table: str | None, **flags: Any) -> None:
    """Show the readable tables, or TABLE, as SQL with comments on the columns.

    \b
        edgeagent data schema
        edgeagent data schema request
    """
    with reading(config, flags, None, "data.schema") as store:
        if table is not None:
            store.refuse_unknown(table)
        for name, statement in store.views.statements.items():
            if table in (None, name):
                click.echo(statement)


def _show(store: ReadableStore, found: Iterator[Row], shape: Format) -> None:
    n_rows = write_rows(found, shape)
    click.echo(f"{n_rows} row{'s' * (n_rows != 1)} of {store.scope}", err=True)


def _overview(store: ReadableStore) -> Iterator[Row]:
    about = {table.name: table.about for table in READABLE}
    for name, columns in store.views.columns.items():
        names = " ".join(column.name for column in columns)
        yield {"table": name, "n_rows": store.n_rows(name), "columns": names, "about": about[name]}


def _statement(sql: str) -> str:
    """The SQL of an argument, or of standard input for -. Raises: BadRequest."""
    text = sys.stdin.read(MOST_SQL + 1) if sql == "-" else sql
    if len(text) > MOST_SQL:
        raise BadRequest(f"The SQL has more than {MOST_SQL} characters: shorten it.")
    if not text.strip() or "\0" in text:
        raise BadRequest("The SQL is empty or holds a NUL: give one SELECT statement.")
    refuse_other_encodings(text, "The SQL")
    return text
