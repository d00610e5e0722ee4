"""Documents of every format become chunks under their headings, and bad ones clear errors."""

from __future__ import annotations

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Block, Chunk, ChunkSizes, ParserLimits
from edgeagent.knowledge.formats.detection import format_of
from edgeagent.knowledge.parsing import clean, parse
from tests.knowledge.documents import docx, paragraph, pdf, zip_bomb

SIZES = ChunkSizes()
LIMITS = ParserLimits(unpacked_bytes=2 << 20, n_pages=400, n_chunks=1000)

MARKDOWN = b"""---
title: x
---
# Ferries

Intro **bold**.

## Times & *fares*

- One at 9
- Two at 10

```sh
# no heading
```

| a | b |
|---|---|
| 1 | 2 |

Back
====

End.
"""
HTML = b"""<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
<nav>Menu</nav><h1>Ferries</h1><p>Leaves at <b>9</b> &amp; 10.<script>alert("x")</script></p>
<table><tr><td>a</td><td>1</td></tr></table><h2>Fares</h2><pre>x
 y</pre><p hidden>secret</p><p>5 euros</body></html>"""


def read(name: str, data: bytes, sizes: ChunkSizes = SIZES) -> list[Chunk]:
    return parse(name, data, sizes, LIMITS)


def test_markdown_keeps_its_headings_and_code() -> None:
    chunks = read("a.md", MARKDOWN)
    assert [chunk.headings for chunk in chunks] == ["Ferries", "Ferries > Times & fares", "Back"]
    assert "# no heading" in chunks[1].text and "| 1 | 2 |" in chunks[1].text
    assert chunks[0].text == "Intro **bold**." and "title: x" not in chunks[0].text


def test_html_is_its_visible_text() -> None:
    chunks = read("a.html", HTML)
    assert [chunk.headings for chunk in chunks] == ["Ferries", "Ferries > Fares"]
    assert chunks[0].text == "Leaves at 9 & 10.\n\na | 1"
    assert chunks[1].text == "x\n y\n\n5 euros"


def test_pdf_pages_are_numbered() -> None:
    chunks = read("a.pdf", pdf("The ferry leaves at nine.", "Dogs travel free (small ones)."))
    assert "ferry leaves" in chunks[0].text and chunks[0].page == 1
    assert "Dogs travel free (small ones)." in "".join(chunk.text for chunk in chunks)


def test_300_pages_are_read() -> None:
    chunks = read("a.pdf", pdf(*(f"Page {n} tells of harbour {n}." for n in range(300))))
    assert "harbour 299" in chunks[-1].text


def test_word_document_has_headings_and_tables() -> None:
    row = f"<w:tr><w:tc>{paragraph('a')}</w:tc><w:tc>{paragraph('b')}</w:tc></w:tr>"
    body = paragraph("Fares", "Heading1") + paragraph("Five euros.") + f"<w:tbl>{row}</w:tbl>"
    (chunk,) = read("a.docx", docx(body))
    assert chunk.headings == "Fares" and chunk.text == "Five euros.\n\na | b"


@pytest.mark.parametrize(
    "data",
    [
        b"question,answer\nWhen?,At nine.\n,\nHow?,By ferry.\n",
        b"Id;Frage;Antwort\n1;When?;At nine.\n2;How?;By ferry.\n",
        b"When?,At nine.\nHow?,By ferry.\n",
    ],
)
def test_csv_of_questions_is_pairs(data: bytes) -> None:
    found = [(chunk.text, chunk.answer) for chunk in read("faq.csv", data)]
    assert found == [("When?", "At nine."), ("How?", "By ferry.")]


def test_another_csv_is_its_rows() -> None:
    (chunk,) = read("a.csv", b"port,fare,days\nOban,5,Mon\nMull,6,Tue\n")
    assert chunk.text == "port: Oban; fare: 5; days: Mon\n\nport: Mull; fare: 6; days: Tue"
    assert chunk.answer is None


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", pdf(*[""] * 3), "3 pages and 0 letters"),
        ("a.pdf", pdf(*["x"] * 401), "401 pages"),
        ("a.pdf", b"%PDF-1.4\nnothing", "damaged"),
        ("a.docx", zip_bomb(8 << 20), "unpacks to more than"),
        ("a.docx", b"PK\x03\x04 no archive", "damaged"),
        ("a.docx", docx("<w:p>"), "XML that is not sound"),
        ("a.xlsx", b"PK\x03\x04", "no format that is read here"),
        ("a.txt", bytes(range(32)) * 40, "not text"),
        ("a", b"\x7fELF\x00\x00", "no format that is read here"),
        ("a.html", b"<script>var x = 1;</script>", "no text"),
        ("a.md", b" \n\n", "no text"),
        ("a.txt", b"a b.\n\n" * 300_000, "more than 1000 chunks"),
    ],
)  # fmt: skip
def test_bad_documents_are_refused_with_a_reason(name: str, data: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        read(name, data)


def test_entities_of_xml_are_refused() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "b">]><w:document/>'
    with pytest.raises(InvalidParameter, match="defines XML entities"):
        read("a.docx", docx("", extra={"word/styles.xml": bomb}))


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.PDF", b"x", "pdf"),
        ("noname", b"\xef\xbb\xbf<!DOCTYPE HTML>", "html"),
        ("page.txt", b"%PDF-1.7", "pdf"),
        ("notes", "Größe".encode("utf-16"), "text"),
        ("../../etc/a.md", b"x", "markdown"),
    ],
)
def test_the_format_is_found(name: str, data: bytes, kind: str) -> None:
    assert format_of(name, data) == kind


def test_what_no_database_takes_is_replaced() -> None:
    block = Block(text="a\x00b\ud800c\n", headings=("x\x1b",), answer="y\udfff")
    assert clean(block) == Block(text="a b c\n", headings=("x ",), answer="y ")
    assert clean(Block(text="a\tb")).text == "a\tb"


def test_text_of_other_encodings_is_read() -> None:
    assert read("a.txt", "Größe".encode("cp1252"))[0].text == "Größe"
    assert read("a.txt", "Größe".encode("utf-16"))[0].text == "Größe"
    latin = '<meta charset="iso-8859-1"><p>Größe'.encode("latin-1")
    assert read("a.html", latin)[0].text == "Größe"
