"""Reads text files within limits. One example per line: FILE.txt has the examples of the intent FILE."""

from __future__ import annotations

import re
from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.example import Domain, Note, Place
from edgeagent.forge.domain.readers.inline_slots import add_marked

MAX_BYTES = 16 << 20
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # no text of Windows-1252 has them


def read_text(path: Path, notes: list[Note] | None = None, max_bytes: int = MAX_BYTES) -> str:
    """The whole file: UTF-8, UTF-16 with a byte order mark, or Windows-1252, as spreadsheets write it, with a
    note. Without `notes` it has to be UTF-8.

    Raises: ForgeFailed for a file that is missing, empty, too large or no text, with the line.
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
    text = _decoded(path, raw, notes)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ForgeFailed(f"{path}:{line}: there is a zero byte: save the file as UTF-8 text.")
    if not text.strip():
        raise ForgeFailed(f"{path} is empty: write examples into it, or remove it.")
    return text


def _decoded(path: Path, raw: bytes, notes: list[Note] | None) -> str:
    try:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return raw.decode("utf-16")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        wrong = f"byte {raw[exc.start]:#04x} is not {exc.encoding.upper()}"
        try:
            text = raw.decode("cp1252") if notes is not None and exc.encoding == "utf-8" else None
        except UnicodeDecodeError:
            text = None
        if text is None or _CONTROL.search(text):
            raise ForgeFailed(f"{path}:{line}: {wrong}: save the file as UTF-8.") from exc
        assert notes is not None
        said = f"{wrong}: the file is read as Windows-1252 (Latin-1). If letters are wrong, save it as UTF-8."
        notes.append(Note(Place(path, line), said))
        return text


def read_lines_file(path: Path) -> Domain:
    """Raises: ForgeFailed."""
    domain = Domain()
    for number, line in enumerate(read_text(path, domain.notes).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            add_marked(domain, line, path.stem, Place(path, number))
    return domain
