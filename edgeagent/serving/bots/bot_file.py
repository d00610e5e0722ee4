"""`bot.toml`: all that a bot is, in one file. Read and checked here; nothing is asked of a daemon."""

from __future__ import annotations

import re
import tomllib
from datetime import datetime, time
from os.path import normpath
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edgeagent.errors import InvalidParameter
from edgeagent.serving.bots.slots import SlotRule

MAX_BYTES = 256 << 10
MAX_SAID = 2000  # characters of a text that the file search puts into an answer
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOSED = "closed"
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


class Knowledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Knowledge bases by name. The files in `documents` (relative to the file of the bot) are put into the
    first of them by `edgeagent bot run` and `test`. `answers`: the model writes them from passages, or they
    are sentences of the passages. `not_sure` is said before sentences that may not answer the question."""

    bases: list[str] = []
    documents: list[str] = []
    max_passages: int = 4
    answers: Literal["model", "quotes"] = "model"
    not_sure: str = ""


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model that knows the bot's intents. `answers` are the texts for intents, of several the first whose
    slots are all known; an intent without one is given to the caller as a call. `tools` are the intents that
    it may choose; empty: all. `learns`: what is said is stored, as long as `store.retention` keeps contents,
    so that `edgeagent forge review` finds what the model should learn."""

    model: str
    domain: str | None = None
    answers: dict[str, str | list[str]] = {}
    tools: list[str] = []
    learns: bool = False


class Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When and how a question goes to somebody else. `phrases`: whoever says one asks for a person."""

    on_thin_evidence: Literal["decline", "human", "router"] = "human"
    phrases: list[str] = []
    text: str = "I cannot answer this. Please ask a person."
    closed_text: str = ""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Below `intent` the domain model's choice does not count. Below `answerable` a judge's word declines,
    below `sure_answerable` quotes are told as uncertain; without a judge below `sure`. None: as the settings
    say."""

    intent: float = 0.5
    sure: float | None = None
    answerable: float | None = None
    sure_answerable: float | None = None


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chat in web pages. `origins`: of the pages that may show it, such as https://example.org."""

    origins: list[str] = []
    title: str = ""


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When people are there, for hand-overs: days (mon to sun) with `HH:MM-HH:MM`, or `closed`."""

    timezone: str = "UTC"
    days: dict[str, str] = {}

    def is_open(self, now: datetime) -> bool:
        """Always, where no days are named."""
        if not self.days:
            return True
        local = now.astimezone(ZoneInfo(self.timezone))
        hours = self.days.get(DAYS[local.weekday()], CLOSED)
        if hours == CLOSED:
            return False
        begin, end = map(time.fromisoformat, hours.split("-"))
        return begin <= local.time() < end


class BotFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bot. `languages` are those that it answers in, the first one by default."""

    name: str
    persona: str = ""
    model: str = "default"
    languages: list[str] = msgspec.field(default_factory=lambda: ["en"])
    max_tokens: int = 160
    greeting: str = ""
    knowledge: Knowledge = Knowledge()
    domain: Domain | None = None
    slots: dict[str, SlotRule] = {}
    handover: Handover = Handover()
    thresholds: Thresholds = Thresholds()
    hours: Hours = Hours()
    web: Web = Web()
    folder: Path = Path()


def read_bot(path: Path) -> BotFile:
    """Raises: InvalidParameter, with what is wrong and where."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _wrong(path, f"has more than {MAX_BYTES} bytes")
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        found = msgspec.convert({k: v for k, v in tree.items() if k != "folder"}, BotFile)
    except OSError as exc:
        raise _wrong(path, f"cannot be read ({exc.strerror})") from exc
    except (ValueError, RecursionError) as exc:  # TOML's and msgspec's errors are ValueErrors
        raise _wrong(path, f"is not the file of a bot ({exc})") from exc
    bot = msgspec.structs.replace(found, folder=path.resolve().parent)
    _check(path, bot)
    return bot


def _check(path: Path, bot: BotFile) -> None:
    if bot.knowledge.documents and not bot.knowledge.bases:
        raise _wrong(path, "has knowledge.documents and no knowledge.bases to put them into")
    if not 1 <= bot.knowledge.max_passages <= 20:
        raise _wrong(
            path, f"has knowledge.max_passages {bot.knowledge.max_passages}, 1 to 20 are possible"
        )
    for name, value in msgspec.structs.asdict(bot.thresholds).items():
        if value is not None and not 0 <= value <= 1:
            raise _wrong(path, f"has thresholds.{name} {value}, 0 to 1 is possible")
    if len(bot.knowledge.not_sure) > MAX_SAID:
        raise _wrong(path, f"has a knowledge.not_sure of more than {MAX_SAID} characters")
    if not bot.languages:
        raise _wrong(path, "names no language")
    if not 1 <= bot.max_tokens <= 4096:
        raise _wrong(path, f"has max_tokens {bot.max_tokens}, 1 to 4096 are possible")
    for name, rule in bot.slots.items():
        if (why := rule.fault) is not None:
            raise _wrong(path, f"has the slot {name!r}, {why}")
    for origin in bot.web.origins:
        if not _ORIGIN.fullmatch(origin):
            raise _wrong(
                path,
                f"has {origin!r} in web.origins: write https://, a host, and a port if it has one",
            )
    for name in bot.knowledge.documents:
        if not Path(normpath(bot.folder / name)).is_relative_to(bot.folder):
            raise _wrong(path, f"names the document {name!r}, which is not beside it")
        if not (bot.folder / name).exists():
            raise _wrong(path, f"names the document {name!r}, which does not exist")
        if not (bot.folder / name).resolve().is_relative_to(bot.folder):
            raise _wrong(
                path, f"names the document {name!r}, a link to a place that is not beside it"
            )
    try:
        ZoneInfo(bot.hours.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise _wrong(path, f"has the unknown hours.timezone {bot.hours.timezone!r}") from exc
    for day, hours in bot.hours.days.items():
        if day not in DAYS or not _is_span(hours):
            raise _wrong(
                path,
                f'has {day} = {hours!r} in hours.days: write mon to sun = "08:00-17:30", or "closed"',
            )


def _is_span(hours: str) -> bool:
    if hours == CLOSED:
        return True
    try:
        begin, end = map(time.fromisoformat, hours.split("-"))
    except ValueError:
        return False
    if begin.tzinfo or end.tzinfo:  # `timezone` says of where they are
        return False
    return begin < end


def _wrong(path: Path, what: str) -> InvalidParameter:
    return InvalidParameter(f"{path.name} {what}: correct it.", param="bot")
