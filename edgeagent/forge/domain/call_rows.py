"""The first rows of the call tokens of a domain model, from those of the shipped assistant."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.trunk import Trunk
from edgeagent.forge.domain.trunk_file import Floats
from edgeagent.types.intents import LAST_SLOT, NO_SLOTS, call_texts


def calls_of(domain: Domain) -> list[str]:
    """The texts of all call tokens, intents first, out-of-scope last of them."""
    return call_texts((*domain.intents, OUT_OF_SCOPE), domain.slot_names)


def first_rows(trunk: Trunk, domain: Domain, heads: Floats) -> Floats:
    """The rows of intents are `heads`, float32 [n_intents + 1, n_embd]. A slot begins as the one of the same
    name that the base knows, else as the mean of those; the ends of calls are the base's own."""
    calls = calls_of(domain)
    rows = np.zeros((len(calls), trunk.n_embd), np.float32)
    rows[: len(heads)] = heads
    first = _mean(
        trunk.calls, lambda text: text.endswith('":"') and text.startswith('"') and text[1] != ","
    )
    later = _mean(trunk.calls, lambda text: text.startswith('","'))
    for number in range(len(heads), len(calls)):
        text = calls[number]
        known = trunk.calls.get(text)
        if known is None and text not in (NO_SLOTS, LAST_SLOT):
            known = later if text.startswith('","') else first
        if known is not None:
            rows[number] = known
    return rows


def _mean(calls: Mapping[str, Floats], is_wanted: Callable[[str], bool]) -> Floats | None:
    found = [row for text, row in calls.items() if is_wanted(text)]
    return np.asarray(np.mean(found, axis=0), np.float32) if found else None
