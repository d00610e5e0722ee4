"""Reads text files within limits. One example per line: FILE.txt has the examples of the intent FILE."""

from __future__ import annotations

from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.example import Domain, Place
from edgeagent.forge.domain.readers.inline_slots import add_marked

MAX_BYTES = 16 << 20


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The whole file, UTF-8 with or without a byte order mark.

    Raises: ForgeFailed for a file that is missing, empty, too large or not UTF-8, with the line of the
    first wrong byte.
    """
    try:
        if not path.is_file():
            raise ForgeFailed(f"{path} is not a file: name a file, or a directory of files.")
        size = path.stat().st_size
        if size > max_bytes:
            raise ForgeFailed(
                f"{path} has {size / 1e6:.0f} MB, and {max_bytes / 1e6:.0f} MB is the most: a few hundred "
                "examples of each intent are enough; leave some out."
            )
        raw = path.read_bytes()
    except OSError as exc:
        raise ForgeFailed(f"{path} cannot be read ({exc.strerror}): check the file.") from exc
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise ForgeFailed(
            f"{path}:{line}: byte {raw[exc.start]:#04x} is not UTF-8: save the file as UTF-8."
        ) from exc
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ForgeFailed(f"{path}:{line}: there is a zero byte: save the file as UTF-8 text.")
    if not text.strip():
        raise ForgeFailed(f"{path} is empty: write examples into it, or remove it.")
    return text


def read_lines_file(path: Path) -> Domain:
    """Raises: ForgeFailed."""
    domain = Domain()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            add_marked(domain, line, path.stem, Place(path, number))
    return domain
