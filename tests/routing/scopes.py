"""A scope gate that was made from a few invented intents."""

from __future__ import annotations

import random
from functools import cache

import msgspec

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.routing.scope_gate import DomainGates, Gate, ScopeFile
from edgeagent.routing.training.scope_training import Answer, domain_gates, examples_of

MODEL = "a" * 64
THINGS = {
    "light": (["turn", "switch", "put"], ["lamp", "light", "lights"], ["kitchen", "hall", "attic"]),
    "door": (["open", "close", "lock"], ["door", "gate", "window"], ["garden", "front", "back"]),
    "music": (["play", "stop", "repeat"], ["song", "album", "record"], ["jazz", "rock", "folk"]),
}
OTHERS = (["who", "why", "when", "how"], ["did", "does", "must"], ["rome", "whales", "taxes", "glass"],
          ["fall", "sing", "rise", "break"])  # fmt: skip


def texts(seed: int, n: int) -> list[tuple[str, str]]:
    """Texts with their intents."""
    rng = random.Random(seed)
    found = []
    for number in range(n):
        intent = sorted(THINGS)[number % len(THINGS)]
        verbs, things, places = (rng.choice(words) for words in THINGS[intent])
        found.append(
            (f"{verbs} the {things} of the {places} {rng.choice(['now', 'please', ''])}", intent)
        )
    return found


def strange(seed: int, n: int) -> list[str]:
    """Texts of no intent."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(words) for words in OTHERS) for _ in range(n)]


def answers(seed: int, n: int, n_outside: int) -> list[Answer]:
    """What a model answers that is little surer of its own texts than of others."""
    rng = random.Random(seed)
    found = []
    for text, intent in texts(seed, n):
        p = min(0.99, max(0.02, rng.gauss(0.7, 0.2)))
        found.append(Answer(text, intent, intent, p, p / 2))
    for text in strange(seed, n_outside):
        p = min(0.99, max(0.02, rng.gauss(0.5, 0.2)))
        found.append(Answer(text, None, rng.choice(sorted(THINGS)), p, p / 2))
    return found


@cache
def scope_file(sha256: str = MODEL, domain: str = ALL) -> ScopeFile:
    file = examples_of(texts(1, 90))
    gates = domain_gates(answers(2, 300, 60), file)
    return msgspec.structs.replace(file, models={sha256: {domain: gates}})


NAMES = (
    "timer",
    "translate",
    "weather",
    "card_arrival",
    "lost_or_stolen_card",
    "GetWeather",
    "PlayMusic",
)


def closed_scope(sha256: str, domain: str) -> ScopeFile:
    """A gate of the small assistant of the tests (tests/assistant.py) that finds every text out of scope."""
    file = examples_of([(name.replace("_", " "), name) for name in NAMES])
    gate = Gate([0.0] * 7, [1.0] * 7, [0.0] * 7, -1.0, [0.001], [0.0])
    return msgspec.structs.replace(file, models={sha256: {domain: DomainGates(gate)}})
