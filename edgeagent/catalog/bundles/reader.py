"""Reads a bundle: everything is verified, in this order, before anything is used or written.

    1. manifest.json   its tar header, its size against a limit, its bytes
    2. manifest.sig    a trusted key signed those bytes; only then are they parsed
    3. the container   every tar header, padding and the end, exactly as the manifest requires
    4. the parts       sha256 of each, streamed

The file is read in pieces of 1 MiB, so memory use does not depend on its size.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgeagent.catalog.bundles.manifest import (
    BLOCK,
    END,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    SIGNATURE_PART_BYTES,
    BundleManifest,
    BundlePart,
    decode,
    padding,
    refused,
    tar_header,
    verify,
)
from edgeagent.catalog.bundles.signing import PublicKey, TrustList
from edgeagent.catalog.digest import CHUNK_BYTES, Progress, no_progress
from edgeagent.errors import BundleRefused


class Bundle:
    """An open bundle whose manifest and container are verified. Created by `open_bundle`; one thread."""

    def __init__(self, path: Path, file: BinaryIO, trust: TrustList) -> None:
        self.path = path
        self._file = file
        self.file_bytes = os.fstat(file.fileno()).st_size
        data = self._read_manifest()
        line = self._read_member(SIGNATURE, SIGNATURE_PART_BYTES)
        self.key: PublicKey = verify(data, line, trust)
        self.manifest: BundleManifest = decode(data)
        self.manifest_sha256 = hashlib.sha256(data).hexdigest()
        self._offsets = self._check_container(file.tell())

    def offset(self, part: BundlePart) -> int:
        """The offset of a part's content, in bytes."""
        return self._offsets[part.name]

    def check_parts(self, progress: Progress = no_progress) -> None:
        """Hash every part. Raises: BundleRefused naming the first one that differs from the manifest."""
        total = sum(part.size_bytes for part in self.manifest.parts)
        done = 0
        for part in self.manifest.parts:
            for chunk in self.chunks(part):
                done += len(chunk)
                progress("verify", done, total)

    def chunks(self, part: BundlePart) -> Iterator[bytes]:
        """The content of a part in pieces. Raises: BundleRefused after the last one if it was changed."""
        digest, left = hashlib.sha256(), part.size_bytes
        self._file.seek(self.offset(part))
        while left:
            chunk = self._read(min(CHUNK_BYTES, left), part.name)
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        if digest.hexdigest() != part.sha256:
            raise refused(
                part.name,
                f"was changed: sha256 is {digest.hexdigest()}, but {part.sha256} is listed",
            )

    def text(self, name: str) -> str:
        """The text of a small part, after checking its hash. Raises: BundleRefused."""
        part = self.manifest.part(name)
        assert part.is_text
        try:
            return b"".join(self.chunks(part)).decode()
        except UnicodeDecodeError as error:
            raise refused(name, f"is not UTF-8 ({error})", "make the bundle again") from error

    # -- the container -------------------------------------------------------------------------

    def _read_manifest(self) -> bytes:
        """The manifest's bytes: the only member whose size is taken from its own tar header."""
        head = self._read(BLOCK, MANIFEST)
        try:
            size = tarfile.TarInfo.frombuf(head, "ascii", "strict").size
        except (tarfile.HeaderError, ValueError) as error:
            raise refused(
                MANIFEST, f"is not at the beginning of {self.path.name!r} ({error})",
                "give a file that 'edgeagent bundle create' made",
            ) from error  # fmt: skip
        if not 0 < size <= MAX_MANIFEST_BYTES:
            raise refused(MANIFEST, f"has {size} bytes, 1 to {MAX_MANIFEST_BYTES} are allowed")
        self._file.seek(0)
        return self._read_member(MANIFEST, size)

    def _read_member(self, name: str, size: int) -> bytes:
        self._check_header(name, size)
        data = self._read(size, name)
        self._check_padding(name, size)
        return data

    def _check_container(self, at: int) -> dict[str, int]:
        """Check that every byte from `at` on outside the contents is as the manifest requires.

        Returns the offset of each part's content.
        """
        offsets: dict[str, int] = {}
        for part in self.manifest.parts:
            self._file.seek(at)
            self._check_header(part.name, part.size_bytes)
            offsets[part.name] = self._file.tell()
            at = offsets[part.name] + part.size_bytes
            if at > self.file_bytes:
                raise self._cut(part.name)
            self._file.seek(at)
            self._check_padding(part.name, part.size_bytes)
            at += len(padding(part.size_bytes))
        tail = self._file.read(len(END) + 1)
        if len(tail) > BLOCK and (name := _member_name(tail[:BLOCK])) is not None:
            known = name in {part.name for part in self.manifest.parts}
            raise refused(name, "occurs twice" if known else "is not in the list of parts")
        if tail != END:
            what = "is cut off" if END.startswith(tail) else "has data that is not in the list"
            raise refused("end of file", what)
        return offsets

    def _check_header(self, name: str, size: int) -> None:
        expected = tar_header(name, size)
        found = self._read(len(expected), name)
        if found == expected:
            return
        other = _member_name(found[:BLOCK])
        if other is None or other == name:
            raise refused(name, "has a changed tar header")
        raise refused(name, f"is missing or moved, {other[:300]!r} is in its place")

    def _check_padding(self, name: str, size: int) -> None:
        expected = padding(size)
        if self._read(len(expected), name) != expected:
            raise refused(name, "is followed by extra bytes")

    def _read(self, n_bytes: int, name: str) -> bytes:
        try:
            data = self._file.read(n_bytes)
        except OSError as error:
            raise refused(name, f"cannot be read ({error})", "check that medium") from error
        if len(data) != n_bytes:
            raise self._cut(name)
        return data

    def _cut(self, name: str) -> BundleRefused:
        return refused(name, f"is cut off, the file ends after {self.file_bytes} bytes")


@contextmanager
def open_bundle(path: Path, trust: TrustList) -> Iterator[Bundle]:
    """A bundle with verified manifest and container, open within the block.

    The parts are not hashed yet: see `Bundle.check_parts`. Raises: BundleRefused naming the bad part.
    """
    try:
        # Non-blocking: opening a named pipe would wait for a writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BundleRefused(f"{path} cannot be read ({error}): check the path") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BundleRefused(f"{path} is not a regular file: give a bundle (*.eab)")
    with os.fdopen(fd, "rb") as file:
        yield Bundle(path, file, trust)


def _member_name(head: bytes) -> str | None:
    """The name in a tar header, for a message; None if there is none."""
    try:
        return tarfile.TarInfo.frombuf(head, "ascii", "backslashreplace").name
    except (tarfile.HeaderError, ValueError):
        return None
