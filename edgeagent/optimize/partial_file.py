"""A file that takes its place when it is whole, written by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.durable import sync_file, sync_folder
from edgeagent.errors import InvalidParameter


@contextmanager
def partial_file(target: Path, source: Path | None) -> Iterator[Path]:
    """A file beside `target`, which replaces it at the end of the block; after an error there is none.

    Raises: InvalidParameter for a target that is the `source` or no file (a device would be replaced), and
    where another process writes the same file; OSError.
    """
    if target.exists() and not target.is_file():
        raise InvalidParameter(f"{target} is no regular file: choose another name.")
    if source is not None and target.exists() and target.samefile(source):
        raise InvalidParameter(f"{target} is the source itself: choose another name.")
    partial = target.with_name(f".{target.name}.partial")
    busy = InvalidParameter(
        f"Another process writes {target}: wait for it, or choose another name."
    )
    with exclusive_lock(partial, busy):
        if not partial.exists():  # the other one has just ended
            raise busy
        try:
            yield partial
            sync_file(partial)
            partial.replace(target)
            sync_folder(target.parent)
        finally:
            partial.unlink(missing_ok=True)
