"""Checks that llama.cpp computes what was trained: compares its logits with torch's, token by token.

A wrongly exported file would still answer, only worse; this check detects that.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edgeagent.engine.llama.model import Llama
from edgeagent.forge.decoder import Decoder
from edgeagent.forge.evaluate import plain_config
from edgeagent.forge.tokenizer import END, AssistantTokenizer


@dataclass(frozen=True)
class Parity:
    """Over `n_prompts` prompts and their greedy answers of `n_tokens` tokens in all: the largest
    difference of a logit, and how many answers are identical to the token."""

    n_prompts: int
    n_tokens: int
    largest_difference: float
    n_equal: int
    n_same_ids: int


def compare(
    decoder: Decoder,
    vocabulary: AssistantTokenizer,
    path: Path,
    texts: Sequence[str],
    *,
    max_tokens: int = 24,
) -> Parity:
    """Run both on the same prompts. `n_same_ids` counts prompts that llama.cpp splits into the same
    tokens.

    Both are given torch's greedy tokens, so that one early difference does not hide later ones.
    """
    llama = Llama(plain_config(path))
    largest, n_equal, n_tokens, n_same_ids = 0.0, 0, 0, 0
    end = vocabulary.id_of(END)
    decoder.eval()
    try:
        for text in texts:
            ids = vocabulary.prompt_ids(text)
            rendered = vocabulary.decode(ids)
            n_same_ids += list(llama.tokenize(rendered, add_special=True)) == ids
            llama.clear()
            fed, at, is_equal = ids, 0, True
            for _ in range(max_tokens):
                llama.batch.clear()
                llama.batch.add(0, array("i", fed), at, n_outputs=1)
                theirs = torch.from_numpy(llama.decode()[0].copy())
                at += len(fed)
                with torch.no_grad():
                    ours = decoder.logits(decoder(torch.tensor([ids]))[0, -1])
                largest = max(largest, float((ours - theirs).abs().max()))
                token = int(ours.argmax())
                is_equal &= token == int(theirs.argmax())
                n_tokens += 1
                if token == end or len(ids) + 1 >= decoder.shape.n_ctx:
                    break
                ids, fed = [*ids, token], [token]
            n_equal += is_equal
    finally:
        llama.close()
    return Parity(len(texts), n_tokens, largest, n_equal, n_same_ids)
