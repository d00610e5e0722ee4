"""A pseudo terminal with a program in it, as a person would use it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time


class Terminal:
    """A program on a pseudo terminal, and what it has shown."""

    def __init__(self, command: list[str]) -> None:
        self.shown = ""
        ours, theirs = pty.openpty()
        self.fd = ours
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"TERM": "dumb"},
        )  # fmt: skip
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, pattern: str, timeout_s: float = 60) -> str:
        """Read until the pattern shows up; gives what was shown before it and forgets up to its end."""
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.shown)) is None:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], (pattern, self.shown)
            try:
                self.shown += os.read(self.fd, 4096).decode(errors="replace")
            except OSError as exc:
                raise AssertionError(f"ended before {pattern!r}: {self.shown}") from exc
        before, self.shown = self.shown[: found.start()], self.shown[found.end() :]
        return before
