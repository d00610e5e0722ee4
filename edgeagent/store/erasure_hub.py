"""The registry of places outside the database that hold clients' content, and how each is cleared.

Each place registers with a name, what it holds and how it is cleared. Whatever deletes content tells the
hub, and the hub tells every place:

    erase       `POST /admin/erase`: of an owner, a subject, a conversation
    delete      DELETE of a response, a conversation, an item, a stored chat
    expire      retention has deleted content of an owner
    elsewhere   the command line has erased something; this process does not know whose it was

The daemon's places (`daemon/erasure_participants.py`): background answers and their events, remembered
answers, running transcription jobs and their recordings on disk, live sessions, running exports, unwritten
rows of the request log, prompt and schema caches of workers, stored prefixes on disk, and the input history
that `edgeagent chat` used to write. An answer in progress is not a place: the store refuses it when it ends
(`store/erasure_epochs.py`).
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
    """What was deleted from the database. None in a field: not limited by it; without `owner`,
    everybody's."""

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
        """Whether some of what `other` selects may be deleted."""
        pairs = (
            (self.owner, other.owner),
            (self.subject, other.subject),
            (self.conversation, other.conversation),
        )
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in pairs)


Forget = Callable[[DeletedContent], Awaitable[object]]


@dataclass(frozen=True)
class ContentPlace:
    """`holds`: its content, in words for receipts and documents. `forget` returns once it is cleared."""

    name: str
    holds: str
    forget: Forget


class ErasureHub:
    """The registry. Event loop's thread only, except `forget_from_thread`."""

    def __init__(self) -> None:
        self._places: dict[str, ContentPlace] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def places(self) -> list[ContentPlace]:
        return list(self._places.values())

    def register(self, name: str, holds: str, forget: Forget) -> None:
        """Add a place. Places are cleared in the order of registration: those that compute before those
        that cache."""
        assert name not in self._places, f"{name} is registered twice"
        self._places[name] = ContentPlace(name, holds, forget)

    def start(self) -> None:
        """Remember the event loop on which places are cleared."""
        self._loop = asyncio.get_running_loop()

    async def forget(self, gone: DeletedContent) -> list[str]:
        """Clear every place. A failure is logged and does not stop the others. Returns the names of the
        places that were cleared."""
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
        """`forget` for other threads; before `start` no place holds anything."""
        if self._loop is None:
            return []
        return asyncio.run_coroutine_threadsafe(self.forget(gone), self._loop).result()
