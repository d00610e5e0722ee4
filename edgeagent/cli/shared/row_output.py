"""Rows for people and for programs: a table, CSV, JSON, or JSON lines, written as they come.

    table   folded to the terminal, long values cut; control characters are shown as \\x1b
    csv     a line of names, then rows; NULL is empty, bytes are base64. A text that a spreadsheet would
            compute gets a ' before it (`types/spreadsheet_cell`); JSON has it as it is stored
    json    one array of objects; bytes are {"$base64": true, "encoded": "..."}, as sqlite-utils writes them
    nl      one object on each line

JSON escapes every character that a terminal or an editor could obey; CSV does so on a terminal only.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Literal, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagent.cli.shared.printable import UNPRINTABLE, printable
from edgeagent.cli.shared.terminal import PIPE_WIDTH
from edgeagent.types.spreadsheet_cell import as_text_cell

Format = Literal["table", "csv", "json", "nl"]
Row = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])
TABLE_ROWS = 100  # of which a table takes its widths
MOST_CELL = 500  # characters of a value in a table


def format_options(command: Command) -> Command:
    """How rows are written; without any of these a table. The last one counts."""
    options = [
        click.option("--table", "shape", flag_value="table", default=True,
                     help="A table for people. This is the default."),
        click.option("--csv", "shape", flag_value="csv",
                     help="CSV with a line of names; a ' keeps spreadsheets from computing texts."),
        click.option("--json", "shape", flag_value="json", help="An array of JSON objects."),
        click.option("--nl", "shape", flag_value="nl", help="A JSON object on each line."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def write_rows(rows: Iterable[Row], shape: Format) -> int:
    """Write rows to standard output as they come; gives their number. Their keys are the same in each.

    Raises: BrokenPipeError, and what `rows` raises; what was written before stays written.
    """
    n_rows = 0

    def counted() -> Iterator[Row]:
        nonlocal n_rows
        for row in rows:
            n_rows += 1
            yield row

    sys.stdout.flush()
    out = sys.stdout.buffer
    for piece in _pieces(counted(), shape, is_terminal=sys.stdout.isatty()):
        out.write(piece.encode("utf-8", "backslashreplace"))
    out.flush()
    return n_rows


def _pieces(rows: Iterator[Row], shape: Format, *, is_terminal: bool) -> Iterator[str]:
    if shape == "csv":
        return _csv(rows, is_terminal=is_terminal)
    if shape == "json":
        return _json(rows)
    if shape == "nl":
        return (_object(row) + "\n" for row in rows)
    return _tables(rows, is_terminal=is_terminal)


def _csv(rows: Iterator[Row], *, is_terminal: bool) -> Iterator[str]:
    first = next(rows, None)
    if first is None:
        return
    buffer = io.StringIO(newline="")
    writer = csv.writer(
        buffer
    )  # lines end in CR LF (RFC 4180), so that values with either are quoted

    def line(values: Iterable[Any]) -> str:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([_cell(value) for value in values])
        text = buffer.getvalue()
        return printable(text.rstrip("\r\n")) + "\n" if is_terminal else text

    yield line(first)
    for row in chain([first], rows):
        yield line(row.values())


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    return as_text_cell(value) if isinstance(value, str) else value


def _json(rows: Iterator[Row]) -> Iterator[str]:
    before = "["
    for row in rows:
        yield f"{before}{_object(row)}"
        before = ",\n "
    yield "[]\n" if before == "[" else "]\n"


def _object(row: Row) -> str:
    return "{" + ", ".join(f"{_value(name)}: {_value(each)}" for name, each in row.items()) + "}"


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        value = {"$base64": True, "encoded": base64.b64encode(value).decode()}
    elif isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"  # JSON has no infinity; SQLite writes it so
    text = json.dumps(value, ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _tables(rows: Iterator[Row], *, is_terminal: bool) -> Iterator[str]:
    """Tables of TABLE_ROWS rows, the first with the names; each is at least as wide as the first."""
    widths: dict[str, int] = {}
    while block := list(islice(rows, TABLE_ROWS)):
        is_first = not widths
        lines = [[_shown(value) for value in row.values()] for row in block]
        if is_first:
            widths = {
                name: max(Text(text).cell_len for text in (printable(name), *column))
                for name, column in zip(block[0], zip(*lines, strict=True), strict=True)
            }
        table = Table(box=None, pad_edge=False, show_header=is_first)
        for name, width in widths.items():
            floor = None if is_terminal else width
            table.add_column(Text(printable(name)), overflow="fold", min_width=floor)
        for line in lines:
            table.add_row(*map(Text, line))
        yield _rendered(table, is_terminal=is_terminal)


def _rendered(table: Table, *, is_terminal: bool) -> str:
    buffer = io.StringIO()
    width = Console().width if is_terminal else PIPE_WIDTH
    Console(file=buffer, width=width, force_terminal=False, highlight=False).print(table)
    lines = buffer.getvalue().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    text = str(value)
    rest = f"... ({len(text)} characters)" if len(text) > MOST_CELL else ""
    return printable(text[:MOST_CELL]) + rest
