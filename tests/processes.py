"""Tests that start processes: found before they run, and held to it while they run.

`scripts/test --quick` leaves out tests with the mark `process`. A test gets it when its own code, or that of
a fixture that it uses, names something in `STARTERS`, directly or through helper functions of the tests.
What this cannot see is marked by hand: `pytestmark = pytest.mark.process`. A test that starts a process
without the mark fails, so that `--quick` stays quick.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

import pytest

from tests import prefork

MARK = "process"
# Names that a function uses where it starts a process: of the standard library and of edgeagent.
STARTERS = {
    "Popen", "fork_server", "create_subprocess_exec", "create_subprocess_shell", "posix_spawn", "fork",
    "EngineClient", "Preload", "Pool", "PromptBuilder", "TemplateHost", "check_template", "try_out",
}  # fmt: skip
EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", prefork.EVENT})
# `subprocess.run` and its relatives, whose names alone say nothing.
_OF_SUBPROCESS = {"run", "call", "check_call", "check_output"}


def starts_process(item: pytest.Item) -> bool:
    """Whether the code of a test or of one of its fixtures starts a process, as far as can be seen."""
    functions = [getattr(item, "function", None)]
    info = getattr(item, "_fixtureinfo", None)
    if info is not None:
        functions += [defs[-1].func for defs in info.name2fixturedefs.values() if defs]
    return any(_starts(function) for function in functions if function is not None)


@functools.cache
def _starts(function: Any) -> bool:
    """Asked once of each: a function has many tests (its parameters), a fixture hundreds."""
    return any(_names_starter(found) for found in _reached(inspect.unwrap(function), set()))


def _reached(thing: Any, seen: set[int]) -> Iterator[FunctionType]:
    """A function and all functions of the tests that it reaches by their names."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        thing = thing.func
    if isinstance(thing, MethodType):
        thing = thing.__func__
    if isinstance(thing, type):
        for member in vars(thing).values():
            yield from _reached(inspect.unwrap(getattr(member, "__func__", member)), seen)
    if not isinstance(thing, FunctionType) or not _is_ours(thing):
        return
    yield thing
    for name in _names(thing.__code__):
        other = thing.__globals__.get(name)
        if _is_ours(other):
            yield from _reached(inspect.unwrap(other), seen)


def _is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith(("tests.", "scripts."))


def _names_starter(function: FunctionType) -> bool:
    names = set(_names(function.__code__))
    return bool(names & STARTERS) or ("subprocess" in names and bool(names & _OF_SUBPROCESS))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class Watch:
    """Names the first process that a test without the mark starts. One per process that runs tests."""

    def __init__(self) -> None:
        self._is_free = True
        self._started: str | None = None

        # Called for every file that is opened and every module that is imported: it looks at the name first.
        def hear(event: str, arguments: tuple[Any, ...], events: frozenset[str] = EVENTS) -> None:
            if event in events:
                self._note(event, arguments)

        sys.addaudithook(hear)

    def begin(self, *, may_start: bool) -> None:
        self._is_free, self._started = may_start, None

    def end(self) -> str | None:
        """What was started although the test has no mark."""
        started, self._is_free, self._started = self._started, True, None
        return started

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_free and self._started is None:
            self._started = f"{event} {arguments[1] if len(arguments) > 1 else ''}"[:200]
