"""Tables and questions for a person at a terminal, and what a script gets instead."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagent.cli.shared.printable import printable
from edgeagent.errors import BadRequest

PIPE_WIDTH = 10_000  # more than any table needs


class PlainConsole(Console):
    """Prints strings and the cells of tables as they are: `[red]` is no colour and `:smile:` no picture, and
    control characters are written as escapes. Our own style is given as `rich.text.Text`."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})


def show_table(table: Table) -> None:
    """Print a whole table: folded to the width of a terminal, one line per row for a pipe or a file."""
    for column in table.columns:
        column.overflow = "fold"
    PlainConsole(width=None if Console().is_terminal else PIPE_WIDTH).print(table)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on standard error, unless `yes` was given.

    Raises: click.Abort if the answer is no; BadRequest if there is no terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadRequest(f"{question} There is no terminal to ask on: give --yes.")
    click.confirm(question, abort=True, err=True)
