"""The replies to one request, on the daemon's side."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from edgeagent.errors import EdgeAgentError

# Replies that a reader may leave unread before its request is cancelled: more than any answer has.
MAX_UNREAD_REPLIES = 1 << 16

Reply = TypeVar("Reply")


class ReplyStream(ABC, Generic[Reply]):
    """The replies of a worker to one request, as they arrive.

    Event loop's thread only. Iterate once. `cancel()` may be called at any time and twice; a reader that
    gives up must call it. A subclass says which reply is the last one.

    A reader that waits in `take` may also have a `receiver`, which is given each reply as it arrives and
    says whether it has dealt with it: that saves a turn of the event loop and a switch of tasks. Where it
    has not, `take` returns the reply.
    """

    def __init__(self, request_id: int, cancel: Callable[[int], None]) -> None:
        self.request_id = request_id
        self._cancel = cancel
        self._has_ended = False
        self._replies: deque[Reply] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.receiver: Callable[[Reply], bool] | None = None

    @abstractmethod
    def is_last(self, reply: Reply) -> bool:
        """Whether no reply follows this one. Called once for each reply, in order."""

    async def take(self) -> list[Reply]:
        """All replies since the last call, at least one; an empty list after the last reply.

        Raises: the error that ended the request, which is EngineDied or the worker's refusal, or what the
        `receiver` has raised.
        """
        while not self._replies:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        replies = list(self._replies)
        self._replies.clear()
        return replies

    async def __aiter__(self) -> AsyncIterator[Reply]:
        while replies := await self.take():
            for reply in replies:
                yield reply

    def cancel(self) -> None:
        """Tell the worker to stop. Replies that it has made still arrive, the last one included."""
        self._cancel(self.request_id)

    # --- called by the client

    def put(self, reply: Reply) -> bool:
        """Hand over a reply. True when it was the last one."""
        if self.is_last(reply):
            self._has_ended = True
        if self.receiver is None or not self._is_received(self.receiver, reply):
            self._replies.append(reply)
            self._wake()
        return self._has_ended

    def _is_received(self, receiver: Callable[[Reply], bool], reply: Reply) -> bool:
        """Whether the receiver has dealt with a reply. It is not asked while others wait, nor while the
        reader does something else: replies stay in order. One that fails is asked no more."""
        is_read = self._waiter is not None and not self._waiter.done()
        if not is_read or self._replies or self._has_ended:
            return False
        try:
            return receiver(reply)
        except Exception as exc:
            self.receiver = None
            self._error = exc
            return False

    def fail(self, error: EdgeAgentError) -> None:
        """End the stream with an error, behind the replies that have arrived."""
        self._error = error
        self._wake()

    @property
    def is_overrun(self) -> bool:
        """Whether more replies wait than a reader may leave unread."""
        return len(self._replies) > MAX_UNREAD_REPLIES

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
