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


# Files of one measurement, which a killed search leaves.
_PASSING = ("candidate-", ".candidate-", ".zeros-")
_REPORTS = ("report.md", "report.html", "catalog.toml")


def check_out(out: Path, stem: str) -> None:
    """Raises: InvalidParameter where a new search would replace files of others."""
    if not out.is_dir() or _is_begun(out / "work" / _RESULTS[0]):
        return
    for path in sorted(out.iterdir()):
        is_result = path.name.startswith(f"{stem}-") and path.name.endswith((".gguf", ".toml"))
        if path.name in _REPORTS or is_result:
            raise InvalidParameter(
                f"{path} is there already, and no search to go on with: it could be replaced. Move it, or "
                "choose another --out."
            )


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """`out/work`. After an error it is removed again, with every parent made for it, unless it was there
    before or something was measured."""
    work = out / "work"
    new = [folder for folder in (work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(work):
            for path in work.iterdir():
                if path.name.startswith(_PASSING) and ".gguf" in path.name:
                    path.unlink()
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
    return _is_begun(journal)


def _is_begun(journal: Path) -> bool:
    """Whether a search has measured something; the first line only says what is searched."""
    return journal.is_file() and journal.read_bytes().count(b"\n") > 1
