"""Keeps earlier revisions of a scope gate beside the file, with their number as a suffix."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from edgeagent.errors import InvalidParameter, SettingsError
from edgeagent.routing.scope_gate import ScopeFile, read_scope
from edgeagent.routing.training.scope_training import write_scope


def replace_scope(path: Path, file: ScopeFile) -> ScopeFile:
    """Write a gate as the next revision; the one before stays beside it. Returns what was written.
    One that cannot be read is kept as `.damaged`. Raises: OSError."""
    if path.is_file():
        try:
            earlier = read_scope(path)
            revision = earlier.revision
            write_scope(earlier, path.with_name(f"{path.name}.{revision}"))
        except SettingsError:
            path.replace(path.with_name(f"{path.name}.damaged"))
            revision = max(_revisions(path), default=file.revision)
        file = msgspec.structs.replace(file, revision=revision + 1)
    write_scope(file, path)
    return file


def roll_back_scope(path: Path) -> ScopeFile | None:
    """Put the newest earlier revision in place; None where the gate of the model itself counts again.

    Raises: InvalidParameter where nothing was calibrated; OSError.
    """
    if not path.is_file():
        raise InvalidParameter(
            f"{path} is missing: no scope gate was calibrated here that could be taken back."
        )
    revisions = _revisions(path)
    if not revisions:
        path.unlink()
        return None
    kept = path.with_name(f"{path.name}.{max(revisions)}")
    earlier = read_scope(kept)
    write_scope(earlier, path)
    kept.unlink()
    return earlier


def _revisions(path: Path) -> list[int]:
    """The numbers of the earlier revisions beside it."""
    names = (
        re.fullmatch(re.escape(path.name) + r"\.(\d{1,9})", one.name)
        for one in path.parent.iterdir()
    )
    return [int(found[1]) for found in names if found]
