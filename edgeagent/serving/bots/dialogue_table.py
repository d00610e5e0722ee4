"""The dialogues of published bots in memory: no bot's visitors end the dialogues of another bot.

1. one without a message for `IDLE_S` ends
2. a bot that has `BOT_DIALOGUES` loses the one that was not used for longest
3. where all have `MAX_DIALOGUES` together, the bot that has most of them loses its oldest (among equals
   the one that begins another); so a bot keeps its share of the whole, however many visitors another has

One whose message is being answered ends only where all of its bot's are. Pure but for the clock it is given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

IDLE_S = 3600.0
BOT_DIALOGUES = 500
MAX_DIALOGUES = 1000


class Talk(Protocol):
    """A dialogue: when it was last used, and whether a message of it is being answered."""

    used_s: float
    is_busy: bool


T = TypeVar("T", bound=Talk)


class DialogueTable(Generic[T]):
    """Event loop's thread only."""

    def __init__(self, *, per_bot: int = BOT_DIALOGUES, in_all: int = MAX_DIALOGUES) -> None:
        self._per_bot = per_bot
        self._in_all = in_all
        self._bots: dict[str, OrderedDict[str, T]] = {}  # the one used last is the last

    def __len__(self) -> int:
        return sum(map(len, self._bots.values()))

    def get(self, bot_id: str, name: str, now_s: float) -> T | None:
        """A dialogue of the bot; it is now the last one used."""
        self._end_idle(now_s)
        talks = self._bots.get(bot_id)
        if talks is None or name not in talks:
            return None
        talks.move_to_end(name)
        return talks[name]

    def add(self, bot_id: str, name: str, talk: T, now_s: float) -> None:
        self._end_idle(now_s)  # 1
        talks = self._bots.get(bot_id)
        if talks is not None and len(talks) >= self._per_bot:  # 2
            self._end_oldest(bot_id)
        elif len(self) >= self._in_all:  # 3
            most = max(self._bots, key=lambda one: (len(self._bots[one]), one == bot_id))
            self._end_oldest(most)
        self._bots.setdefault(bot_id, OrderedDict())[name] = talk

    def _end_idle(self, now_s: float) -> None:
        for bot_id, talks in list(self._bots.items()):
            while talks and (name := next(iter(talks))) and _is_over(talks[name], now_s):
                del talks[name]
            if not talks:
                del self._bots[bot_id]

    def _end_oldest(self, bot_id: str) -> None:
        talks = self._bots[bot_id]
        idle: Iterator[str] = (name for name, talk in talks.items() if not talk.is_busy)
        del talks[next(idle, next(iter(talks)))]
        if not talks:
            del self._bots[bot_id]


def _is_over(talk: Talk, now_s: float) -> bool:
    return not talk.is_busy and talk.used_s < now_s - IDLE_S
