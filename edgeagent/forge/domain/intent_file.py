"""The file that tells the daemon what a model of one's own can be asked for (`catalog.assistant_intents`)."""

from __future__ import annotations

import json
from typing import Any

from edgeagent.catalog.assistant_intents import described
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.example import Domain


def intent_file(domain: Domain, name: str) -> str:
    """The intents as one domain called `name`, their slots, descriptions and answers, as JSON."""
    slots = domain.slot_names
    tools: dict[str, dict[str, Any]] = {}
    for intent in domain.intents:
        told = str(domain.tools.get(intent, {}).get("description", ""))
        answer = domain.answers.get(intent, "")
        if intent in slots or told or answer:
            tools[intent] = {
                "description": told or described(intent),
                "slots": list(slots.get(intent, ())),
                "answer": answer,
            }
    body = {"out_of_scope": OUT_OF_SCOPE, "domains": {name: list(domain.intents)}, "tools": tools}
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"
