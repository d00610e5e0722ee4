"""Documents of made-up organisations, with questions that they answer and questions that come near.

    % Kelmond Harbour Library | public library
    # Opening hours
    The main hall opens at 9:00 on weekdays and closes at 19:00.
    Q+ When does the library open on a Tuesday? | opens at 9:00 on weekdays
    Q- Is the library open on Sundays?

`Q+`: this document answers it, with these words of one of its lines. `Q-`: no document of the organisation
does, though it is about the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Question:
    """`words` of the text that answer it; None: nothing does."""

    text: str
    words: str | None


@dataclass
class Document:
    title: str
    lines: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    @property
    def markdown(self) -> str:
        return "\n".join([f"# {self.title}", "", *self.lines]).strip() + "\n"


@dataclass
class Organisation:
    name: str
    kind: str
    documents: list[Document] = field(default_factory=list)

    @property
    def share(self) -> float:
        """A number 0..1 of its name, by which some are held out."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32


def organisation(text: str) -> Organisation:
    """The organisation of one file. Raises: ValueError, with the number of the line."""
    found: Organisation | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("% "):
            name, _, kind = line[2:].partition(" | ")
            found = Organisation(name.strip(), kind.strip())
            continue
        if found is None:
            raise ValueError(f"line {number}: the first line is `% name | kind`")
        if line.startswith("# "):
            found.documents.append(Document(line[2:].strip()))
            continue
        if not found.documents:
            if line.strip():
                raise ValueError(f"line {number}: a document begins with `# Title`")
            continue
        document = found.documents[-1]
        if line.startswith("Q+ "):
            asked, _, words = line[3:].partition(" | ")
            if not words or not any(words.strip() in told for told in document.lines):
                raise ValueError(f"line {number}: no line of the text has the words {words!r}")
            document.questions.append(Question(asked.strip(), words.strip()))
        elif line.startswith("Q- "):
            document.questions.append(Question(line[3:].strip(), None))
        else:
            document.lines.append(line.rstrip())
    if found is None:
        raise ValueError("the file is empty")
    return found


def organisations(files: Iterable[Path]) -> Iterator[Organisation]:
    """Raises: ValueError, with the name of the file."""
    for file in sorted(files):
        try:
            yield organisation(file.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ValueError(f"{file.name}, {exc}") from exc
