"""Word documents: paragraphs, headings and tables of `word/document.xml`.

By the standard library: python-docx brings lxml, 5 MB of C for what takes a page here.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from xml.etree import ElementTree

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Block, ParserLimits
from edgeagent.knowledge.formats.headings import HeadingPath

_MAIN = "word/document.xml"
_STYLES = "word/styles.xml"
_NAMES = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_READ = 1 << 20
_MEMBERS = 10_000
_HEADING = re.compile(r"(?:heading|überschrift|titre|título|titolo|kop)\s*([1-9])", re.IGNORECASE)


def read(data: bytes, limits: ParserLimits) -> list[Block]:
    """Raises: InvalidParameter for what is no sound Word document."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.namelist()
            if len(members) > _MEMBERS:
                raise _bad(f"The file has {len(members)} parts, at most {_MEMBERS} are read.")
            if _MAIN not in members:
                raise _bad("The file is no Word document: it has no word/document.xml.")
            styles = _parsed(archive, _STYLES, limits) if _STYLES in members else None
            body = _parsed(archive, _MAIN, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise _bad(f"The Word document is damaged ({exc}): save it again.") from exc
    except ElementTree.ParseError as exc:
        raise _bad(f"The Word document has XML that is not sound ({exc}): save it again.") from exc
    return _blocks(body, _levels(styles))


def _parsed(archive: zipfile.ZipFile, name: str, limits: ParserLimits) -> ElementTree.Element:
    """One part, unpacked no further than the limit, whatever the archive says of its size."""
    parser = ElementTree.XMLParser()
    n_bytes = 0
    with archive.open(name) as member:
        while piece := member.read(_READ):
            n_bytes += len(piece)
            if n_bytes > limits.unpacked_bytes:
                raise _bad(
                    f"The Word document unpacks to more than {limits.unpacked_bytes} bytes, which is the "
                    "limit: split it, or save it as text."
                )
            if b"<!" in piece and (b"<!DOCTYPE" in piece or b"<!ENTITY" in piece):
                raise _bad(
                    "The Word document defines XML entities, which none does: save it again."
                )
            parser.feed(piece)
    root: ElementTree.Element = parser.close()
    return root


def _levels(styles: ElementTree.Element | None) -> dict[str, int]:
    """The level of each style that is a heading, by its id."""
    found: dict[str, int] = {}
    for style in styles.iter(f"{_NAMES}style") if styles is not None else ():
        name = style.find(f"{_NAMES}name")
        level = style.find(f"{_NAMES}pPr/{_NAMES}outlineLvl")
        style_id = style.get(f"{_NAMES}styleId", "")
        match = _HEADING.match(name.get(f"{_NAMES}val", "") if name is not None else "")
        if match:
            found[style_id] = int(match[1])
        elif level is not None and level.get(f"{_NAMES}val", "").isdigit():
            found[style_id] = int(level.get(f"{_NAMES}val", "0")) + 1
    return found


def _blocks(root: ElementTree.Element, levels: dict[str, int]) -> list[Block]:
    body = root.find(f"{_NAMES}body")
    path = HeadingPath()
    blocks: list[Block] = []
    for node in body if body is not None else ():
        if node.tag == f"{_NAMES}tbl":
            rows = (" | ".join(_cells(row)) for row in node.iter(f"{_NAMES}tr"))
            text = "\n".join(row for row in rows if row.strip(" |"))
        else:
            text = "\n".join(filter(None, map(_text, node.iter(f"{_NAMES}p"))))
            level = _level(node, levels)
            if level and text:
                path.enter(level, text)
                continue
        if text:
            blocks.append(Block(text=text, headings=path.titles))
    return blocks


def _cells(row: ElementTree.Element) -> list[str]:
    return [
        " ".join(filter(None, map(_text, cell.iter(f"{_NAMES}p"))))
        for cell in row.iter(f"{_NAMES}tc")
    ]


def _level(paragraph: ElementTree.Element, levels: dict[str, int]) -> int:
    style = paragraph.find(f"{_NAMES}pPr/{_NAMES}pStyle")
    name = style.get(f"{_NAMES}val", "") if style is not None else ""
    match = _HEADING.match(name)
    return levels.get(name) or (int(match[1]) if match else 0)


def _text(paragraph: ElementTree.Element) -> str:
    pieces: list[str] = []
    for node in paragraph.iter():
        if node.tag == f"{_NAMES}t":
            pieces.append(node.text or "")
        elif node.tag in (f"{_NAMES}tab", f"{_NAMES}br", f"{_NAMES}cr"):
            pieces.append(" ")
    return "".join(pieces).strip()


def _bad(message: str) -> InvalidParameter:
    return InvalidParameter(message, param="file")
