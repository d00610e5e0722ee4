"""SHA-256 while reading and writing, with progress.

A model is hashed while it is written, so it need not be read again: a second pass over 4 GB takes minutes
on an SD card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

CHUNK_BYTES = 1024 * 1024


class Progress(Protocol):
    """Called often from the installing thread: the progress of a stage, in bytes."""

    def __call__(self, stage: str, done_bytes: int, total_bytes: int | None) -> None: ...


class Sink(Protocol):
    """Something to write to."""

    def write(self, data: bytes, /) -> int: ...


def no_progress(stage: str, done_bytes: int, total_bytes: int | None) -> None:
    """Ignores progress."""


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of `file` in pieces of CHUNK_BYTES."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def sha256_of(path: Path, progress: Progress = no_progress) -> str:
    """The digest of the file at `path`, as 64 hexadecimal digits. Raises: OSError."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        total = path.stat().st_size
        for chunk in chunks(file):
            digest.update(chunk)
            done += len(chunk)
            progress("verify", done, total)
    return digest.hexdigest()


def write_hashed(
    source: Iterable[bytes], target: Sink, progress: Progress, total_bytes: int | None
) -> tuple[str, int]:
    """Write all of `source` to `target`; return (sha256, bytes written). Raises: OSError."""
    digest, done = hashlib.sha256(), 0
    for chunk in source:
        target.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        progress("fetch", done, total_bytes)
    return digest.hexdigest(), done
