"""Runs the work of a response until it ends, its client leaves or the daemon stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from litestar.types import Receive

from edgeagent.api.http.shutdown import Shutdown

Ending = Literal["done", "gone", "stopping"]


async def run_until_gone(
    work: Coroutine[Any, Any, None],
    receive: Receive,
    *,
    name: str,
    shutdown: Shutdown | None = None,
) -> Ending:
    """Gives what came first: the work was "done", the client was "gone", or the daemon is "stopping".

    The work has ended when this returns: done, or cancelled. It reports its own errors; an exception of it
    is dropped. `name` is that of its task.
    """
    tasks = [
        asyncio.create_task(work, name=name),
        asyncio.create_task(client_gone(receive), name=f"{name}-watch"),
    ]
    if shutdown is not None:
        tasks.append(asyncio.create_task(shutdown.begun(), name=f"{name}-stop"))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        is_done, is_gone = tasks[0].done(), tasks[1].done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return "done" if is_done else "gone" if is_gone else "stopping"


async def client_gone(receive: Receive) -> None:
    """Returns once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
