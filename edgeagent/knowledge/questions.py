"""When two questions are the same. Pure."""

from __future__ import annotations

import unicodedata

_KEY_CHARS = 400


def question_key(text: str) -> str:
    """A question without case, marks and space: equal for "When?" and " when "."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c if c.isalnum() else " " for c in folded).split()
    return " ".join(words)[:_KEY_CHARS]
