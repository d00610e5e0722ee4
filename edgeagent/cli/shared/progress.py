"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from edgeagent.catalog import digest


@contextmanager
def byte_progress() -> Iterator[digest.Progress]:
    """A bar for each stage that has bytes to count."""
    columns = (
        TextColumn("{task.description:<9}"), BarColumn(), DownloadColumn(binary_units=False),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    bar = Progress(*columns, console=Console(stderr=True))

    def progress(stage: str, done_bytes: int, total_bytes: int | None) -> None:
        if total_bytes is None and stage != "download":
            return  # a stage without bytes to count is over in a moment
        if stage not in tasks:
            bar.start()
            tasks[stage] = bar.add_task(stage, total=total_bytes)
        bar.update(tasks[stage], completed=done_bytes, total=total_bytes)

    try:
        yield progress
    finally:
        if tasks:
            bar.stop()


@contextmanager
def row_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for each stage: `tell(stage, n_more, total)`; `total` is None while it is not known."""
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn())
    with _counting(*columns) as tell:
        yield tell


@contextmanager
def timed_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar for each stage, with the time left: `tell(stage, n_more, total)`."""
    columns = (
        TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with _counting(*columns) as tell:
        yield tell


@contextmanager
def _counting(*columns: ProgressColumn) -> Iterator[Callable[[str, int, int | None], None]]:
    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def tell(stage: str, n_more: int, total: int | None = None) -> None:
        if stage not in tasks:
            bar.start()
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], advance=n_more, total=total)

    try:
        yield tell
    finally:
        if tasks:  # a bar without a stage would leave an empty line
            bar.stop()
