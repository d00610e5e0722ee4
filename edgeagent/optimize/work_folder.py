"""The directory of a search's work, which stays only where there is something to go on with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.errors import EdgeAgentError, InvalidParameter

# What a search can go on with; the reference that was dequantized for it is made again in seconds.
_RESULTS = ("journal.jsonl", "imatrix.gguf")


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """`out/work`. After an error it is removed again, with every parent made for it, unless it was there
    before or something was measured."""
    work = out / "work"
    new = [folder for folder in (work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(work):
            yield work
    except EdgeAgentError:
        if work in new and not _has_results(work):
            shutil.rmtree(work)
            for folder in new[1:]:
                if any(folder.iterdir()):
                    break
                folder.rmdir()
        raise


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """One search at a time; the kernel frees the lock on exit. Raises: InvalidParameter."""
    busy = f"Another search works in {work}: wait for it, or choose another --out."
    with exclusive_lock(work / ".lock", InvalidParameter(busy)):
        yield


def _has_results(work: Path) -> bool:
    journal, importance = (work / name for name in _RESULTS)
    if importance.exists():
        return True
    return journal.exists() and len(journal.read_bytes().splitlines()) > 1
