"""The worker's end of the socketpair to the daemon."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from edgeagent.errors import EdgeAgentError
from edgeagent.worker import frames, protocol


class Channel:
    """Sends and receives messages. Any thread may send; one thread receives.

    `decode` makes a message of a frame's body: the decoder of what the daemon sends to this kind of worker.
    """

    def __init__(self, fd: int, decode: Callable[[bytes], Any]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._decode = decode
        self._splitter = frames.FrameSplitter()
        self._write_lock = threading.Lock()
        # A thread that waits in `recv` is also woken when the other end has read what was sent, for nothing:
        # with each token, on the daemon's core, whose turn it ends (Linux, `unix_write_space`). One that
        # polls is not.
        self._arrival = select.poll()
        self._arrival.register(fd, select.POLLIN)

    def send(self, message: msgspec.Struct) -> None:
        frame = frames.encode(message)
        with self._write_lock:
            self._socket.sendall(frame)

    def receive(self) -> list[Any]:
        """At least one message. Raises: EOFError when the daemon has gone."""
        while True:
            self._arrival.poll()
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            if bodies := self._splitter.feed(data):
                return [self._decode(body) for body in bodies]

    def refuse(self, request_id: int, error: Exception) -> None:
        """End a request that has produced nothing."""
        if not isinstance(error, EdgeAgentError):
            error = EdgeAgentError(str(error))
        self.send(
            protocol.Refusal(
                request_id, error.code, error.message, error.param, error.retry_after_s
            )
        )
