"""What a person at a terminal is shown and asked, and what a script gets instead."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table

from edgeagent.errors import BadRequest

PIPE_WIDTH = 10_000  # a table takes what it needs of it


def show_table(table: Table) -> None:
    """Print a table whole: folded to the width of a terminal, one line a row for a pipe or a file."""
    for column in table.columns:
        column.overflow = "fold"
    Console(width=None if Console().is_terminal else PIPE_WIDTH).print(table)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, on standard error, unless `yes` is said already.

    Raises: click.Abort at a no; BadRequest where nobody is there to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadRequest(f"{question} Nobody is there to ask: give --yes.")
    click.confirm(question, abort=True, err=True)
