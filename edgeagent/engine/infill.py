"""Prompts with a gap: what stands before it and behind it, and then the mark where the middle begins.

Source: Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle",
arXiv:2207.14255, in the order prefix, suffix, middle, as code models are taught it.
"""

from __future__ import annotations

from array import array

from edgeagent.engine.bindings import lib
from edgeagent.engine.llama import Llama
from edgeagent.errors import UnsupportedParameter


def _marks(llama: Llama) -> tuple[int, int, int]:
    """The tokens before a prefix, a suffix and the middle; below 0 where the vocabulary has none."""
    vocabulary = llama.vocab_address
    return (
        int(lib.llama_vocab_fim_pre(vocabulary)),
        int(lib.llama_vocab_fim_suf(vocabulary)),
        int(lib.llama_vocab_fim_mid(vocabulary)),
    )


def can_fill_in(llama: Llama) -> bool:
    """Whether `with_gap` works with the model."""
    return min(_marks(llama)) >= 0


def with_gap(llama: Llama, before: str, behind: str, model_id: str) -> array[int]:
    """Token ids of a prompt that is answered with what stands between two texts: int32 [n].

    Special tokens written in the texts are text: it is code that is filled in. Raises:
    UnsupportedParameter where the vocabulary has no marks for it.
    """
    marks = _marks(llama)
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
