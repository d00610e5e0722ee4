"""Trains the small sentence encoder that own intents are built on, in steps that go on after an interruption:
texts, teacher's vectors, word pieces, distillation. Everything is kept in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer

from edgeagent.catalog.install.convert import convert, gguf_name
from edgeagent.catalog.install.safetensors import read_tensors
from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.sentence.corpus import TextCorpus
from edgeagent.forge.sentence.distilling import DistillationTask
from edgeagent.forge.sentence.gguf_file import cut, weights_of
from edgeagent.forge.sentence.student import Student, cut_out
from edgeagent.forge.sentence.teacher import DepthEncoder
from edgeagent.forge.sentence.vocabulary import chosen
from edgeagent.forge.trainer import Trainer, TrainingPlan

Until = Callable[[], bool]
_PART, _MAX_TOKENS = 4096, 64
# As the weights are stored: 4 bits, as they are trained.
TYPES = {"table": "Q4_0", "matrix": "Q4_0", "places": "Q8_0"}


@dataclass(frozen=True)
class EncoderRecipe:
    """How the small encoder is made: `n_pieces` of the vocabulary and the first `n_layers` of the
    teacher are kept; it learns the means of the teacher's states at `depths`, `n_layers` among them."""

    n_pieces: int = 15_000
    n_layers: int = 4
    depths: tuple[int, ...] = (2, 4, 6)
    n_ctx: int = 256
    epochs: int = 1
    learning_rate: float = 3e-4
    batch_tokens: int = 1536
    seed: int = 1
    n_texts: int | None = 20_480


class EncoderTraining:
    """One training in `folder`; `published` has config.json, vocab.txt and model.safetensors of MiniLM."""

    def __init__(
        self, folder: Path, published: Path, corpus: TextCorpus, recipe: EncoderRecipe
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe = folder, recipe
        self._published = published
        self.texts = list(corpus.texts[: recipe.n_texts])

    def ask_teacher(self, until: Until) -> bool:
        """The teacher's vectors of all texts, in parts; False if `until` ended it."""
        teacher: DepthEncoder | None = None
        for start in range(0, len(self.texts), _PART):
            path = self._part(start)
            if path.is_file():
                continue
            if until():
                return False
            if teacher is None:
                teacher = DepthEncoder(self._published)
                teacher.tokenizer.enable_truncation(_MAX_TOKENS)
            found = teacher.asked(self.texts[start : start + _PART], self.recipe.depths)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, found)
            partial.replace(path)
        return True

    def _part(self, start: int) -> Path:
        return self.folder / f"vectors-{start:07d}.npy"

    def vectors(self) -> np.ndarray[Any, Any]:
        """float16 [n_depths, n_texts, n_embd]."""
        parts = [np.load(self._part(start)) for start in range(0, len(self.texts), _PART)]
        return np.concatenate(parts, axis=1)

    def pieces(self) -> list[str]:
        """The pieces that are kept, by their new number."""
        every = (self._published / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return [every[i] for i in self.kept()]

    def kept(self) -> list[int]:
        path = self.folder / "pieces.json"
        if not path.is_file():
            every = (self._published / "vocab.txt").read_text(encoding="utf-8").splitlines()
            whole = BertWordPieceTokenizer(str(self._published / "vocab.txt"), lowercase=True)
            used = (e.ids for e in whole.encode_batch(self.texts, add_special_tokens=False))
            path.write_text(json.dumps(chosen(every, used, self.recipe.n_pieces)), encoding="utf-8")
        found: list[int] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def tokenizer(self) -> BertWordPieceTokenizer:
        path = self.folder / "vocab.txt"
        path.write_text("\n".join(self.pieces()) + "\n", encoding="utf-8")
        made = BertWordPieceTokenizer(str(path), lowercase=True)
        made.enable_truncation(_MAX_TOKENS)
        return made

    def student(self) -> Student:
        """As it begins: cut out of the teacher, with the mean of its vectors at zero."""
        read = read_tensors(self._published / "model.safetensors")
        named = {gguf_name(name): array for name, array in read.items()}
        tensors = {name: array for name, array in named.items() if name is not None}
        student = cut_out(tensors, self.kept(), range(self.recipe.n_layers), self.recipe.n_ctx)
        middle = self.vectors()[self.recipe.depths.index(self.recipe.n_layers)].mean(0, np.float64)
        with torch.no_grad():
            student.blk[-1].layer_output_norm.bias -= torch.from_numpy(middle).float()
        return student

    def trained(self) -> Student:
        student = self.student()
        best = torch.load(self.folder / "best.pt", weights_only=True)
        student.load_state_dict({k: v for k, v in best.items() if not k.startswith("hint.")})
        student.eval()
        return student

    def distil(self, until: Until) -> dict[str, float]:
        """The figures of the trained student; none if `until` ended it."""
        student = self.student()
        tokens = tokens_of(self.tokenizer(), self.texts)
        recipe = self.recipe
        task = DistillationTask(
            student, tokens, self.vectors(), batch_tokens=recipe.batch_tokens, seed=recipe.seed
        )
        plan = TrainingPlan(
            epochs=recipe.epochs, learning_rate=recipe.learning_rate, warmup=0.03,
            batch_tokens=recipe.batch_tokens, weight_decay=0.01, seed=recipe.seed, average=0.995,
            group_rates={"token_embd": 2 * recipe.learning_rate, "hint": 10 * recipe.learning_rate},
        )  # fmt: skip
        trainer = Trainer(student, task, plan, self.folder)
        trainer.resume()
        return trainer.run(until=until, save_every_s=100)

    def export(self, target: Path) -> EncoderTrunk:
        """Write the trained student as a GGUF file."""
        whole_path = self.folder / "whole.gguf"
        if not whole_path.is_file():
            convert("minilm", self._published, whole_path)
        whole = EncoderTrunk.read(whole_path)
        layers = range(self.recipe.n_layers)
        small = cut(whole, self.kept(), layers, self.recipe.n_ctx, TYPES)
        nothing = np.zeros((0, small.n_embd + 1), np.float32)
        small.write(
            target, [], nothing, name=target.stem, weights=weights_of(self.trained(), whole),
            description="Broad English for a linear classifier of intents",
        )  # fmt: skip
        return EncoderTrunk.read(target)


def tokens_of(
    tokenizer: BertWordPieceTokenizer, texts: Sequence[str]
) -> list[np.ndarray[Any, Any]]:
    return [np.array(e.ids, np.int32) for e in tokenizer.encode_batch(list(texts))]
