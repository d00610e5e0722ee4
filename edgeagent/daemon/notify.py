"""What the daemon tells its service manager: ready, stopping, alive (sd_notify(3)).

The protocol is one datagram of lines `NAME=value` to the Unix socket in NOTIFY_SOCKET. It is written here
because neither `systemd-python` nor `sdnotify` has wheels.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

# systemd recommends half of WATCHDOG_USEC; a third leaves room for one late wakeup on a loaded device.
PINGS_PER_WATCHDOG = 3


class ServiceManager:
    """The service manager that started this process; without one, every method does nothing.

    Event loop's thread only; `close()` may be called twice.

    `address`: path of the notification socket, "@name" for an abstract one; None without a manager.
    `watchdog_s`: seconds after which the manager ends a daemon that has not reported; None: never.
    """

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    def ready(self, status: str) -> None:
        """Report that connections are accepted."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Report one line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """Report that settings are read again; `ready` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=Ending answers")

    def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Report in intervals that the daemon is alive, for as long as the event loop runs and
        `is_healthy` says so."""
        if self._address is not None and self._watchdog_s is not None and self._task is None:
            self._task = asyncio.create_task(
                self._report(self._watchdog_s / PINGS_PER_WATCHDOG, is_healthy), name="watchdog"
            )

    async def _report(self, interval_s: float, is_healthy: Callable[[], bool]) -> None:
        was_healthy = True
        while True:
            is_well = is_healthy()
            if is_well:
                self._send("WATCHDOG=1")
            elif was_healthy:
                logger.error("watchdog_withheld watchdog_s=%.0f", self._watchdog_s)
            was_healthy = is_well
            await asyncio.sleep(interval_s)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                )
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:  # a manager that does not listen is no reason to stop serving
            logger.warning("service_manager_unreachable reason=%s", exc.strerror)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _line(text: str) -> str:
    """The text on one line: a line break would begin another assignment."""
    return " ".join(text.split())
