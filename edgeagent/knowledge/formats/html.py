"""HTML: its visible text by blocks. Scripts and styles are dropped, nothing is run or fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from edgeagent.knowledge.document import Block
from edgeagent.knowledge.formats.headings import HeadingPath
from edgeagent.knowledge.formats.plain_text import decoded

_HIDDEN = {
    "script", "style", "template", "noscript", "svg", "math", "head", "iframe", "object", "select", "nav",
}  # fmt: skip
_BLOCKS = {
    "p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "li", "dl", "dt", "dd",
    "table", "tr", "blockquote", "pre", "figure", "figcaption", "form", "hr", "body", "h1", "h2", "h3", "h4",
    "h5", "h6", "details", "summary", "address",
}  # fmt: skip
_TITLES = {"h1", "h2", "h3", "h4", "h5", "h6"}
_VOID = {
    "br",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "area",
    "base",
    "col",
    "embed",
    "source",
    "track",
    "wbr",
}
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{1,40})", re.IGNORECASE
)


def read(data: bytes) -> list[Block]:
    found = _CHARSET.search(data[:4096])
    page = _Page()
    page.feed(decoded(data, found[1].decode("ascii") if found else None))
    page.close()
    page.flush()
    return page.blocks


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._path = HeadingPath()
        self._pieces: list[str] = []
        self._hidden: list[str] = []  # open elements whose content is not shown
        self._title = 0
        self._is_verbatim = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if tag in _HIDDEN or (self._hidden and tag == self._hidden[-1]) or "hidden" in names:
            if tag not in _VOID:
                self._hidden.append(tag)
        elif tag == "br":
            self._pieces.append("\n" if self._is_verbatim else " ")
        elif tag in ("td", "th") and "".join(self._pieces).strip():
            self._pieces.append(" | ")
        elif tag in _BLOCKS:
            self.flush()
            self._title = int(tag[1]) if tag in _TITLES else 0
            self._is_verbatim = tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                while self._hidden.pop() != tag:
                    pass
        elif tag in _BLOCKS:
            self.flush()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data)

    def flush(self) -> None:
        """End the block that is open."""
        text = "".join(self._pieces)
        self._pieces = []
        text = text.strip("\n") if self._is_verbatim else " ".join(text.split())
        title, self._title, self._is_verbatim = self._title, 0, False
        if not text.strip():
            return
        if title:
            self._path.enter(title, text)
        else:
            self.blocks.append(Block(text=text, headings=self._path.titles))
