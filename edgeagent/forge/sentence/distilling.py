"""Teaches a small sentence encoder what a large one knows, on texts without labels.

The states of a BERT encoder tell different things at different depths: topics and words early, the sense
of the whole sentence late. A linear classifier on several of them together does better than one on the last
alone. So the likeness of two texts that the student learns is the mean of their likenesses at some depths of
the teacher, and its vector learns to predict those of the teacher.

Sources: Park et al. 2019, arXiv:1904.05068 (relations); Jawahar et al. 2019, ACL P19-1356 (depths of BERT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeagent.forge.batches import bucketed
from edgeagent.forge.sentence.student import Student

RELATIONS, VECTORS = 20.0, 1.0
_N_HELD = 1024


class DistillationTask:
    """A `trainer.TrainingTask`. tokens: int32 of each text, with [CLS] and [SEP]; vectors: the teacher's,
    float16 [n_depths, n_texts, n_embd]. The last few texts are only scored."""

    def __init__(
        self,
        student: Student,
        tokens: Sequence[np.ndarray[Any, Any]],
        vectors: np.ndarray[Any, Any],
        *,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.student, self._tokens = student, tokens
        self._vectors = torch.from_numpy(vectors)
        self._middle = self._vectors.float().mean(1, keepdim=True)
        self._batch_tokens, self._seed = batch_tokens, seed
        self._lengths = [len(t) for t in tokens[:-_N_HELD]]
        n_depths, _, n_embd = vectors.shape
        # Used for training only.
        student.hint = nn.Linear(student.shape.n_embd, n_depths * n_embd, bias=False)
        nn.init.zeros_(student.hint.weight)

    def batches(self, epoch: int) -> list[Any]:
        return list(bucketed(self._lengths, self._batch_tokens, self._seed, epoch))

    def _wanted(self, batch: Sequence[int]) -> Tensor:
        """The teacher's vectors at all depths in one, of length 1: float32 [n, n_depths * n_embd]."""
        found = self._vectors[:, torch.tensor(batch)].float() - self._middle
        return F.normalize(found, dim=-1).transpose(0, 1).flatten(1) / len(found) ** 0.5

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        tokens, is_text = padded([self._tokens[i] for i in batch])
        made = F.normalize(self.student(tokens, is_text).float(), dim=-1)
        wanted = self._wanted(batch)
        relations = F.mse_loss(made @ made.T, wanted @ wanted.T)
        with torch.autocast("cpu", enabled=False):
            assert self.student.hint is not None
            vectors = F.mse_loss(self.student.hint(made), wanted) * wanted.shape[1]
        return RELATIONS * relations + VECTORS * vectors, int(is_text.sum())

    @torch.no_grad()
    def score(self) -> dict[str, float]:
        """How the likenesses of texts that are not trained on agree with the teacher's: their correlation."""
        n, made, wanted = len(self._tokens), [], []
        for start in range(n - _N_HELD, n, 64):
            part = list(range(start, min(start + 64, n)))
            made.append(self.student(*padded([self._tokens[i] for i in part])).float())
            wanted.append(self._wanted(part))
        ours, theirs = F.normalize(torch.cat(made), dim=-1), torch.cat(wanted)
        pair = torch.triu_indices(len(ours), len(ours), 1)
        both = torch.stack([(x @ x.T)[pair[0], pair[1]] for x in (ours, theirs)])
        return {"score": float(torch.corrcoef(both)[0, 1])}


def padded(texts: Sequence[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor]:
    """Tokens int64 [n, longest], and which of them belong to a text."""
    longest = max(map(len, texts))
    tokens = np.zeros((len(texts), longest), np.int64)
    is_text = np.zeros(tokens.shape, np.bool_)
    for row, text in enumerate(texts):
        tokens[row, : len(text)], is_text[row, : len(text)] = text, True
    return torch.from_numpy(tokens), torch.from_numpy(is_text)
