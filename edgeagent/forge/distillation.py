"""Distillation: the variants of a corpus with a teacher's log-probabilities for each, and the training of
a teacher that is a sentence encoder with a classification head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeagent.forge.augment import Augmenter
from edgeagent.forge.batches import bucketed
from edgeagent.forge.datasets import Corpus, Item
from edgeagent.forge.intent_classes import IntentClasses, distilled
from edgeagent.forge.intent_metrics import intent_figures

Opinion = Callable[[list[str]], Tensor]


class TrainingPool:
    """Every training item in `n_variants` variants; an epoch uses one of each, in turn.

    `taught`: a teacher's log-probabilities, float16 [n_variants, n_items, n_classes], zeros for items that
    no teacher was asked about (`is_taught`).
    """

    def __init__(self, items: Sequence[Item], augmenter: Augmenter, n_variants: int) -> None:
        self.items = list(items)
        self.variants = [
            [augmenter.variant(item, index, number) for index, item in enumerate(self.items)]
            for number in range(n_variants)
        ]
        # Items with slots have easy intents: their labels are sufficient.
        self.asked = [index for index, item in enumerate(self.items) if not item.slots]
        self.is_taught = torch.zeros(len(self.items), dtype=torch.bool)
        self.taught: Tensor | None = None
        self.vectors: Tensor | None = None

    @property
    def n_texts_asked(self) -> int:
        return len(self.asked) * len(self.variants)

    def number(self, index: int, epoch: int) -> int:
        """The variant of an item in an epoch; the first epoch uses the original items."""
        return (epoch + index) % len(self.variants) if epoch else 0

    def texts(self, number: int) -> list[str]:
        """The texts of a variant for which teachers are asked, in the order of `asked`."""
        return [self.variants[number][index].text for index in self.asked]

    def take(
        self, opinions: Sequence[tuple[float, Sequence[Tensor]]], classes: IntentClasses
    ) -> None:
        """Store the weighted mean of the teachers' log-probabilities.

        Takes the weight of each teacher, and its logits [n_asked, n_classes] for each variant.
        """
        _, domains = classes.labels([self.items[index] for index in self.asked])
        taught = torch.zeros(len(self.variants), len(self.items), classes.n, dtype=torch.float16)
        for number in range(len(self.variants)):
            total = sum(weight for weight, _ in opinions)
            mean = sum(
                weight
                / total
                * torch.log_softmax(classes.narrowed(logits[number].float(), domains), -1)
                for weight, logits in opinions
            )
            assert isinstance(mean, Tensor)
            taught[number, self.asked] = mean.clamp(min=-30.0).half()
        self.taught = taught
        self.is_taught[self.asked] = True

    def take_vectors(self, vectors: Sequence[Tensor]) -> None:
        """Store an encoder's vectors of each variant's texts, [n_asked, n_dims] each: centred, and scaled
        to unit length."""
        middle = vectors[0].mean(0)
        n_dims = vectors[0].shape[1]
        self.vectors = torch.zeros(len(self.variants), len(self.items), n_dims, dtype=torch.float16)
        for number, found in enumerate(vectors):
            self.vectors[number, self.asked] = nn.functional.normalize(
                found - middle, dim=-1
            ).half()

    def vectors_of(self, indices: list[int], epoch: int) -> Tensor | None:
        """float32 [n, n_dims], zeros for items that no teacher was asked about; None without an encoder."""
        if self.vectors is None:
            return None
        numbers = torch.tensor([self.number(i, epoch) for i in indices])
        return self.vectors[numbers, torch.tensor(indices)].float()

    def taught_of(self, indices: list[int], epoch: int) -> Tensor | None:
        if self.taught is None:
            return None
        numbers = torch.tensor([self.number(i, epoch) for i in indices])
        return self.taught[numbers, torch.tensor(indices)].float()


class Head(nn.Module):
    """Sentence vectors to logits: float32 [n, n_embd] to [n, n_classes]."""

    def __init__(self, n_embd: int, n_hidden: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(n_embd, n_hidden)
        self.drop = nn.Dropout(dropout)
        self.outer = nn.Linear(n_hidden, n_classes)

    def forward(self, vectors: Tensor) -> Tensor:
        # Longer than unit length, so that the head starts in the range where it learns.
        unit = 8 * nn.functional.normalize(vectors, dim=-1)
        logits: Tensor = self.outer(self.drop(nn.functional.gelu(self.inner(unit))))
        return logits


class HeadTask:
    """Trains a head on precomputed sentence vectors (a `trainer.TrainingTask`).

    `vectors`: for each variant of the pool float32 [n_asked, n_embd]; `kept_back`: [n_validation, n_embd].
    """

    def __init__(
        self,
        head: Head,
        corpus: Corpus,
        pool: TrainingPool,
        vectors: Sequence[Tensor],
        kept_back: Tensor,
        *,
        batch_tokens: int,
        seed: int,
        smoothing: float,
    ) -> None:
        self.head, self.pool, self.vectors, self.kept_back = head, pool, vectors, kept_back
        self.classes = IntentClasses.of(corpus)
        self.validation = list(corpus.validation)
        self._batch_tokens, self._seed, self._smoothing = batch_tokens, seed, smoothing
        self._row = {index: row for row, index in enumerate(pool.asked)}
        self._labels = self.classes.labels(pool.items)

    def batches(self, epoch: int) -> list[Any]:
        # A vector has the same cost for texts of any length.
        found = bucketed([8] * len(self.pool.asked), self._batch_tokens, self._seed, epoch)
        return [(epoch, [self.pool.asked[i] for i in batch]) for batch in found]

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        epoch, indices = batch
        # Every other epoch uses the original texts: the vector of a changed text is farther from its intent
        # than that of the text itself.
        numbers = [self.pool.number(i, epoch) if epoch % 2 else 0 for i in indices]
        rows = [self.vectors[n][self._row[i]] for n, i in zip(numbers, indices, strict=True)]
        logits = self.head(torch.stack(rows))
        classes, domains = (labels[indices] for labels in self._labels)
        narrow = self.classes.narrowed(logits, domains)
        loss = distilled(narrow, classes, None, weight=0, temperature=1)
        loss = loss + 0.2 * nn.functional.cross_entropy(
            logits, classes, label_smoothing=self._smoothing
        )
        return loss, len(indices)

    def score(self) -> dict[str, float]:
        figures = intent_figures(self.head(self.kept_back), self.validation, self.classes)
        # Teachers are not asked about skills: see `TrainingPool`.
        figures["score"] = (figures["assistant"] + figures["service"]) / 2
        return figures


def asked_in_batches(opinion: Opinion, items: Sequence[Item], size: int = 128) -> Tensor:
    """A model's logits of the items' texts: float [n_items, n_classes]."""
    order = sorted(range(len(items)), key=lambda i: len(items[i].text))
    found = [
        opinion([items[i].text for i in order[start : start + size]]).float()
        for start in range(0, len(order), size)
    ]
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(found)[back]
