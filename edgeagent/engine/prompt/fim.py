"""Prompts with a gap: what stands before it and behind it, and then the mark where the middle begins.

Source: Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle",
arXiv:2207.14255, in the order prefix, suffix, middle, as code models are taught it.
"""

from __future__ import annotations

from array import array

from edgeagent.engine.llama.model import Llama
from edgeagent.errors import UnsupportedParameter


def can_fill_in(llama: Llama) -> bool:
    """Whether `with_gap` works with the model."""
    return min(llama.fim_marks) >= 0


def with_gap(llama: Llama, before: str, behind: str, model_id: str) -> array[int]:
    """Token ids of a prompt that is answered with what stands between two texts: int32 [n].

    Special tokens written in the texts are text: it is code that is filled in. Raises:
    UnsupportedParameter where the vocabulary has no marks for it.
    """
    marks = llama.fim_marks
    if min(marks) < 0:
        raise UnsupportedParameter(
            f"`suffix` needs a model that was taught to fill in, and the vocabulary of {model_id} has no "
            "tokens that say so: leave it out, or choose a model of code.",
            param="suffix",
        )
    first, second, middle = marks
    begin = [llama.bos] if llama.adds_bos and llama.bos is not None else []
    return array("i", [
        *begin,
        first, *llama.tokens_of(before, add_special=False, parse_special=False),
        second, *llama.tokens_of(behind, add_special=False, parse_special=False),
        middle,
    ])  # fmt: skip
