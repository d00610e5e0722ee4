"""Prompts for fill-in-the-middle: the text before the gap, the text after it, then the marker of the middle.

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
    """Token ids of a prompt whose answer is the text between two texts: int32 [n].

    Names of special tokens in the texts are text. Raises: UnsupportedParameter if the vocabulary has no
    markers for a gap.
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
