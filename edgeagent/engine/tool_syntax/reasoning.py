"""The markers of the reasoning section that a model writes before its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Reasoning(NamedTuple):
    opening: str
    closing: str

    def is_opened_by(self, prompt: str) -> bool:
        """Whether the prompt itself ends with the opening, so that the answer begins within."""
        return prompt.rstrip().endswith(self.opening)


KNOWN = (
    Reasoning("<think>", "</think>"),  # DeepSeek, Qwen, SmolLM3, Phi and most others
    Reasoning("[THINK]", "[/THINK]"),  # Magistral
    Reasoning("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    Reasoning("<seed:think>", "</seed:think>"),
    Reasoning("<thought>", "</thought>"),  # EXAONE Deep
    Reasoning("<|channel>thought", "<channel|>"),  # Gemma 4
)


def reasoning_of(template: str, is_token: Callable[[str], bool]) -> Reasoning | None:
    """The markers of a model, found in its template or its vocabulary."""
    for known in KNOWN:
        if known.closing in template or (is_token(known.opening) and is_token(known.closing)):
            return known
    return None
