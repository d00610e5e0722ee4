"""How a bot answers one message.

1. somebody asks for a person: hand-over
2. the domain model knows an intent: its text, or a call for whoever runs the bot
3. the knowledge bases: an answer that cites, a stored answer word for word, or a hand-over
4. without knowledge bases, the model itself

`Asks` is what is asked of a daemon; everything else is decided here, without one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec

from edgeagent.cli.shared.bot_file import BotFile
from edgeagent.errors import PreviousNotFound
from edgeagent.knowledge.questions import question_key

Basis = Literal["handover", "intent", "call", "passages", "verbatim", "nothing", "model"]


class BotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the bot says, and what it is based on. `handover`: to whom the question goes, or has to go."""

    text: str
    basis: Basis
    intent: str | None = None
    slots: dict[str, Any] = {}
    citations: list[str] = []
    handover: Literal["human", "router"] | None = None


class Asks(Protocol):
    """A daemon. `intent` gives a call's name, its arguments and the confidence; None without a call."""

    def intent(self, bot: BotFile, text: str) -> tuple[str, dict[str, Any], float] | None: ...

    def response(self, body: dict[str, Any]) -> dict[str, Any]: ...


class BotDialogue:
    """One conversation with a bot."""

    def __init__(
        self,
        bot: BotFile,
        stores: list[str],
        daemon: Asks,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bot = bot
        self._stores = stores
        self._daemon = daemon
        self._clock = clock
        self._previous: str | None = None

    def say(self, text: str) -> BotAnswer:
        """The answer to a message. Raises: EdgeAgentError."""
        if asks_for_person(self._bot, text):  # 1
            return BotAnswer(text=self._handover_text(), basis="handover", handover="human")
        found = self._daemon.intent(self._bot, text) if self._bot.domain is not None else None  # 2
        if found is not None and (answer := of_intent(self._bot, *found)) is not None:
            return answer
        return self._from_model(text)

    def _from_model(self, text: str) -> BotAnswer:
        body: dict[str, Any] = {
            "model": self._bot.model, "input": text, "instructions": instructions(self._bot),
            "max_output_tokens": self._bot.max_tokens,
        }  # fmt: skip
        if self._stores:  # 3
            body["tools"] = [
                {
                    "type": "file_search", "vector_store_ids": self._stores,
                    "max_num_results": self._bot.knowledge.max_passages,
                    "on_thin_evidence": self._bot.handover.on_thin_evidence,
                }
            ]  # fmt: skip
        response = self._continued(body)
        self._previous = response["id"] if response["store"] else None
        answer = of_response(response)
        if answer.handover == "human" and answer.basis == "nothing":
            return msgspec.structs.replace(answer, text=self._handover_text())
        return answer

    def _continued(self, body: dict[str, Any]) -> dict[str, Any]:
        """The response to a message, which begins anew where the daemon has dropped what was said before."""
        if self._previous is None:
            return self._daemon.response(body)
        try:
            return self._daemon.response(body | {"previous_response_id": self._previous})
        except PreviousNotFound:
            return self._daemon.response(body)

    def _handover_text(self) -> str:
        handover = self._bot.handover
        is_open = self._bot.hours.is_open(self._clock())
        return handover.text if is_open or not handover.closed_text else handover.closed_text


def asks_for_person(bot: BotFile, text: str) -> bool:
    """Whether the message has one of the phrases, whatever its case and marks."""
    said = f" {question_key(text)} "
    phrases = map(question_key, bot.handover.phrases)
    return any(f" {phrase} " in said for phrase in phrases if phrase)


def of_intent(
    bot: BotFile, name: str, slots: dict[str, Any], confidence: float
) -> BotAnswer | None:
    """The answer to an intent; None where it is not sure enough, or not one of the bot's."""
    assert bot.domain is not None
    if confidence < bot.thresholds.intent or (bot.domain.tools and name not in bot.domain.tools):
        return None
    text = bot.domain.answers.get(name)
    if text is None:
        return BotAnswer(text="", basis="call", intent=name, slots=slots)
    return BotAnswer(text=_filled(text, slots), basis="intent", intent=name, slots=slots)


def _filled(text: str, slots: dict[str, Any]) -> str:
    """The text with its `{slot}`s; those that are unknown stay as they are."""
    shown = {
        f"{{{name}}}": value if isinstance(value, str) else json.dumps(value)
        for name, value in slots.items()
    }
    # In one pass: the value of a slot, which the user wrote, may look like another slot.
    return re.sub("|".join(map(re.escape, shown)), lambda m: shown[m[0]], text) if shown else text


def of_response(response: dict[str, Any]) -> BotAnswer:
    """The answer in a response object."""
    texts: list[str] = []
    cited: dict[str, None] = {}
    for item in response["output"]:
        if item["type"] != "message":
            continue
        for part in item["content"]:
            texts.append(part.get("text", ""))
            notes = part.get("annotations", [])
            cited |= dict.fromkeys(n["filename"] for n in notes if n["type"] == "file_citation")
    told = (response.get("edgeagent") or {}).get("knowledge")
    return BotAnswer(
        text="".join(texts).strip(),
        basis=told["basis"] if told is not None else "model",
        citations=list(cited),
        handover=told["handover"] if told is not None else None,
    )


def instructions(bot: BotFile) -> str:
    """The persona, and the language of the answers."""
    languages = ", ".join(bot.languages)
    first = bot.languages[0]
    wanted = (
        f"Answer in the language of the question if it is one of: {languages}; else in {first}."
    )
    return f"{bot.persona or f'You are {bot.name}.'} {wanted}".strip()
