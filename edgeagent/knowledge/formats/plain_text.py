"""Bytes as text, and text as paragraphs."""

from __future__ import annotations

import re

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Block

_BLANK = re.compile(r"\n[ \t\f]*\n\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_CHECKED = 1 << 16


def decoded(data: bytes, encoding: str | None = None) -> str:
    """Text of UTF-8, UTF-16 with a mark, or Windows-1252. Raises: InvalidParameter for what is no text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        text = _narrow(data, encoding)
    n_odd = len(_CONTROL.findall(text[:_CHECKED]))
    if n_odd > 4 + len(text[:_CHECKED]) // 100:
        raise InvalidParameter(
            f"The file is not text: {n_odd} of its first {len(text[:_CHECKED])} characters are control "
            "characters. Convert it to text, or correct the ending of its name.",
            param="file",
        )
    return _CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _narrow(data: bytes, encoding: str | None) -> str:
    if encoding is not None:
        try:
            return data.decode(encoding, "replace")
        except LookupError:
            pass
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def paragraphs(text: str, headings: tuple[str, ...] = (), page: int | None = None) -> list[Block]:
    """What blank lines separate."""
    pieces = (piece.strip() for piece in _BLANK.split(text))
    return [Block(text=piece, headings=headings, page=page) for piece in pieces if piece]


def read(data: bytes) -> list[Block]:
    return paragraphs(decoded(data))
