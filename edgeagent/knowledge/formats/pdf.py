"""PDF: the text of its pages, by pypdf. Pictures of text are not read."""

from __future__ import annotations

import io
import logging
import re

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Block, ParserLimits
from edgeagent.knowledge.formats.plain_text import paragraphs

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its warnings quote the document
_LETTERS_PER_PAGE = 5
_HYPHEN = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
_WORD = re.compile(r"\w")


def read(data: bytes, limits: ParserLimits) -> list[Block]:
    """Raises: InvalidParameter for a PDF that is damaged, locked, too long or without text."""
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _bad("The PDF is protected by a password: save it without one.")
        n_pages = len(reader.pages)
        if n_pages > limits.n_pages:
            raise _bad(
                f"The PDF has {n_pages} pages, at most {limits.n_pages} are read: split it into several "
                "files."
            )
        return _pages(reader, n_pages, limits)
    except (InvalidParameter, MemoryError):
        raise
    except (PyPdfError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError,
            AssertionError, ArithmeticError, NotImplementedError, OSError) as exc:  # fmt: skip
        raise _bad(
            f"The PDF is damaged ({type(exc).__name__}): open it in a viewer and save it again."
        ) from exc


def _pages(reader: PdfReader, n_pages: int, limits: ParserLimits) -> list[Block]:
    blocks: list[Block] = []
    n_chars = n_letters = 0
    for number in range(n_pages):
        text = _HYPHEN.sub("", reader.pages[number].extract_text() or "")
        n_chars += len(text)
        n_letters += len(_WORD.findall(text))
        if n_chars > limits.unpacked_bytes:
            raise _bad(
                f"The PDF has more than {limits.unpacked_bytes} characters of text: split it."
            )
        blocks += paragraphs(text, page=number + 1)
    if n_letters < _LETTERS_PER_PAGE * n_pages:
        raise _bad(
            f"The PDF has {n_pages} pages and {n_letters} letters of text, so it is a scan: recognise its "
            "text first, for example with ocrmypdf."
        )
    return blocks


def _bad(message: str) -> InvalidParameter:
    return InvalidParameter(message, param="file")
