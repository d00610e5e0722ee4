"""What the clients of a load ask: chats, shared prefixes, dialogues, JSON, long prompts, copies."""

from __future__ import annotations

import random
from typing import Any

TEXT = (
    "tide copper lamp orchard signal meadow ferry anchor violin bridge paper kettle harbour stone "
    "window basket morning engine thread silver pocket garden letter candle market river number"
)
WORDS = TEXT.split()
TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "intent": {"type": "string", "enum": ["refund", "schedule", "complaint", "other"]},
        "customer_reference_number": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "urgent": {"type": "boolean"},
        "preferred_contact_channel": {"type": "string", "enum": ["telephone", "electronic_mail"]},
    },
    "required": ["intent", "customer_reference_number", "urgent", "preferred_contact_channel"],
    "additionalProperties": False,
}


def prose(n_words: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


# In a dialogue each question has the answers before it in front; the others start anew each time.
WORKLOADS = ("chat", "prefix", "dialogue", "json", "long", "copy")


class Dialogue:
    """The requests of one client. `client` and `shared` are seeds: of its questions, and of the prefix that
    all clients share."""

    def __init__(self, workload: str, client: int, shared: int = 3) -> None:
        self._workload = workload
        self._client = client
        self._shared = shared
        self._history: list[dict[str, str]] = []

    def messages(self, request: int) -> list[dict[str, str]]:
        seed = 100 * self._client + request
        name = f"{self._client}-{request}"
        question = f"Question {name}: {prose(12, seed)}?"
        match self._workload:
            case "prefix":
                return [
                    {"role": "system", "content": prose(900, self._shared)},
                    {"role": "user", "content": question},
                ]
            case "long":
                question = f"Text {name}: {prose(1000, seed)}. What is it about?"
            case "copy":
                question = f"Repeat this note {name} word for word: {prose(60, seed)}."
            case "dialogue":
                question = f"Question {name}: {prose(40, seed)}?"
                self._history.append({"role": "user", "content": question})
                return list(self._history)
        return [{"role": "user", "content": question}]

    def answered(self, text: str) -> None:
        """The answer to the last question, which a dialogue goes on from."""
        if self._workload == "dialogue":
            self._history.append({"role": "assistant", "content": text})


def shape(workload: str) -> dict[str, Any]:
    """What the body of a request has beside messages."""
    if workload != "json":
        return {}
    ticket = {"name": "ticket", "strict": True, "schema": TICKET}
    return {"response_format": {"type": "json_schema", "json_schema": ticket}}
