"""Bodies of the paths for bots."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgeagent.api.http.body_base import BodyModel


class MessageRequest(BodyModel):
    """What somebody says to a bot. `conversation` is that of the answer before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=2000)
    conversation: str | None = Field(None, max_length=64)


class BotBody(BodyModel):
    """A bot as its page shows it."""

    id: str
    object: Literal["bot"] = "bot"
    name: str
    title: str
    greeting: str
    languages: list[str]


class MessageBody(BodyModel):
    """What the bot says, and what it is based on. `citations` are names of documents."""

    object: Literal["bot.message"] = "bot.message"
    conversation: str
    text: str
    basis: str
    intent: str | None
    slots: dict[str, Any]
    citations: list[str]
    handover: str | None
