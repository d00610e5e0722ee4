"""Detects damage in the write-ahead log, which SQLite takes for the log's end.

Recovery stops at the first frame with a wrong checksum, as after a power cut, and silently drops the rest.
But with synchronous=FULL a commit is synced before the next one begins, so a power cut can spoil only one
commit: two commits of the same log after the frame where recovery stopped mean damage.

Format: sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from os import SEEK_CUR
from pathlib import Path
from typing import BinaryIO

_HEADER = 32
_FRAME = 24
_BIG_ENDIAN_SUMS = 0x377F0683


@dataclass(frozen=True)
class WalSummary:
    """The contents of a log file's headers. `commits`: frames, from 1, that end a transaction of this log."""

    is_header_sound: bool
    commits: tuple[int, ...]

    def lost(self, n_recovered: int) -> str | None:
        """The damage, given the number of frames that SQLite recovered; None after a mere power cut."""
        if not self.is_header_sound:
            return "the header of the write-ahead log is damaged"
        behind = [frame for frame in self.commits if frame > n_recovered]
        if len(behind) < 2:
            return None
        return f"the write-ahead log is damaged after frame {n_recovered}, {len(behind)} commits follow"


def read(path: Path) -> WalSummary:
    """Read the headers of all frames. A missing or empty log is sound. Raises: OSError."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
            if len(header) < _HEADER or not any(header):
                return WalSummary(True, ())
            magic, _version, page_bytes, _count, *salts, sum1, sum2 = struct.unpack(">8I", header)
            order = ">" if magic == _BIG_ENDIAN_SUMS else "<"
            if _sums(struct.unpack(f"{order}6I", header[:24])) != (sum1, sum2):
                return WalSummary(False, ())
            return WalSummary(True, tuple(_commits(file, page_bytes, salts)))
    except FileNotFoundError:
        return WalSummary(True, ())


def _commits(file: BinaryIO, page_bytes: int, salts: list[int]) -> Iterator[int]:
    """Frames with the salts of this log (a log is overwritten from its start) that end a commit."""
    number = 0
    while len(head := file.read(_FRAME)) == _FRAME:
        number += 1
        _page, n_pages_after, salt1, salt2, _sum1, _sum2 = struct.unpack(">6I", head)
        if n_pages_after and [salt1, salt2] == salts:
            yield number
        file.seek(page_bytes, SEEK_CUR)


def _sums(words: tuple[int, ...]) -> tuple[int, int]:
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
