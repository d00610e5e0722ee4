"""The titles above a place in a document."""

from __future__ import annotations

_CHARS = 200


class HeadingPath:
    """Keeps the current title of each level."""

    def __init__(self) -> None:
        self._titles: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        """A title begins: those of its level and below end."""
        title = " ".join(title.split())[:_CHARS]
        self._titles = [held for held in self._titles if held[0] < level]
        if title:
            self._titles.append((level, title))

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._titles)
