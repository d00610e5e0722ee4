"""The card of the small sentence encoder, in Markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderFacts:
    """What was made, and from what: `n_texts` were drawn from `n_known` with this digest. `agreement`: the
    correlation of likenesses with the teacher's."""

    n_params: int
    n_pieces: int
    n_layers: int
    depths: tuple[int, ...]
    n_texts: int
    n_known: int
    corpus_sha256: str
    epochs: int
    agreement: float
    size_bytes: int


def encoder_card(name: str, facts: EncoderFacts) -> str:
    depths = " and ".join([", ".join(map(str, facts.depths[:-1])), str(facts.depths[-1])])
    megabytes = f"{facts.size_bytes / 1e6:.1f} MB"
    return f"""# {name}

The base model of own intents (`edgeagent forge new`): a sentence encoder of broad English.
{facts.n_params:,} parameters, BERT architecture, {facts.n_layers} layers, {facts.n_pieces:,} word
pieces, Q4_0, {megabytes}, Apache-2.0.

It is no model to ask by itself, and `edgeagent models list` does not show it: `forge new` adds a linear
classifier to it, which llama.cpp and numpy compute with no torch, and the scope gate of the assistants
compares texts by its vectors. How much that is worth is in
[RESULTS](../../scripts/benchmarks/RESULTS.md), "Own intents" and "Routing".

## How it was made

`edgeagent forge encoder` (`scripts/train_default_models` runs it) cuts the first {facts.n_layers} layers
and the most used word pieces out of
[all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (Apache-2.0; Wang et al.
2020, arXiv:2002.10957), and teaches them what the whole model knows: that two texts are as alike as the
states of the whole model are behind layers {depths}, in the mean. A linear classifier does better on
several depths together than on the last one, the sentence vector. All matrices were trained as they are
stored, in 4 bits.

Epochs: {facts.epochs}, over {facts.n_texts:,} texts without labels, drawn from {facts.n_known:,} with the
SHA-256 digest `{facts.corpus_sha256}`:

| texts | origin | licence |
|---|---|---|
| definitions and examples of words | WordNet 3.0, Princeton University | WordNet 3.0 |
| first paragraphs of descriptions of programs | Debian bookworm's index of packages | of each package |
| sentences of an encyclopedia | WikiText-2, validation part | CC BY-SA 3.0 |
| what people ask for | CLINC150, training split | CC BY 3.0 |
| what customers ask a bank | Banking77, training split | CC BY 4.0 |
| questions for functions | BFCL | Apache-2.0 |

On texts that it was not trained on, its likenesses correlate with the teacher's by {facts.agreement:.3f}.

MMLU, MTS-Dialog and SNIPS were not used: they show what it does with texts that it has not seen.

## What it cannot do

English only, in lower case. It reads at most 256 pieces of a text. It fills no slots: intents with slots
are built on edge-assistant-s.
"""
