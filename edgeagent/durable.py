"""File operations that are on the disk when they return."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

Value = TypeVar("Value")


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk. Raises: OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush the directory entries of a folder to the disk. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_regular(path: Path, most_bytes: int) -> BinaryIO:
    """Open a regular file of at most `most_bytes` for reading.

    Others who can write into the folder may put something else there: opening a FIFO would block, reading a
    device would never end. Raises: OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file")
    if found.st_size > most_bytes:
        os.close(fd)
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, the limit is {most_bytes}")
    return os.fdopen(fd, "rb")


def read_json(path: Path, most_bytes: int, kind: type[Value]) -> Value:
    """The JSON in a regular file of at most `most_bytes`, as `kind`. Raises: OSError; msgspec.MsgspecError
    for any other content."""
    with open_regular(path, most_bytes) as file:
        content = file.read()
    try:
        return msgspec.json.decode(content, type=kind)
    except (UnicodeDecodeError, RecursionError) as exc:  # within strings, and of nested lists
        raise msgspec.DecodeError(f"JSON is damaged: {exc}") from exc


def replace_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8, as `replace_bytes`. Raises: OSError."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace the content of `path` with one rename: readers see the old or the new file.

    Creates the folder if it is missing. Raises: OSError, also where `path` is no file: the rename would
    replace a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    sync_file(draft)
    draft.replace(path)
    sync_folder(path.parent)


def way_out(error: OSError) -> str:
    """The way out of an error while writing models."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: remove a model, or set models.dir to a larger disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "it is not writable: run as the user that owns it, or set models.dir"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a part of that path is not a directory: set models.dir to a directory"
    return "check the disk"
