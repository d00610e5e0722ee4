"""Bots that the daemon answers itself, for web pages: a file each in the state directory.

The command line writes them (`edgeagent bot publish`); a running daemon reads a changed file with the next
message. A file holds no secret: keys are in the keyring.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgeagent.durable import read_json, replace_bytes
from edgeagent.errors import InvalidParameter, NotFound
from edgeagent.serving.bots.bot_file import BotFile

MAX_BYTES = 1 << 20
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class PublishedBot(msgspec.Struct, frozen=True, kw_only=True):
    """A bot with the vector stores that its documents are in. `owner`: whose stores these are."""

    owner: str
    stores: list[str]
    bot: BotFile


class PublishedBots:
    """The files in the state directory. Any thread."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "bots"
        self._known: dict[str, tuple[tuple[int, int, int], PublishedBot]] = {}

    def read(self, bot_id: str) -> PublishedBot:
        """Raises: NotFound, also for a file that is damaged."""
        path = self._path(bot_id)
        try:
            state = path.stat()
            mark = state.st_mtime_ns, state.st_size, state.st_ino
            known = self._known.get(bot_id)
            if known is not None and known[0] == mark:
                return known[1]
            found = read_json(path, MAX_BYTES, PublishedBot)
        except (OSError, msgspec.MsgspecError) as exc:
            raise absent(bot_id) from exc
        self._known[bot_id] = mark, found
        return found

    def write(self, bot_id: str, published: PublishedBot) -> None:
        """Raises: InvalidParameter for an id that is none, or that a bot of another owner has; OSError."""
        if not _ID.fullmatch(bot_id):
            raise InvalidParameter(
                f"{bot_id[:80]!r} is no id of a bot: 1 to 40 of a-z, 0-9 and -, the first one no -.",
                param="id",
            )
        try:
            owner = self.read(bot_id).owner
        except NotFound:
            owner = published.owner
        if owner != published.owner:
            raise InvalidParameter(
                f"The id {bot_id!r} is that of a bot of the owner {owner!r}: give another --id, or "
                "`edgeagent bot unpublish` it first.",
                param="id",
            )
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        body = msgspec.to_builtins(published, enc_hook=str)
        del body["bot"]["folder"]  # the daemon reads nothing there
        replace_bytes(self._path(bot_id), msgspec.json.encode(body))

    def remove(self, bot_id: str) -> None:
        """Raises: NotFound."""
        try:
            self._path(bot_id).unlink()
        except OSError as exc:
            raise absent(bot_id) from exc

    def ids(self) -> list[str]:
        try:
            return sorted(path.stem for path in self._folder.glob("*.json"))
        except OSError:
            return []

    def _path(self, bot_id: str) -> Path:
        if not _ID.fullmatch(bot_id):
            raise absent(bot_id)
        return self._folder / f"{bot_id}.json"


def id_of(name: str) -> str:
    """The id of a bot by its name: `Skerry Ferries` is skerry-ferries. Raises: InvalidParameter."""
    found = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40].rstrip("-")
    if not found:
        raise InvalidParameter(
            f"The bot's name {name[:80]!r} has no letter from a to z and no digit: give an --id.",
            param="bot",
        )
    return found


def snippet(url: str, bot_id: str, key: str, title: str) -> str:
    """The HTML that puts a bot into a page."""
    from html import escape

    values = {"data-bot": bot_id, "data-key": key, "data-title": title}
    told = " ".join(f'{name}="{escape(value)}"' for name, value in values.items())
    return f'<script src="{escape(url)}/web/widget.js" {told} defer></script>'


def missing_origins(bot: BotFile, allowed: Sequence[str]) -> list[str]:
    """Origins of the bot's pages that the daemon does not answer."""
    known = {origin.rstrip("/").lower() for origin in allowed}
    return [origin for origin in bot.web.origins if origin not in known]


def absent(bot_id: str) -> NotFound:
    """Also for a bot of another owner: nobody learns whether there is one."""
    return NotFound(
        f"There is no published bot {bot_id[:64]!r}: `edgeagent bot publish` makes one."
    )
