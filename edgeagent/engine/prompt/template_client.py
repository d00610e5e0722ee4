"""The worker's side of the process that runs a model's chat template."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable
from typing import Any

import msgspec

from edgeagent.engine.process import helper_process
from edgeagent.engine.prompt.template_protocol import LENGTH, RenderAnswer, RenderRequest, framed
from edgeagent.errors import TemplateFailed, Unavailable

logger = logging.getLogger(__name__)

MAX_PROMPT_BYTES = 16 << 20
START_TIMEOUT_S = 20.0
# How often `beat` is called during a wait for the process.
BEAT_S = 0.5


class _NoAnswer(Exception):
    """The process has not answered in time."""


class TemplateRefused(TemplateFailed):
    """The template itself raised an error; `reason` is its message."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The model's chat template refused these messages: {reason}. "
            "Change the messages, or send a plain prompt to /v1/completions."
        )
        self.reason = reason


class TemplateHost:
    """Starts the process, sends it requests, and replaces it when it does not answer. Used by one thread;
    `close()` may be called twice. `beat` is called during waits, each of which has a deadline."""

    def __init__(
        self, template: str, timeout_s: float, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._template = template
        self._timeout_s = timeout_s
        self._beat = beat
        self._process: helper_process.Helper | None = None
        self._is_warm = False

    def start(self) -> None:
        """Start the process."""
        self._process = helper_process.start("template")
        os.set_blocking(self._process.stdin.fileno(), False)
        self._is_warm = False
        self._is_greeted = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None else None

    def rss_bytes(self) -> int:
        """Resident memory of the process, 0 without one. Any thread may call it."""
        process = self._process
        return process.rss_bytes() if process is not None else 0

    def replace_template(self, template: str) -> None:
        """Render with another template from now on."""
        self._template = template
        self._is_warm = False

    def render(self, variables: dict[str, Any]) -> str:
        """The rendered prompt.

        A process that does not accept the request is replaced once. Raises: TemplateFailed when the template
        refuses, fails or takes too long; Unavailable when the new process does not accept it either.
        """
        try:
            answer = self._asked(variables)
        except _NoAnswer:
            logger.warning("template_process_replaced reason=silent")
            try:
                answer = self._asked(variables)
            except _NoAnswer:
                raise Unavailable(
                    "The process that renders chat templates does not answer: try again.",
                    retry_after_s=5.0,
                ) from None
        if answer.error is not None:
            raise TemplateRefused(answer.error)
        self._is_warm = True
        return answer.text or ""

    def _asked(self, variables: dict[str, Any]) -> RenderAnswer:
        """Raises: TemplateFailed; _NoAnswer for a process that does not accept the request."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        try:
            if not self._is_greeted:
                # The start of the process has a deadline of its own, which does not count for the template.
                self._read(START_TIMEOUT_S)
                self._is_greeted = True
            self._write(
                framed(RenderRequest(None if self._is_warm else self._template, variables)),
                time.monotonic() + self._timeout_s,
            )
            self._read(self._timeout_s)  # the request was accepted: the template's time starts
        except _NoAnswer:
            self.close()
            raise
        except (OSError, EOFError):
            self.close()
            raise _NoAnswer from None
        try:
            return self._read(self._timeout_s)
        except _NoAnswer:
            self.close()
            raise TemplateFailed(
                f"The model's chat template ran longer than {self._timeout_s:g} s and was ended. "
                "Send a plain prompt to /v1/completions, or install the model with another template."
            ) from None
        except (OSError, EOFError) as exc:
            self.close()
            raise TemplateFailed(
                "The model's chat template ended its process: it asked for too much memory. "
                "Send a plain prompt to /v1/completions, or install the model with another template."
            ) from exc

    def _write(self, data: bytes, deadline: float) -> None:
        assert self._process is not None
        fd, rest = self._process.stdin.fileno(), memoryview(data)
        while rest:
            self._wait(deadline, write=fd)
            rest = rest[os.write(fd, rest) :]

    def _read(self, timeout_s: float) -> RenderAnswer:
        deadline = time.monotonic() + timeout_s
        head = self._read_exactly(LENGTH.size, deadline)
        (length,) = LENGTH.unpack(head)
        if length > MAX_PROMPT_BYTES:
            self.close()
            raise TemplateFailed(
                f"The chat template made a prompt of {length} bytes, the bound is {MAX_PROMPT_BYTES}. "
                "Send shorter messages."
            )
        return msgspec.msgpack.decode(self._read_exactly(length, deadline), type=RenderAnswer)

    def _read_exactly(self, n: int, deadline: float) -> bytes:
        assert self._process is not None
        fd = self._process.stdout.fileno()
        data = bytearray()
        while len(data) < n:
            self._wait(deadline, read=fd)
            piece = os.read(fd, n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _wait(self, deadline: float, *, read: int | None = None, write: int | None = None) -> None:
        """Wait until a pipe is ready. Raises: _NoAnswer at the deadline."""
        reads, writes = ([fd] if fd is not None else [] for fd in (read, write))
        while True:
            self._beat()
            left = deadline - time.monotonic()
            ready = select.select(reads, writes, [], max(0.0, min(left, BEAT_S)))
            if ready[0] or ready[1]:
                return
            if left <= 0:
                raise _NoAnswer

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()
