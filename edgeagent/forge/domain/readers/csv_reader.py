"""Reads CSV: a header with `text` and `intent`, and optionally `answer`; comma, semicolon, tab or bar.

Columns may have other usual names (`column_names`); of two columns one is enough that is known.

A text that was marked so that spreadsheets do not compute it is read without the mark
(`types/spreadsheet_cell`).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.example import Domain, Note, Place
from edgeagent.forge.domain.readers.column_names import ANSWER, INTENT, TEXT, column_name
from edgeagent.forge.domain.readers.inline_slots import add_marked
from edgeagent.forge.domain.readers.text_lines import read_text
from edgeagent.types.spreadsheet_cell import text_of_cell

# The first line of what Excel exports.
_SEPARATOR = re.compile(r"\s*sep=(.)\s*?\r?\n", re.IGNORECASE)


def read_csv(path: Path) -> Domain:
    """Raises: ForgeFailed."""
    domain = Domain()
    text = read_text(path, domain.notes)
    said = _SEPARATOR.match(text)
    if said is not None:
        text = text[said.end() :]
    first = text.lstrip().partition("\n")[0]
    delimiter = said[1] if said is not None else _delimiter(first)
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    columns: tuple[int, int, int | None] | None = None
    before = int(said is not None)
    end = before  # the last line of the row before: a quoted text may have several
    try:
        for row in rows:
            place, end = Place(path, end + 1), rows.line_num + before
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _columns(domain, row, place)
                continue
            _add(domain, row, columns, place)
    except csv.Error as exc:
        place = Place(path, rows.line_num + before)
        if "field limit" in str(exc):
            raise ForgeFailed(
                f"{place}: a cell has more than {csv.field_size_limit()} characters: shorten "
                "it, or close the quotes of the cell before."
            ) from exc
        raise ForgeFailed(
            f"{place}: not CSV ({exc}): put texts with quotes or separators into "
            "quotes, and double the quotes in them."
        ) from exc
    return domain


def _delimiter(header: str) -> str:
    """The separator by which most columns have a known name, then the most frequent one."""
    known = {*TEXT, *INTENT, *ANSWER}

    def likely(sign: str) -> tuple[int, int]:
        cells = header.split(sign)
        return sum(column_name(cell.strip('"')) in known for cell in cells), len(cells)

    return max(",;\t|", key=likely)


def _columns(domain: Domain, header: Sequence[str], place: Place) -> tuple[int, int, int | None]:
    names = [column_name(cell) for cell in header]

    def find(wanted: Sequence[str]) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    text, intent, answer = find(TEXT), find(INTENT), find(ANSWER)
    if len(names) == 2 and answer is None and (text is None) != (intent is None):
        other = 1 - (text if text is not None else intent or 0)
        what = "text" if text is None else "intent"
        said = f"the column {header[other].strip()[:80]!r} is taken for the {what}."
        domain.notes.append(Note(place, said))
        text, intent = (other, intent) if text is None else (text, other)
    if text is None or intent is None:
        raise ForgeFailed(
            f"{place}: the header has {', '.join(map(repr, header))[:120]}, and needs 'text' and 'intent': "
            "write the names of the columns into the first line."
        )
    return text, intent, answer


def _add(
    domain: Domain, row: Sequence[str], columns: tuple[int, int, int | None], place: Place
) -> None:
    text, intent, answer = columns
    if len(row) <= max(text, intent):
        raise ForgeFailed(
            f"{place}: the row has {len(row)} columns, and {max(text, intent) + 1} are needed: add the "
            "missing one, or put a text with the separator into quotes."
        )
    has_answer = answer is not None and len(row) > answer and bool(row[answer].strip())
    if row[text].strip() or not has_answer:
        add_marked(domain, text_of_cell(row[text]), row[intent], place)
    if answer is not None and has_answer:
        domain.answers[domain.intent(row[intent], place)] = text_of_cell(row[answer].strip())
