"""Ctrl-C for as long as somebody talks to us in a terminal: it stops what is going on, never the program."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

TICK_S = 0.2


class Interrupts:
    """Turns Ctrl-C into a KeyboardInterrupt inside `stoppable` blocks, and into nothing between them.

    Two things make that more than a flag. Readline of CPython looks for signals only when its
    wait is interrupted: a keystroke that arrives just before the wait begins would be noticed with the
    next one, and then take the line that was typed with it. A tick while a line is read ends the wait.
    And an interrupt that arrives while a finalizer runs is dropped by the interpreter: `check` raises it.
    Main thread only.
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
        """A block that Ctrl-C ends. Raises: KeyboardInterrupt."""
        self._was_pressed = False
        self._is_stoppable = True
        try:
            yield
        finally:
            self._is_stoppable = False

    def check(self) -> None:
        """Raises: KeyboardInterrupt, when the one of a keystroke in this block was dropped."""
        if self._was_pressed:
            raise KeyboardInterrupt

    def read_line(self, prompt: str) -> str:
        """What is typed after the prompt. Raises: EOFError; KeyboardInterrupt at Ctrl-C."""
        with self.stoppable():
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
            try:
                return input(prompt)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
