"""Files of recordings: records that can only be read with the key of their row in the database.

A record is a head (length of the sealed part, nonce), followed by AES-256-GCM of up to `RECORD_BYTES` of
audio; the id of the recording, the number of the record and its place in the audio are authenticated, so
that records cannot be exchanged or left out. Nonces are random: a record that a crash has torn is written
again under the same number. The row says how much of a file counts; what lies behind is cut off by the
next `append`. Without its row a file is noise, which `tidy` deletes.
"""

from __future__ import annotations

import os
import secrets
import struct
from bisect import bisect_right
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeagent.durable import sync_folder
from edgeagent.errors import StoreDamaged

RECORD_BYTES = 1 << 20
NONCE_BYTES = 12
TAG_BYTES = 16
HEAD = struct.Struct(f">I{NONCE_BYTES}s")


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One row: `n_received` bytes of audio in `n_records` records, `file_bytes` in all."""

    id: str
    owner: str
    key: bytes
    n_received: int = 0
    n_records: int = 0
    file_bytes: int = 0


def new_key() -> bytes:
    return secrets.token_bytes(32)


def append(folder: Path, recording: Recording, data: bytes) -> Recording:
    """Encrypt more audio behind what counts. On disk when it returns the row that is to be stored.

    Raises: OSError; StoreDamaged when the file is shorter than its row says.
    """
    path = folder / recording.id
    cipher = AESGCM(recording.key)
    number, at, size = recording.n_records, recording.n_received, recording.file_bytes
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+b") as file:
        if os.fstat(fd).st_size < size:
            raise _damaged(path)
        file.truncate(size)
        file.seek(size)
        for start in range(0, len(data), RECORD_BYTES):
            plain = data[start : start + RECORD_BYTES]
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed = cipher.encrypt(nonce, plain, _place(recording.id, number, at))
            size += file.write(HEAD.pack(len(sealed), nonce)) + file.write(sealed)
            number, at = number + 1, at + len(plain)
        file.flush()
        os.fsync(fd)
    if not recording.file_bytes:
        sync_folder(folder)
    return msgspec.structs.replace(recording, n_received=at, n_records=number, file_bytes=size)


class RecordingReader:
    """Reads a recording from any place on. One thread at a time; `close()` may be called twice."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        """Raises: StoreDamaged for a file that is missing, torn or too short."""
        self._path = folder / recording.id
        self._recording = recording
        self._cipher = AESGCM(recording.key)
        self._last: tuple[int, bytes] = (-1, b"")  # the record that was read last
        try:
            self._file = self._path.open("rb")
        except OSError as exc:
            raise _damaged(self._path) from exc
        try:
            self._records = self._index()
        except StoreDamaged:
            self.close()
            raise

    def _index(self) -> list[tuple[int, int, int]]:
        """Of each record its place in the file, its place in the audio, and its bytes of audio."""
        found = []
        place = at = 0
        while place < self._recording.file_bytes:
            self._file.seek(place)
            head = self._file.read(HEAD.size)
            if len(head) < HEAD.size:
                raise _damaged(self._path)
            length, _ = HEAD.unpack(head)
            found.append((place, at, length - TAG_BYTES))
            place, at = place + HEAD.size + length, at + length - TAG_BYTES
        if (place, at) != (self._recording.file_bytes, self._recording.n_received):
            raise _damaged(self._path)
        return found

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Up to `n_bytes` of audio; fewer where a record or the recording ends. Raises: StoreDamaged."""
        if not 0 <= offset < self._recording.n_received:
            return b""
        number = bisect_right(self._records, offset, key=lambda record: record[1]) - 1
        start = offset - self._records[number][1]
        return self._record(number)[start : start + n_bytes]

    def _record(self, number: int) -> bytes:
        if self._last[0] == number:
            return self._last[1]
        place, at, n_bytes = self._records[number]
        try:
            self._file.seek(place)
            _, nonce = HEAD.unpack(self._file.read(HEAD.size))
            sealed = self._file.read(n_bytes + TAG_BYTES)
            plain = self._cipher.decrypt(nonce, sealed, _place(self._recording.id, number, at))
        except (OSError, ValueError, struct.error, InvalidTag) as exc:  # ValueError: closed
            raise _damaged(self._path) from exc
        self._last = number, plain
        return plain

    def close(self) -> None:
        self._file.close()


def remove(folder: Path, recording_id: str) -> None:
    """Delete a file, if it is there. Raises: OSError."""
    (folder / recording_id).unlink(missing_ok=True)


def tidy(folder: Path, known: set[str]) -> int:
    """Delete files that are not among `known`, which nobody can decrypt. Returns how many.

    Raises: OSError.
    """
    gone = [path for path in folder.glob("*") if path.name not in known]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


def _place(recording_id: str, number: int, at: int) -> Any:
    return recording_id.encode() + struct.pack(">QQ", number, at)


def _damaged(path: Path) -> StoreDamaged:
    return StoreDamaged(
        f"Recording {path.name} is missing, torn or altered: send it again as a new job."
    )
