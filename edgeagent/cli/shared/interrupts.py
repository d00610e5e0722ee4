"""Ctrl-C in an interactive command: it stops the current action, not the program."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

TICK_S = 0.2


class Interrupts:
    """Turns Ctrl-C into a KeyboardInterrupt inside `stoppable` blocks, and ignores it elsewhere.

    A flag alone does not suffice. CPython's readline looks for signals only when its wait is interrupted: a
    Ctrl-C just before the wait would take effect with the next keystroke and discard the typed line, so a
    timer ends the wait regularly. And the interpreter drops an interrupt that arrives in a finalizer: `check`
    raises it later. Main thread only.
    """

    def __init__(self) -> None:
        self._is_stoppable = False
        self._was_pressed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._pressed)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._is_stoppable = False
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pressed(self, *_: object) -> None:
        if self._is_stoppable:
            self._was_pressed = True
            raise KeyboardInterrupt

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """A block that Ctrl-C interrupts. Raises: KeyboardInterrupt."""
        self._was_pressed = False
        self._is_stoppable = True
        try:
            yield
        finally:
            self._is_stoppable = False

    def check(self) -> None:
        """Raises: KeyboardInterrupt if one was dropped in this block."""
        if self._was_pressed:
            raise KeyboardInterrupt

    def read_line(self, prompt: str) -> str:
        """The line typed after the prompt. Raises: EOFError; KeyboardInterrupt at Ctrl-C."""
        with self.stoppable():
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
            try:
                return input(prompt)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
