"""A bot on the running daemon: its documents, its intents and its answers."""

from __future__ import annotations

import json
from os.path import relpath
from typing import Any

from edgeagent.cli.shared.bot_file import BotFile
from edgeagent.cli.shared.knowledge_client import (
    PATH_CHARS,
    KnowledgeClient,
    LocalFile,
    local_files,
)
from edgeagent.errors import EdgeAgentError


class BotClient(KnowledgeClient):
    """What a bot asks of a daemon. Methods raise as those of `KnowledgeClient`."""

    def stores_of(self, bot: BotFile) -> list[str]:
        """The ids of the bot's knowledge bases. Raises: EdgeAgentError for one that does not exist."""
        return [str(self.required(name)["id"]) for name in bot.knowledge.bases]

    def intent(self, bot: BotFile, text: str) -> tuple[str, dict[str, Any], float] | None:
        """The call that the domain model makes of a text, and how sure it is. Raises: EdgeAgentError, for
        arguments that are no object, too."""
        assert bot.domain is not None
        metadata = {"calls": "true", "escalate": "false"}
        if bot.domain.domain is not None:
            metadata["domain"] = bot.domain.domain
        got = self.asked(
            "POST", "/v1/chat/completions",
            json={
                "model": bot.domain.model, "messages": [{"role": "user", "content": text}],
                "metadata": metadata,
            },
        )  # fmt: skip
        calls = got["choices"][0]["message"].get("tool_calls") or []
        if not calls:
            return None
        call = calls[0]["function"]
        told = (got.get("edgeagent") or {}).get("confidence") or {}
        try:
            slots = dict(json.loads(call["arguments"]))
        except (ValueError, TypeError) as exc:
            raise EdgeAgentError(
                f"The arguments of the call {call['name']!r} are no JSON object: name a domain model that "
                "knows intents."
            ) from exc
        return call["name"], slots, float(told.get("probability", 1.0))

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        return self.asked("POST", "/v1/responses", json=body)


def documents_of(bot: BotFile) -> list[LocalFile]:
    """The files that belong into the bot's knowledge base, each once, by its path from the file of the bot.
    Raises: OSError."""
    found = {}
    for name in bot.knowledge.documents:
        for file in local_files(bot.folder / name):
            inside = relpath(file.path, bot.folder)[-PATH_CHARS:]
            found[inside] = LocalFile(file.path, inside)
    return list(found.values())
