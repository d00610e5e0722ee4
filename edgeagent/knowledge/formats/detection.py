"""Which format a document has: by the end of its name, else by its first bytes."""

from __future__ import annotations

from typing import Literal

from edgeagent.errors import InvalidParameter

Format = Literal["markdown", "text", "html", "pdf", "docx", "csv"]

_ENDINGS: dict[str, Format] = {
    "md": "markdown", "markdown": "markdown", "rst": "text", "txt": "text", "text": "text", "log": "text",
    "htm": "html", "html": "html", "xhtml": "html", "pdf": "pdf", "docx": "docx", "csv": "csv", "tsv": "csv",
}  # fmt: skip
SUPPORTED = "Markdown (.md), text (.txt), HTML, PDF, Word (.docx) and CSV"
# Endings whose content is known to be something that is not read here.
_REFUSED = {
    "doc", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "rtf", "epub", "zip", "gz", "tar", "7z", "rar", "png",
    "jpg", "jpeg", "gif", "webp", "tif", "tiff", "mp3", "wav", "ogg", "mp4", "exe", "gguf",
}  # fmt: skip


def format_of(name: str, data: bytes) -> Format:
    """Raises: InvalidParameter for a format that is not read here."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if ending in _REFUSED:
        raise _unknown(name)
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        if ending in ("docx", ""):
            return "docx"
        raise _unknown(name)
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if head[:200].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    if b"\x00" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unknown(name)
    return "text"


def _unknown(name: str) -> InvalidParameter:
    return InvalidParameter(
        f"{name[-80:]!r} is of no format that is read here: convert it to {SUPPORTED}.",
        param="file",
    )
