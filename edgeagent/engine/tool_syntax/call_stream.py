"""Reads tool calls from a text that is being generated, in whatever notation their arguments are written."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Protocol

from edgeagent.types.answer import CallDelta


class ArgumentsReader(Protocol):
    """Reads the arguments of one call, piece by piece."""

    @property
    def is_whole(self) -> bool: ...

    def take(self, text: str) -> tuple[int, str]:
        """How many characters were read, and the JSON that they are. The rest is passed again, with more
        behind it; text behind the arguments is not read."""
        ...


class CallStream(ABC):
    """Reads calls: `head` matches what stands before the arguments, with the name in its group `name`.
    Text of which no more than `max_head` characters may belong to a head is dropped."""

    max_head: int

    def __init__(self, head: re.Pattern[str]) -> None:
        self._head = head
        self._held = ""
        self._n_calls = 0
        self._name = ""
        self._value: ArgumentsReader | None = None
        self._arguments: list[str] = []
        self._finished: list[tuple[str, str]] = []

    @abstractmethod
    def _new_value(self) -> ArgumentsReader: ...

    def _name_of(self, written: str) -> str:
        """The name of the tool, from how a call writes it."""
        return written

    def feed(self, text: str) -> list[CallDelta]:
        self._held += text
        out: list[CallDelta] = []
        while self._held:
            if self._value is None:
                head = self._head.search(self._held)
                if head is None:
                    self._held = self._held[-self.max_head :]
                    break
                self._held = self._held[head.end() :]
                self._name = self._name_of(head["name"])
                self._value = self._new_value()
                out.append(CallDelta(self._n_calls, "", self._name))
            n, piece = self._value.take(self._held)
            self._held = self._held[n:]
            if piece:
                self._arguments.append(piece)
                out.append(CallDelta(self._n_calls, piece))
            if not self._value.is_whole:
                break
            self._finished.append((self._name, "".join(self._arguments)))
            self._arguments, self._value = [], None
            self._n_calls += 1
        return out

    def finished(self) -> list[tuple[str, str]]:
        out, self._finished = self._finished, []
        return out
