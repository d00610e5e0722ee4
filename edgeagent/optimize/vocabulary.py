"""Leaves out the tokens that a domain never uses: with small models embeddings are a third of the file.

Kept are the tokens of the domain's texts, all single bytes, all special tokens, and every token on the way
of merges to a kept one. Merges keep their order, so the texts of the domain are split as before, and any
other text is split into smaller pieces. Rows of the embedding and of the output matrix are copied as they
are: the logits of kept tokens do not change. Byte-pair vocabularies ("gpt2") only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.surgery import open_file, rewrite

# llama.h: enum llama_token_type.
NORMAL = 1
_PER_TOKEN = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores")
_MERGES = "tokenizer.ggml.merges"
_ROWS = ("token_embd.weight", "output.weight", "output.bias")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a file in the alphabet of their merges; `kinds` is llama.h's llama_token_type."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class PrunedVocabulary:
    """`ids`: the kept tokens, ascending; their index is their new id. `merges`: indices of the kept ones."""

    ids: tuple[int, ...]
    merges: tuple[int, ...]


def pruned(vocabulary: Vocabulary, used: Iterable[int]) -> PrunedVocabulary:
    """The vocabulary that texts with these tokens need."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    ranks = {pair: rank for rank, pair in enumerate(vocabulary.merges)}
    keep = {
        i for i, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind != NORMAL or len(token) == 1
    }  # fmt: skip
    for i in set(used) - keep:
        keep.add(i)
        keep |= {ids[part] for part in parts_of(vocabulary.tokens[i], ranks) if part in ids}
    kept = {vocabulary.tokens[i] for i in keep}
    merges = tuple(
        rank for rank, (left, right) in enumerate(vocabulary.merges)
        if left in kept and right in kept and left + right in kept
    )  # fmt: skip
    return PrunedVocabulary(tuple(sorted(keep)), merges)


def parts_of(token: str, ranks: Mapping[tuple[str, str], int]) -> set[str]:
    """Every token on the way of merges from single characters to `token`."""
    symbols, found = list(token), set(token)
    while len(symbols) > 1:
        pairs = list(itertools.pairwise(symbols))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged: list[str] = []
        at = 0
        while at < len(symbols):
            if tuple(symbols[at : at + 2]) == best:
                merged.append("".join(best))
                found.add(merged[-1])
                at += 2
            else:
                merged.append(symbols[at])
                at += 1
        symbols = merged
    return found


def write_pruned(source: Path, target: Path, used: Iterable[int]) -> PrunedVocabulary:
    """Write `source` with the vocabulary that `used` needs. Raises: InvalidParameter."""
    reader = open_file(source)
    vocabulary = _vocabulary(reader, source)
    found = pruned(vocabulary, used)
    new_ids = {old: new for new, old in enumerate(found.ids)}
    rows = np.array(found.ids)

    def value_of(name: str, value: Any) -> Any:
        if name in _PER_TOKEN:
            return [value[i] for i in found.ids]
        if name == _MERGES:
            return [value[i] for i in found.merges]
        if name.endswith("_token_id"):
            return new_ids.get(value, value)
        return len(found.ids) if name.endswith(".vocab_size") else value

    def data_of(tensor: Any) -> np.ndarray[Any, Any]:
        if tensor.name in _ROWS:
            return np.ascontiguousarray(tensor.data[rows])
        if tensor.data.shape[0] == len(vocabulary.tokens):
            raise InvalidParameter(
                f"Tensor {tensor.name!r} of {source} has a row for each token, and it is not known how to "
                "cut it: this architecture cannot be pruned."
            )
        return tensor.data  # type: ignore[no-any-return]

    rewrite(reader, target, value_of=value_of, data_of=data_of)
    return found


def _vocabulary(reader: Any, source: Path) -> Vocabulary:
    fields = reader.fields
    kind = fields["tokenizer.ggml.model"].contents() if "tokenizer.ggml.model" in fields else None
    if kind != "gpt2" or _MERGES not in fields:
        raise InvalidParameter(
            f"{source} has a vocabulary of the kind {kind!r}; only byte-pair vocabularies ('gpt2') with "
            "merges can be pruned."
        )
    merges = [tuple(merge.split(" ", 1)) for merge in fields[_MERGES].contents()]
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    return Vocabulary(tokens, kinds, merges)
