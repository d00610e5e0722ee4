"""Which system prompts and tools return so often that what was computed of them is worth a file. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import msgspec

from edgeagent.settings.store import PrefixSettings
from edgeagent.types.generation import GenerateSpec

MAX_HEAD_BYTES = 256 << 10  # a longer text would hold up the event loop, and fits no small model
MAX_SEEN = 1024  # texts that are counted at once
RETRY_S = 3600.0  # from one write of a text to the next, or from a failure


class PromptHead(NamedTuple):
    """What comes before the turns of a chat, by digest. `scope`: the API key that sent it."""

    scope: str
    model_id: str
    digest: bytes


def head_of(model_id: str, spec: GenerateSpec, min_tokens: int) -> PromptHead | None:
    """The head of a request. None where nothing can be kept of it: it has none, or one that is too short or
    too long, or is computed with a LoRA adapter, which is not kept."""
    if len(spec.prompts) != 1 or spec.adapter is not None or spec.intent_question is not None:
        return None
    prompt = spec.prompts[0]
    system = prompt.system_messages
    if prompt.before or prompt.messages is None or not (system or spec.tools):
        return None
    text = msgspec.json.encode([system, spec.tools, prompt.variables])
    # A token is mostly several bytes, and hardly ever less than one.
    if not min_tokens <= len(text) <= MAX_HEAD_BYTES:
        return None
    return PromptHead(spec.scope, model_id, sha256(text).digest())


@dataclass
class Sighting:
    """How often a head was seen since the start, and from when on it may be written."""

    owner: str
    first_s: float
    n: int = 0
    not_before_s: float = 0.0


class Sightings:
    """Counts heads in memory. Those that were not seen for longest are forgotten first."""

    def __init__(self, settings: PrefixSettings) -> None:
        self._settings = settings
        self._seen: OrderedDict[PromptHead, Sighting] = OrderedDict()

    def add(self, head: PromptHead, owner: str, now_s: float) -> bool:
        """Count a request. Whether its head should be written now."""
        seen = self._seen.setdefault(head, Sighting(owner, now_s))
        self._seen.move_to_end(head)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        seen.n += 1
        is_old = now_s - seen.first_s >= self._settings.min_age_s
        return seen.n >= self._settings.min_uses and is_old and now_s >= seen.not_before_s

    def postpone(self, head: PromptHead, now_s: float, delay_s: float = RETRY_S) -> None:
        """It was written, or cannot be: not again for a while, whatever becomes of the file."""
        if head in self._seen:
            self._seen[head].not_before_s = now_s + delay_s

    def forget(self, owner: str | None) -> None:
        """Begin to count an owner's heads anew (None: all)."""
        for seen in self._seen.values():
            if owner is None or seen.owner == owner:
                seen.n = 0
