"""Options that the commands for recordings and for live speech share."""

from __future__ import annotations

from pathlib import Path

from edgeagent.errors import InvalidParameter
from edgeagent.speech.languages import language_code


def language_of(given: str | None) -> str | None:
    """The code of a language. Raises: InvalidParameter."""
    if given is None:
        return None
    code = language_code(given)
    if code is None:
        raise InvalidParameter(f"Language {given[:40]!r} is not known: give a code such as en.")
    return code


def vocabulary_of(path: Path | None) -> tuple[str, ...]:
    """The words of a file, one a line; lines that begin with # are none. Raises: InvalidParameter."""
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as exc:
        raise InvalidParameter(f"{path} is not UTF-8 text: save it as such.") from exc
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
