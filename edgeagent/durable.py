"""Files that are on the disk, not only in memory, before the next step relies on them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk. Raises: OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_regular(path: Path, most_bytes: int) -> BinaryIO:
    """Open a file of our own to read it, where it is one and no larger than it can be.

    Whoever may write into its folder can put something else there: opening a FIFO would wait for ever,
    reading a device would never end. Raises: OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    if found.st_size > most_bytes:
        os.close(fd)
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, {most_bytes} are the most")
    return os.fdopen(fd, "rb")


def replace_text(path: Path, text: str) -> None:
    """Make `text` the content of `path` by one rename: readers see the old file or the new one.

    Its folder is made if it is not there. Raises: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8", newline="")
    sync_file(draft)
    draft.replace(path)
    sync_folder(path.parent)


def way_out(error: OSError) -> str:
    """What to do where writing models fails."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: remove a model, or set models.dir to a larger disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "it may not be written to: run as the user that owns it, or set models.dir"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a part of that path is not a directory: set models.dir to a directory"
    return "check the disk"
