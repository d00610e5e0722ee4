"""How a bot answers one message.

1. somebody asks for a person: hand-over
2. the domain model knows an intent: its text, or a call for whoever runs the bot
3. the knowledge bases: an answer that cites, a stored answer word for word, or a hand-over
4. without knowledge bases, the model itself

Nothing is asked here: `BotDialogue.steps` yields each `Ask` and is sent its reply, so that a command and the
daemon answer alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from edgeagent.errors import EdgeAgentError, PreviousNotFound
from edgeagent.knowledge.questions import question_key
from edgeagent.serving.bots.bot_file import BotFile
from edgeagent.serving.bots.slots import slots_of

Basis = Literal["handover", "intent", "call", "passages", "quotes", "verbatim", "nothing", "model"]
_SLOT = re.compile(r"\{(\w+)\}")


class Ask(NamedTuple):
    """A request to the daemon: POST `body` to `path`."""

    path: str
    body: dict[str, Any]


# Yields requests, is sent the bodies of their answers (or thrown their errors), and returns the bot's answer.
Steps = Generator[Ask, dict[str, Any], "BotAnswer"]


class BotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the bot says, and what it is based on. `handover`: to whom the question goes, or has to go.
    `is_sure`: false where the text begins by saying that it may not answer the question; `evidence` of quotes
    was compared with `thresholds.sure` then, or, where a judge was asked, `answerability` with
    `thresholds.sure_answerable` and `thresholds.answerable`."""

    text: str
    basis: Basis
    intent: str | None = None
    slots: dict[str, Any] = {}
    citations: list[str] = []
    handover: Literal["human", "router"] | None = None
    is_sure: bool = True
    evidence: float | None = None
    answerability: float | None = None


class BotDialogue:
    """One conversation with a bot, of one thread or task at a time."""

    def __init__(
        self,
        bot: BotFile,
        stores: list[str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bot = bot
        self._stores = stores
        self._clock = clock
        self._previous: str | None = None

    def steps(self, text: str) -> Steps:
        """The answer to a message. Raises: EdgeAgentError."""
        if asks_for_person(self._bot, text):  # 1
            return BotAnswer(text=self._handover_text(), basis="handover", handover="human")
        if self._bot.domain is not None:  # 2
            call = call_of((yield intent_question(self._bot, text)))
            if call is not None and (answer := of_intent(self._bot, text, *call)) is not None:
                return answer
        return (yield from self._from_model(text))

    def say(self, text: str, post: Callable[[str, dict[str, Any]], dict[str, Any]]) -> BotAnswer:
        """The same where `post(path, body)` asks a daemon and waits."""
        steps = self.steps(text)
        try:
            ask = next(steps)
            while True:
                try:
                    reply = post(*ask)
                except PreviousNotFound as exc:
                    ask = steps.throw(exc)
                else:
                    ask = steps.send(reply)
        except StopIteration as end:
            answer: BotAnswer = end.value
            return answer

    def _from_model(self, text: str) -> Steps:
        bot = self._bot
        body: dict[str, Any] = {
            "model": bot.model, "input": text, "instructions": instructions(bot),
            "max_output_tokens": bot.max_tokens,
        }  # fmt: skip
        if self._stores:  # 3
            body["tools"] = [search_of(bot, self._stores)]
        response = yield from self._continued(body)
        self._previous = response["id"] if response["store"] else None
        answer = of_response(response)
        if answer.handover == "human" and answer.basis == "nothing":
            return msgspec.structs.replace(answer, text=self._handover_text())
        return answer

    def _continued(self, body: dict[str, Any]) -> Generator[Ask, dict[str, Any], dict[str, Any]]:
        """The response to a message, which begins anew where the daemon has dropped what was said before."""
        path = "/v1/responses"
        if self._previous is not None:
            try:
                return (yield Ask(path, body | {"previous_response_id": self._previous}))
            except PreviousNotFound:
                pass
        return (yield Ask(path, body))

    def _handover_text(self) -> str:
        handover = self._bot.handover
        is_open = self._bot.hours.is_open(self._clock())
        return handover.text if is_open or not handover.closed_text else handover.closed_text


def search_of(bot: BotFile, stores: list[str]) -> dict[str, Any]:
    """The tool that finds the bot's answers."""
    tool = {
        "type": "file_search", "vector_store_ids": stores, "answers": bot.knowledge.answers,
        "max_num_results": bot.knowledge.max_passages,
        "on_thin_evidence": bot.handover.on_thin_evidence,
        "sure_evidence": bot.thresholds.sure,
        "least_answerability": bot.thresholds.answerable,
        "sure_answerability": bot.thresholds.sure_answerable,
    }  # fmt: skip
    if bot.knowledge.not_sure:
        tool["not_sure"] = bot.knowledge.not_sure
    return tool


def asks_for_person(bot: BotFile, text: str) -> bool:
    """Whether the message has one of the phrases, whatever its case and marks."""
    said = f" {question_key(text)} "
    phrases = map(question_key, bot.handover.phrases)
    return any(f" {phrase} " in said for phrase in phrases if phrase)


def intent_question(bot: BotFile, text: str) -> Ask:
    """Which intent a message has."""
    assert bot.domain is not None
    metadata = {"calls": "true", "escalate": "false"}
    if bot.domain.domain is not None:
        metadata["domain"] = bot.domain.domain
    body: dict[str, Any] = {
        "model": bot.domain.model, "messages": [{"role": "user", "content": text}],
        "metadata": metadata,
    }  # fmt: skip
    if bot.domain.learns:
        body["store"] = True
    return Ask("/v1/chat/completions", body)


def call_of(reply: dict[str, Any]) -> tuple[str, dict[str, Any], float] | None:
    """The call in a chat completion, and how sure the model is; None without one. Raises: EdgeAgentError for
    arguments that are no object."""
    calls = reply["choices"][0]["message"].get("tool_calls") or []
    if not calls:
        return None
    call = calls[0]["function"]
    told = (reply.get("edgeagent") or {}).get("confidence") or {}
    try:
        slots = dict(json.loads(call["arguments"]))
    except (ValueError, TypeError) as exc:
        raise EdgeAgentError(
            f"The arguments of the call {call['name']!r} are no JSON object: name a domain model that "
            "knows intents."
        ) from exc
    return call["name"], slots, float(told.get("probability", 1.0))


def of_intent(
    bot: BotFile, said: str, name: str, slots: dict[str, Any], confidence: float
) -> BotAnswer | None:
    """The answer to an intent; None where it is not sure enough, or not one of the bot's. A slot that the
    bot's file lists is as it is there."""
    assert bot.domain is not None
    if confidence < bot.thresholds.intent or (bot.domain.tools and name not in bot.domain.tools):
        return None
    slots = slots | slots_of(bot.slots, name, said)
    texts = bot.domain.answers.get(name)
    if not texts:
        return BotAnswer(text="", basis="call", intent=name, slots=slots)
    text = _chosen([texts] if isinstance(texts, str) else texts, slots)
    return BotAnswer(text=_filled(text, slots), basis="intent", intent=name, slots=slots)


def _chosen(texts: list[str], slots: dict[str, Any]) -> str:
    """The first text whose slots are all known; the last one where there is none."""
    return next((text for text in texts if set(_SLOT.findall(text)) <= slots.keys()), texts[-1])


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
        is_sure=told is None or told.get("is_sure") is not False,
        evidence=(told or {}).get("quote_evidence"),
        answerability=(told or {}).get("answerability"),
    )


def instructions(bot: BotFile) -> str:
    """The persona, and the language of the answers."""
    languages = ", ".join(bot.languages)
    first = bot.languages[0]
    wanted = (
        f"Answer in the language of the question if it is one of: {languages}; else in {first}."
    )
    return f"{bot.persona or f'You are {bot.name}.'} {wanted}".strip()
