"""Turns token bytes into text for the client: complete code points, and nothing of a stop string."""

from __future__ import annotations

import codecs


class StopFilter:
    """Passes text on up to the first stop string. Text that may become one is held back."""

    def __init__(self, stop: list[str]) -> None:
        self._stop = [s for s in stop if s]
        self._held = ""
        self.stopped_by: str | None = None

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    def push(self, text: str) -> str:
        """Text that became certain; sets `stopped_by` once a stop string is complete."""
        if not self._stop:
            return text
        if self.is_stopped:
            return ""
        self._held += text
        found = [(i, s) for s in self._stop if (i := self._held.find(s)) >= 0]
        if found:
            cut, self.stopped_by = min(found)
            out, self._held = self._held[:cut], ""
            return out
        keep = max((_overlap(self._held, s) for s in self._stop), default=0)
        split = len(self._held) - keep
        out, self._held = self._held[:split], self._held[split:]
        return out

    def finish(self) -> str:
        """The text that was held back, when no more follows."""
        out, self._held = self._held, ""
        return out


class TextStream:
    """The text of one sequence. Used by one thread.

    Bytes of an incomplete code point and text that may become a stop string are held back. The cost of a
    token does not grow with the length of the answer.
    """

    def __init__(self, stop: list[str]) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._filter = StopFilter(stop)

    @property
    def is_stopped(self) -> bool:
        return self._filter.is_stopped

    @property
    def stopped_by(self) -> str | None:
        """The stop string that has come."""
        return self._filter.stopped_by

    def push(self, piece: bytes) -> str:
        """Text that became certain with `piece`; sets `is_stopped` once a stop string is complete."""
        return self._filter.push(self._decode(piece))

    def finish(self) -> str:
        """The text that was held back, when no more follows. An incomplete code point is dropped."""
        return self._filter.finish()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
