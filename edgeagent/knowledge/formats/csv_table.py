"""CSV: questions with their answers, or the rows of any table."""

from __future__ import annotations

import csv
import io

from edgeagent.errors import InvalidParameter
from edgeagent.knowledge.document import Block
from edgeagent.knowledge.formats.plain_text import decoded

_QUESTION = {"question", "questions", "q", "frage", "prompt", "domanda", "pregunta", "vraag"}
_ANSWER = {
    "answer",
    "answers",
    "a",
    "antwort",
    "reponse",
    "réponse",
    "risposta",
    "respuesta",
    "antwoord",
}
_FIELD_CHARS = 1 << 17


def read(data: bytes) -> list[Block]:
    """Rows of a table with the columns `question` and `answer`, or of two columns, are questions with
    answers. Raises: InvalidParameter for a table that cannot be read."""
    text = decoded(data)
    csv.field_size_limit(_FIELD_CHARS)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text), delimiter=_delimiter(text)) if any(row)
        ]
    except csv.Error as exc:
        raise InvalidParameter(
            f"The CSV cannot be read ({exc}): correct it.", param="file"
        ) from exc
    if not rows:
        return []
    header = [cell.strip().lower() for cell in rows[0]]
    question = next((n for n, name in enumerate(header) if name in _QUESTION), None)
    answer = next((n for n, name in enumerate(header) if name in _ANSWER), None)
    if question is not None and answer is not None:
        return _pairs(rows[1:], question, answer)
    if all(len(row) == 2 for row in rows):
        return _pairs(rows, 0, 1)
    return _table(rows)


def _delimiter(text: str) -> str:
    """The separator that the first line has most of."""
    first = text.lstrip("\n").split("\n", 1)[0]
    return max(",;\t|", key=first.count)


def _pairs(rows: list[list[str]], question: int, answer: int) -> list[Block]:
    found = []
    for row in rows:
        if len(row) > max(question, answer) and row[question].strip() and row[answer].strip():
            found.append(Block(text=row[question].strip(), answer=row[answer].strip()))
    return found


def _table(rows: list[list[str]]) -> list[Block]:
    header = [cell.strip() for cell in rows[0]]
    blocks = []
    for row in rows[1:]:
        cells = [
            f"{header[n]}: {cell.strip()}" if n < len(header) and header[n] else cell.strip()
            for n, cell in enumerate(row)
            if cell.strip()
        ]
        if cells:
            blocks.append(Block(text="; ".join(cells)))
    return blocks
