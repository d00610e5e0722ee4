"""Files of computed prefixes: records that can only be read with the key of their piece.

A record is a head (length of the rest, first and last position), followed by AES-256-GCM with the piece's
own key, which is in the database, and the record number as nonce; file name and head are authenticated.
Files are not synced: a record torn by a power cut is computed again.
"""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeagent.errors import StoreDamaged
from edgeagent.store.prefixes import PrefixChain, SealedState, State, ids, known

HEAD = struct.Struct(">III")
TAG_BYTES = 16


@dataclass(frozen=True)
class PrefixRecord:
    """The KV state of `tokens`, the first at position `first`, and its place on disk."""

    path: Path
    piece: SealedState
    number: int
    at: int
    first: int
    tokens: array[int]

    def read(self) -> bytes:
        """Raises: StoreDamaged, OSError."""
        with self.path.open("rb") as file:
            file.seek(self.at)
            head = file.read(HEAD.size)
            sealed = file.read(HEAD.unpack(head)[0])
        try:
            return AESGCM(self.piece.key).decrypt(
                _nonce(self.number), sealed, self.piece.id.encode() + head
            )
        except InvalidTag as exc:
            raise _torn(self.path) from exc


def append(
    folder: Path, piece: SealedState, number: int, first: int, last: int, data: bytes
) -> int:
    """Encrypt a record and append it to the file. Each number is used once. Returns the bytes written.

    Raises: OSError.
    """
    head = HEAD.pack(len(data) + TAG_BYTES, first, last)
    sealed = AESGCM(piece.key).encrypt(_nonce(number), data, piece.id.encode() + head)
    fd = os.open(folder / piece.id, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        return file.write(head + sealed)


def remove(folder: Path, piece: SealedState) -> None:
    """Delete a file that was not finished. Raises: OSError."""
    (folder / piece.id).unlink(missing_ok=True)


def records(folder: Path, chain: PrefixChain[State], n_cached: int) -> list[PrefixRecord]:
    """The records on disk after the first `n_cached` tokens, in order. Raises: StoreDamaged, OSError."""
    found = []
    tokens = array("i")
    for piece, end in zip(chain.pieces, chain.ends(), strict=True):
        tokens = tokens[: piece.first] + ids(piece.tokens)
        path = folder / piece.id
        for number, (at, first, last) in enumerate(_heads(path, piece.n_bytes)):
            if last > n_cached and first < end:
                found.append(PrefixRecord(path, piece, number, at, first, tokens[:last]))
    return found


def _heads(path: Path, size: int) -> list[tuple[int, int, int]]:
    """The offset of each record in a file of that size, and its positions."""
    found = []
    at = 0
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise _torn(path)
        while at < size:
            file.seek(at)
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                raise _torn(path)
            length, first, last = HEAD.unpack(head)
            found.append((at, first, last))
            at += HEAD.size + length
    if at != size:
        raise _torn(path)
    return found


def tidy(folder: Path, database: Any, spare: frozenset[str] = frozenset()) -> int:
    """Delete files without a row in the database, which nobody can decrypt. Blocks. Returns how many.

    `spare`: files that are being written, whose rows come later. Raises: OSError, what the store raises.
    """
    there = [path for path in folder.glob("*") if path.name not in spare]
    kept = database.read(known)
    gone = [path for path in there if path.name not in kept]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _torn(path: Path) -> StoreDamaged:
    return StoreDamaged(f"Prefix {path.name} is torn or altered: it is computed again.")
