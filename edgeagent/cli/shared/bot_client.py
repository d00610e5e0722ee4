"""A bot on the running daemon: its documents and its answers."""

from __future__ import annotations

from os.path import relpath
from typing import Any

import click

from edgeagent.cli.knowledge import put_files
from edgeagent.cli.shared.knowledge_client import (
    PATH_CHARS,
    KnowledgeClient,
    LocalFile,
    local_files,
)
from edgeagent.serving.bots.bot_file import BotFile


class BotClient(KnowledgeClient):
    """What a bot asks of a daemon. Methods raise as those of `KnowledgeClient`."""

    def stores_of(self, bot: BotFile) -> list[str]:
        """The ids of the bot's knowledge bases. Raises: EdgeAgentError for one that does not exist."""
        return [str(self.required(name)["id"]) for name in bot.knowledge.bases]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request of a bot."""
        return self.asked("POST", path, json=body)


def stores_of_bot(bot: BotFile, client: BotClient) -> list[str]:
    """The bot's knowledge bases, with its documents as they are now; those of others stay."""
    documents = documents_of(bot)
    if documents:
        name = bot.knowledge.bases[0]
        store = client.store_named(name) or client.create(name)
        put_files(
            client, store, documents, removes=True, bot=bot.name[:PATH_CHARS],
            tells=lambda text: click.echo(text, err=True),
        )  # fmt: skip
    return client.stores_of(bot)


def documents_of(bot: BotFile) -> list[LocalFile]:
    """The files that belong into the bot's knowledge base, each once, by its path from the file of the bot.
    Raises: OSError."""
    found = {}
    for name in bot.knowledge.documents:
        for file in local_files(bot.folder / name):
            inside = relpath(file.path, bot.folder)[-PATH_CHARS:]
            found[inside] = LocalFile(file.path, inside)
    return list(found.values())
