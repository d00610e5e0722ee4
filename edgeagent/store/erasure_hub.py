"""Everything outside the database that holds what clients sent or were answered, and how each forgets.

Each place registers with a name, what it holds and how it forgets. Whatever deletes content tells the
hub, and the hub tells every place:

    erase       `POST /admin/erase`: of an owner, a subject, a conversation
    delete      DELETE of a response, a conversation, an item, a stored chat
    expire      retention has deleted content of an owner
    elsewhere   the command line has erased something; this process cannot tell whose it was

Places of the daemon (`daemon/erasure_participants.py`): background answers and their events, exports under
way, rows of the request log that are not written yet, what workers have cached of prompts and of
schemas, kept prefixes on disk, and the input history that `edgeagent chat` once wrote. An answer in
flight is no place: it is refused by the store when it ends (`store/erasure_epochs.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from edgeagent.store.ownership import Selector

logger = logging.getLogger(__name__)

FORGET_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class DeletedContent:
    """What has left the database. None in a field: not restricted by it; everybody's without `owner`."""

    cause: Literal["erase", "delete", "expire", "elsewhere"]
    owner: str | None = None
    subject: str | None = None
    conversation: str | None = None

    @classmethod
    def erased(cls, selector: Selector) -> DeletedContent:
        return cls("erase", selector.owner, selector.subject, selector.conversation)

    @property
    def is_whole_owner(self) -> bool:
        """Whether everything of one owner was erased."""
        return self.cause == "erase" and not (self.subject or self.conversation)

    def meets(self, other: Selector) -> bool:
        """Whether something that `other` selects may be gone."""
        pairs = (
            (self.owner, other.owner),
            (self.subject, other.subject),
            (self.conversation, other.conversation),
        )
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in pairs)


Forget = Callable[[DeletedContent], Awaitable[object]]


@dataclass(frozen=True)
class ContentPlace:
    """`holds`: what, in words for receipts and documents. `forget` returns once it is gone."""

    name: str
    holds: str
    forget: Forget


class ErasureHub:
    """The registry. Event loop's thread only, but for `forget_from_thread`."""

    def __init__(self) -> None:
        self._places: dict[str, ContentPlace] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def places(self) -> list[ContentPlace]:
        return list(self._places.values())

    def register(self, name: str, holds: str, forget: Forget) -> None:
        """Places forget in the order in which they register: what computes before what caches."""
        assert name not in self._places, f"{name} is registered twice"
        self._places[name] = ContentPlace(name, holds, forget)

    def start(self) -> None:
        """Note the loop on which places forget."""
        self._loop = asyncio.get_running_loop()

    async def forget(self, gone: DeletedContent) -> list[str]:
        """Let every place forget. One that fails is logged and keeps no other from it. Gives the names of
        those that have forgotten."""
        done = []
        for place in self.places:
            try:
                async with asyncio.timeout(FORGET_TIMEOUT_S):
                    await place.forget(gone)
            except Exception as exc:
                logger.error(
                    "not_forgotten place=%r cause=%s", place.name, gone.cause, exc_info=exc
                )
            else:
                done.append(place.name)
        logger.debug("forgotten cause=%s places=%d", gone.cause, len(done))
        return done

    def forget_from_thread(self, gone: DeletedContent) -> list[str]:
        """`forget` for a thread other than the loop's; nothing is held before `start`."""
        if self._loop is None:
            return []
        return asyncio.run_coroutine_threadsafe(self.forget(gone), self._loop).result()
