"""Bots for web pages: the daemon asks itself what `edgeagent bot run` asks it over HTTP.

1. the bot: published, of the caller's owner, and the one that the caller's key is for
2. the page, by its Origin, where the key names pages; one that the bot's file no longer names is refused
3. the dialogue: one message of it at a time; those of others are not found
4. the steps of the bot (bot_turn.py), each a request of the owner to this daemon
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgeagent.errors import (
    ConversationLocked,
    EngineFailed,
    Forbidden,
    PreviousNotFound,
    RateLimited,
    Unavailable,
)
from edgeagent.serving.batch_runner import CallAnswer
from edgeagent.serving.bots.dialogue_table import DialogueTable
from edgeagent.types.caller import Caller

if TYPE_CHECKING:  # imported with the first message: most daemons have no bot
    from edgeagent.serving.bots.bot_turn import Ask, BotAnswer, BotDialogue
    from edgeagent.serving.bots.published import PublishedBot, PublishedBots

logger = logging.getLogger(__name__)

RETRY_S = 5.0

Call = Callable[[Caller, str, bytes], Awaitable[CallAnswer]]


class Told(NamedTuple):
    """What a bot says, and the id of the dialogue that it belongs to."""

    answer: BotAnswer
    conversation: str


class _Talk:
    """A dialogue, whose it is (key and bot), and when it was last used."""

    def __init__(
        self, place: tuple[str, str], published: PublishedBot, dialogue: BotDialogue
    ) -> None:
        self.place = place
        self.published = published
        self.dialogue = dialogue
        self.used_s = time.monotonic()
        self.is_busy = False


class BotService:
    """Event loop's thread only. Dialogues are in memory: after a restart they begin anew."""

    def __init__(self, state_dir: Path, call: Call) -> None:
        self._state_dir = state_dir
        self._call = call
        self._talks: DialogueTable[_Talk] = DialogueTable()

    @cached_property
    def _bots(self) -> PublishedBots:
        from edgeagent.serving.bots.published import PublishedBots

        return PublishedBots(self._state_dir)

    async def show(self, caller: Caller, bot_id: str, origin: str | None) -> PublishedBot:
        """The bot. Raises: NotFound, Forbidden."""
        limits = caller.limits
        if limits.bot is not None and limits.bot != bot_id:  # 1
            raise Forbidden("This key is for the pages of another bot: use the key of this one.")
        found = await asyncio.to_thread(self._bots.read, bot_id)
        if found.owner != caller.owner:
            from edgeagent.serving.bots.published import absent

            raise absent(bot_id)
        if limits.bot is not None:  # 2: pages of the key that the file still names
            named = {page.lower() for page in found.bot.web.origins}
            pages = [page for page in limits.origins if page.lower() in named]
            if (origin or "").lower() not in pages:
                raise Forbidden(
                    f"This key is for pages of {', '.join(pages) or 'no origin any more'}, and the request "
                    f"comes from {(origin or 'no page')[:100]!r}: publish the bot for that origin, too."
                )
        return found

    async def answer(
        self, caller: Caller, bot_id: str, origin: str | None, text: str, conversation: str | None
    ) -> Told:
        """The bot's answer to a message. Raises: NotFound, Forbidden, ConversationLocked, Unavailable."""
        published = await self.show(caller, bot_id, origin)
        name, talk = self._talk(caller, bot_id, published, conversation)  # 3
        if talk.is_busy:
            raise ConversationLocked(
                "This dialogue has a message that is being answered: wait for it.", retry_after_s=1
            )
        talk.is_busy = True
        try:
            return Told(await self._said(caller, talk, text), name)  # 4
        finally:
            talk.is_busy = False
            talk.used_s = time.monotonic()

    def _talk(
        self, caller: Caller, bot_id: str, published: PublishedBot, name: str | None
    ) -> tuple[str, _Talk]:
        from edgeagent.serving.bots.bot_turn import BotDialogue

        now = time.monotonic()
        talk = self._talks.get(bot_id, name, now) if name is not None else None
        # One that is not there, or of another key, or of a bot that was published anew, begins anew.
        place = caller.key_id, bot_id
        if talk is None or talk.place != place or talk.published is not published:
            dialogue = BotDialogue(published.bot, published.stores)
            name, talk = secrets.token_urlsafe(18), _Talk(place, published, dialogue)
            self._talks.add(bot_id, name, talk, now)
        assert name is not None
        return name, talk

    async def _said(self, caller: Caller, talk: _Talk, text: str) -> BotAnswer:
        inside = msgspec.structs.replace(
            caller, scopes=frozenset({"chat"}),
            limits=msgspec.structs.replace(caller.limits, bot=None),
        )  # fmt: skip
        steps = talk.dialogue.steps(text)
        try:
            ask = next(steps)
            while True:
                try:
                    reply = await self._asked(inside, ask)
                except PreviousNotFound as exc:
                    ask = steps.throw(exc)
                else:
                    ask = steps.send(reply)
        except StopIteration as end:
            answer: BotAnswer = end.value
            return answer

    async def _asked(self, caller: Caller, ask: Ask) -> dict[str, Any]:
        """Raises: PreviousNotFound, RateLimited, Unavailable, EngineFailed; what is wrong inside is for the
        log, not for visitors of a page."""
        got = await self._call(caller, ask.path, msgspec.json.encode(ask.body))
        if got.status == 200:
            return dict(msgspec.json.decode(got.body))
        if got.error_code == PreviousNotFound.code:
            raise PreviousNotFound("What was said before is gone: it begins anew.")
        logger.warning(
            "bot_not_answered path=%s status=%d code=%s", ask.path, got.status, got.error_code
        )
        if got.status == 429:
            raise RateLimited(
                "There are too many questions at the moment: try again soon.",
                retry_after_s=got.retry_after_s or RETRY_S,
            )
        if got.status == 503:
            raise Unavailable(
                "The bot cannot answer at the moment: try again soon.",
                retry_after_s=got.retry_after_s or RETRY_S,
            )
        raise EngineFailed("The bot cannot answer this: the log of the daemon says why.")
