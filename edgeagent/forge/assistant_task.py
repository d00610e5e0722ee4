"""The training task of an assistant: to answer a text with a call. Batches, loss, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeagent.forge.batches import bucketed
from edgeagent.forge.datasets import Corpus, Item
from edgeagent.forge.decoder import Decoder
from edgeagent.forge.distillation import TrainingPool, asked_in_batches
from edgeagent.forge.intent_classes import IntentClasses, distilled
from edgeagent.forge.intent_metrics import intent_figures
from edgeagent.forge.tokenizer import AssistantTokenizer

# A kernel is generated for each matrix shape, so similar shapes are padded to the same one. Padding does
# not count in any loss.
WIDTH_STEP = 4
ROWS_STEP = 128


class EncodedItem(NamedTuple):
    """An item as tokens: the prompt, and the answer from the intent's token on."""

    prompt: list[int]
    answer: list[int]


class PaddedBatch(NamedTuple):
    """The sequences of one batch. `tokens`: int64 [n_batch, n_tokens], one more than a multiple of
    `WIDTH_STEP`; `n_prompt`, `n_all`: int64 [n_batch]."""

    tokens: Tensor
    n_prompt: Tensor
    n_all: Tensor


def padded(encoded: Sequence[EncodedItem]) -> PaddedBatch:
    n_all = [len(e.prompt) + len(e.answer) for e in encoded]
    width = 1 + -(-(max(n_all) - 1) // WIDTH_STEP) * WIDTH_STEP
    tokens = torch.zeros(len(encoded), width, dtype=torch.long)
    for row, e in enumerate(encoded):
        tokens[row, : n_all[row]] = torch.tensor(e.prompt + e.answer)
    return PaddedBatch(tokens, torch.tensor([len(e.prompt) for e in encoded]), torch.tensor(n_all))


@dataclass(frozen=True)
class LossWeights:
    """The weights of the parts of the loss. The intent counts 1; `slots` is for each token after it,
    `prompt` for each token of the text itself, `any_token` for the intent among all tokens instead of
    those on offer. `teacher` is the teacher's share of the intent, softened by `temperature`. `hint` is
    for the angle between an encoder's vector of the text and the decoder's estimate of it (FitNets, Romero
    et al. 2015, arXiv:1412.6550).
    """

    slots: float = 0.3
    prompt: float = 0.0
    any_token: float = 0.1
    teacher: float = 0.0
    temperature: float = 2.0
    smoothing: float = 0.0
    hint: float = 0.0


class AssistantTask:
    """Trains a decoder on the calls of a pool (a `trainer.TrainingTask`). Items with slots occur only in
    every `slots_every`-th epoch: their answers are long and their intents easy."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: AssistantTokenizer,
        corpus: Corpus,
        pool: TrainingPool,
        *,
        weights: LossWeights,
        batch_tokens: int,
        seed: int,
        slots_every: int = 1,
    ) -> None:
        self.decoder, self.vocabulary, self.pool = decoder, vocabulary, pool
        self.weights = weights
        self.classes = IntentClasses.of(corpus)
        self.validation = list(corpus.validation)
        self._batch_tokens, self._seed, self._slots_every = batch_tokens, seed, slots_every
        self._encoded = [[self._encode(item) for item in variant] for variant in pool.variants]
        self._kept_back = [self._encode(item) for item in self.validation]

    def _encode(self, item: Item) -> EncodedItem:
        return EncodedItem(self.vocabulary.prompt_ids(item.text), self.vocabulary.answer_ids(item))

    def batches(self, epoch: int) -> list[Any]:
        wanted = [
            i
            for i, item in enumerate(self.pool.items)
            if not item.slots or (i + epoch) % self._slots_every == 0
        ]
        # The first epoch determines the number of steps of all: it must not depend on the texts' lengths.
        encoded = self._encoded[0]
        lengths = [len(encoded[i].prompt) + len(encoded[i].answer) + 2 for i in wanted]
        found = bucketed(lengths, self._batch_tokens, self._seed, epoch)
        return [(epoch, [wanted[i] for i in batch]) for batch in found]

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        epoch, indices = batch
        numbers = [self.pool.number(i, epoch) for i in indices]
        items = [self.pool.variants[n][i] for n, i in zip(numbers, indices, strict=True)]
        made = padded([self._encoded[n][i] for n, i in zip(numbers, indices, strict=True)])
        hidden = self.decoder(made.tokens[:, :-1])
        at_intent = hidden[torch.arange(len(items)), made.n_prompt - 1]
        taught = self.pool.taught_of(indices, epoch)
        loss = self._intent_loss(at_intent, items, indices, taught)
        loss = loss + self._token_loss(hidden, made)
        vectors = self.pool.vectors_of(indices, epoch)
        if self.weights.hint and vectors is not None and self.decoder.hint is not None:
            likeness = F.cosine_similarity(self.decoder.hint(at_intent).float(), vectors)
            loss = loss + self.weights.hint * (1 - likeness)[
                self.pool.is_taught[indices]
            ].sum() / len(items)
        return loss, int(made.n_all.sum())

    def _intent_loss(
        self,
        at_intent: Tensor,
        items: list[Item],
        indices: list[int],
        taught: Tensor | None,
    ) -> Tensor:
        weights = self.weights
        logits = self.decoder.logits(at_intent, self.vocabulary.first_intent, self.classes.n)
        classes, domains = self.classes.labels(items)
        narrow = self.classes.narrowed(logits.float(), domains)
        if taught is not None:
            taught = self.classes.narrowed(taught, domains)
        loss = distilled(
            narrow,
            classes,
            taught,
            self.pool.is_taught[indices],
            weight=weights.teacher,
            temperature=weights.temperature,
        )
        if weights.any_token:
            every = self.decoder.logits(at_intent).float()
            wanted = classes + self.vocabulary.first_intent
            loss = loss + weights.any_token * F.cross_entropy(
                every, wanted, label_smoothing=weights.smoothing
            )
        return loss

    def _token_loss(self, hidden: Tensor, made: PaddedBatch) -> Tensor:
        """Loss of the tokens after the intent, and of the text if that counts; per item, as for the
        intent."""
        position = torch.arange(hidden.shape[1])
        is_slot = (position >= made.n_prompt[:, None]) & (position < made.n_all[:, None] - 1)
        weight = self.weights.slots * is_slot.float()
        if self.weights.prompt:
            is_text = (position > 0) & (position < made.n_prompt[:, None] - 2)
            weight = weight + self.weights.prompt * is_text.float()
        weight = weight.flatten()
        chosen = weight.nonzero().squeeze(1)
        added = -len(chosen) % ROWS_STEP
        rows = F.pad(chosen, (0, added))  # padded with the first row
        logits = self.decoder.logits(hidden.flatten(0, 1)[rows]).float()
        each = F.cross_entropy(logits, made.tokens[:, 1:].flatten()[rows], reduction="none")
        total: Tensor = (each * F.pad(weight[chosen], (0, added))).sum() / len(made.tokens)
        return total

    def score(self) -> dict[str, float]:
        logits = asked_in_batches(self.opinion, self.validation)
        figures = intent_figures(logits, self.validation, self.classes)
        figures["calls"] = self.calls_right()
        figures["score"] = (3 * figures["score"] + figures["calls"]) / 4
        return figures

    def opinion(self, texts: list[str]) -> Tensor:
        """Logits of the intents for some texts: float [n_texts, n_classes]."""
        return opinion_of(self.decoder, self.vocabulary, texts)

    def calls_right(self) -> float:
        """The share of the items with slots in which every token is the most probable one after the
        correct ones."""
        chosen = [e for e, item in zip(self._kept_back, self.validation, strict=True) if item.slots]
        n_right = 0
        for start in range(0, len(chosen), 128):
            made = padded(chosen[start : start + 128])
            best = self.decoder.logits(self.decoder(made.tokens[:, :-1])).argmax(-1)
            position = torch.arange(best.shape[1])
            counts = (position >= made.n_prompt[:, None]) & (position < made.n_all[:, None] - 1)
            n_right += int(((best == made.tokens[:, 1:]) | ~counts).all(1).sum())
        return n_right / max(1, len(chosen))


def opinion_of(decoder: Decoder, vocabulary: AssistantTokenizer, texts: list[str]) -> Tensor:
    """A decoder's intent logits for texts: float [n_texts, n_classes]."""
    made = padded([EncodedItem(vocabulary.prompt_ids(text), []) for text in texts])
    tokens = made.tokens[:, : decoder.shape.n_ctx]  # only padding is longer
    hidden = decoder(tokens)[torch.arange(len(texts)), made.n_prompt - 1]
    return decoder.logits(hidden, vocabulary.first_intent, len(vocabulary.intents))
