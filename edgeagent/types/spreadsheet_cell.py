"""Texts in cells of CSV that a spreadsheet shows and does not compute.

Spreadsheets take a cell that begins with = + - or @ for a formula, which can call programs or send what is in
other cells away. Everything that writes what others have said into CSV marks such texts, and what reads
our CSV takes the mark off.
"""

from __future__ import annotations

# Signs of formulas, also as wide as a Chinese character, and characters before which they are found, too.
_SIGNS = tuple("=+-@＝＋－＠")
_CONTROLS = tuple("\t\r\n")
_MARK = "'"


def as_text_cell(text: str) -> str:
    """A cell that a spreadsheet shows and does not compute."""
    return _MARK + text if _is_computed(text.lstrip(_MARK)) else text


def text_of_cell(cell: str) -> str:
    """What `as_text_cell` was given."""
    is_marked = cell.startswith(_MARK) and _is_computed(cell.lstrip(_MARK))
    return cell[1:] if is_marked else cell


def _is_computed(text: str) -> bool:
    return text.startswith(_CONTROLS) or text.lstrip().startswith(_SIGNS)
