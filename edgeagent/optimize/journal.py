"""Measurements that a long search has made, so that it goes on after it was ended at any point."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from edgeagent.durable import open_regular
from edgeagent.errors import InvalidParameter

_MOST_BYTES = 1 << 30
MOST = 1e30


class Entry(msgspec.Struct, frozen=True):
    """One measurement: what was measured, and its values."""

    key: str
    values: dict[str, Annotated[float, msgspec.Meta(ge=-MOST, le=MOST)]]


class Journal:
    """Values by key, appended to a file and flushed to the disk one by one. One process only.

    `about` names everything that the values depend on. Raises: InvalidParameter where the file has those of
    something else.
    """

    def __init__(self, path: Path, about: str) -> None:
        self._path = path
        self._known: dict[str, dict[str, float]] = {}
        lines = self._lines()
        if lines and not lines[-1].endswith(b"\n"):  # cut off by a kill
            lines.pop()
        entries = [self._entry(number, line) for number, line in enumerate(lines, 1)]
        if entries and entries[0].key != about:
            raise InvalidParameter(
                f"{path} has the measurements of another search: choose another directory, or remove it."
            )
        self._known = {entry.key: entry.values for entry in entries}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(lines))
        if not entries:
            self.add(about, {})

    def _lines(self) -> list[bytes]:
        try:
            with open_regular(self._path, _MOST_BYTES) as file:
                return file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise InvalidParameter(
                f"The journal {self._path} cannot be read ({exc}): remove it, or choose another directory."
            ) from exc

    def _entry(self, number: int, line: bytes) -> Entry:
        try:
            return msgspec.json.decode(line, type=Entry)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
            raise InvalidParameter(
                f"Line {number} of {self._path} is damaged ({exc}): delete this line and those after it, and "
                "the search goes on from there."
            ) from exc

    def get(self, key: str, *names: str) -> dict[str, float] | None:
        """The values under a key, `names` among them. Raises: InvalidParameter where one is missing."""
        values = self._known.get(key)
        if values is not None and (missing := [name for name in names if name not in values]):
            raise InvalidParameter(
                f"{self._path} has {key!r} without its {missing[0]!r}: delete that line, and it is measured "
                "again."
            )
        return values

    def discard(self) -> None:
        """Delete the file: what it was measured of is no more."""
        self._path.unlink(missing_ok=True)

    def add(self, key: str, values: dict[str, float]) -> None:
        """Keep a measurement. It is on the disk when this returns."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(Entry(key, values)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._known[key] = values
