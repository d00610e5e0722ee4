"""Formats log records: one line each, whatever a client has sent.

Values from outside may contain line breaks, terminal escapes or marks that change the direction of text,
which could forge or hide log lines. `escaped` makes them visible; the formatter applies it to every record.
Of an exception it writes the type and the traceback, but not the message, which may quote a request.
"""

from __future__ import annotations

import logging
import sys
import traceback
import unicodedata
from types import TracebackType
from typing import TextIO

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
MAX_RECORD = 4000  # characters of a message
_INDENT = "    | "  # of a traceback's lines, so that none of them looks like a record


def escaped(text: str) -> str:
    """The text on one line: control and format characters, line separators, unassigned and private
    characters and lone surrogates as `\\x1b`, `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == " " or _is_plain(c) else _code(c) for c in text)


def _is_plain(char: str) -> bool:
    # Cc control, Cf format (bidi marks), Cs surrogate, Co private, Cn unassigned, Zl, Zp line separators.
    return char.isprintable() and unicodedata.category(char)[0] != "C"


def _code(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class LineFormatter(logging.Formatter):
    """Writes a record on one line; the lines of a traceback below it are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = escaped(record.message[:MAX_RECORD])
        return super().formatMessage(record)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802
        return _indented("\n".join(_told(ei[1])))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(stack_info)


def _told(error: BaseException | None) -> list[str]:
    """Where an exception and its causes were raised, the first cause first."""
    if error is None:
        return []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    name = type(error).__qualname__
    if isinstance(error, OSError):
        name += f": {error.strerror}"
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    return [*_told(before), name, *(line for frame in frames for line in frame.splitlines())]


def _indented(text: str) -> str:
    return "\n".join(_INDENT + escaped(line) for line in text.splitlines())


def start(level: str, format: str = FORMAT, stream: TextIO | None = None) -> None:
    """Log to standard error from `level` on. May be called once in a process."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(format))
    logging.basicConfig(level=level.upper(), handlers=[handler])
