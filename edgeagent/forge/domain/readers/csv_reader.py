"""Reads CSV: a header with `text` and `intent`, and optionally `answer`; comma, semicolon or tab.

Spreadsheets compute cells that begin as formulas do. `as_text_cell` writes what others have said so that they
do not, and a text that was written so is read without the mark.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.example import Domain, Place, intent_name
from edgeagent.forge.domain.readers.inline_slots import add_marked
from edgeagent.forge.domain.readers.text_lines import read_text

_TEXT = ("text", "utterance", "sentence", "example", "question", "query")
_INTENT = ("intent", "label", "category", "class")
_ANSWER = ("answer", "response")
_FORMULA = tuple("=+-@\t\r")
_TEXT_MARK = "'"


def as_text_cell(text: str) -> str:
    """A cell that a spreadsheet shows and does not compute."""
    return _TEXT_MARK + text if text.startswith(_FORMULA) else text


def _said(cell: str) -> str:
    return cell[1:] if cell.startswith(_TEXT_MARK) and cell[1:].startswith(_FORMULA) else cell


def read_csv(path: Path) -> Domain:
    """Raises: ForgeFailed."""
    text = read_text(path)
    first = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    domain = Domain()
    columns: tuple[int, int, int | None] | None = None
    end = 0  # the last line of the row before: a quoted text may have several
    try:
        for row in rows:
            place, end = Place(path, end + 1), rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _columns(row, place)
                continue
            _add(domain, row, columns, place)
    except csv.Error as exc:
        if "field limit" in str(exc):
            raise ForgeFailed(
                f"{path}:{rows.line_num}: a cell has more than {csv.field_size_limit()} characters: shorten "
                "it, or close the quotes of the cell before."
            ) from exc
        raise ForgeFailed(
            f"{path}:{rows.line_num}: not CSV ({exc}): put texts with quotes or separators into "
            "quotes, and double the quotes in them."
        ) from exc
    return domain


def _columns(header: Sequence[str], place: Place) -> tuple[int, int, int | None]:
    names = [cell.strip().lower() for cell in header]

    def find(wanted: Sequence[str]) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    text, intent = find(_TEXT), find(_INTENT)
    if text is None or intent is None:
        raise ForgeFailed(
            f"{place}: the header has {', '.join(map(repr, names))[:120]}, and needs 'text' and 'intent': "
            "write text,intent into the first line."
        )
    return text, intent, find(_ANSWER)


def _add(
    domain: Domain, row: Sequence[str], columns: tuple[int, int, int | None], place: Place
) -> None:
    text, intent, answer = columns
    if len(row) <= max(text, intent):
        raise ForgeFailed(
            f"{place}: the row has {len(row)} columns, and {max(text, intent) + 1} are needed: add the "
            "missing one, or put a text with the separator into quotes."
        )
    add_marked(domain, _said(row[text]), row[intent], place)
    if answer is not None and len(row) > answer and row[answer].strip():
        domain.answers[intent_name(row[intent], place)] = _said(row[answer].strip())
