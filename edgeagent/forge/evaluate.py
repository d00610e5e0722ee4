"""Evaluates an exported file as llama.cpp runs it: intents, slots, and out-of-scope texts.

The intent is the most probable one of the domain, from one pass; slots are decoded greedily after it.
`scripts/bench assistant` computes the same metrics through the daemon's API.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from edgeagent.engine.intents.intent_scoring import IntentChoice, IntentOffer, plain_pieces
from edgeagent.engine.llama.model import Llama
from edgeagent.forge.datasets import OUT_OF_SCOPE, Corpus, Item
from edgeagent.forge.intent_classes import IntentClasses, Threshold
from edgeagent.forge.intent_metrics import intent_figures, thresholds
from edgeagent.forge.tokenizer import AssistantTokenizer, first_values
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.intents import (
    LAST_SLOT,
    NO_SLOTS,
    Candidate,
    IntentQuestion,
    Slot,
    intent_text,
    slot_text,
)


@dataclass(frozen=True)
class EvaluationResult:
    """Shares of validation items. `assistant`, `service`, `skills`: correct intents; `oos_*`: effect of
    the threshold on CLINC150; `slot_f1`: exact pairs of slot and value on SNIPS."""

    assistant: float
    service: float
    skills: float
    oos_recall: float
    oos_cost: float
    oos_threshold: float
    slot_f1: float
    calls: float
    thresholds: dict[str, Threshold] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float]:
        """Only the metrics."""
        return {name: value for name, value in asdict(self).items() if name != "thresholds"}


def plain_config(path: Path, n_threads: int = 1) -> EngineConfig:
    """One sequence and no repacked weights: those may use AMX tiles, which torch also uses in this
    process, and which crash it if llama.cpp was compiled by GCC 12 (`worker/confinement.py`)."""
    return EngineConfig(
        model_id=path.stem,
        path=str(path),
        n_ctx=512,
        n_seq=1,
        n_prefixes=0,
        n_threads=n_threads,
        repack=False,
    )


class Evaluator:
    """One GGUF file and its tokenizer. `close()` may be called twice."""

    def __init__(self, path: Path, vocabulary: AssistantTokenizer, n_threads: int = 1) -> None:
        self.vocabulary = vocabulary
        self._llama = Llama(plain_config(path, n_threads))
        self._pieces = plain_pieces(self._llama)

    def logits(self, fed: Sequence[int], at: int) -> torch.Tensor:
        """Logits of the next token, float32 [n_vocab]; `at` tokens have been computed before."""
        self._llama.batch.clear()
        self._llama.batch.add(0, array("i", fed), at, n_outputs=1)
        return torch.from_numpy(self._llama.decode()[0].copy())

    def intent_logits(self, text: str) -> tuple[torch.Tensor, int]:
        """Logits of all intents, and the length of the prompt, which stays in the cache."""
        self._llama.clear()
        prompt = self.vocabulary.prompt_ids(text)
        first = self.vocabulary.first_intent
        return self.logits(prompt, 0)[first : first + len(self.vocabulary.intents)], len(prompt)

    def slots(self, text: str, intent: str, at: int) -> dict[str, str]:
        """Decode the slots of an intent after the prompt of its text, as the engine does."""
        names = self.vocabulary.slot_names.get(intent, ())
        if not names:
            return {}
        candidate = Candidate(intent, True, [Slot(name) for name in names])
        choice = IntentChoice(self._offer(text, candidate), chosen=candidate)
        token, told = self.vocabulary.id_of(intent_text(intent, True)), ""
        while True:
            token, piece = choice.next_token(self.logits([token], at).numpy())
            at += 1
            if piece is not None:
                choice.go_on(piece)
                continue
            told += choice.turn(token)
            if choice.slot is None:
                found: dict[str, str] = json.loads(told)
                return found

    def _offer(self, text: str, candidate: Candidate) -> IntentOffer:
        intent_question = IntentQuestion(
            text=text, candidates=[candidate], out_of_scope=OUT_OF_SCOPE, threshold=0.0,
            may_abstain=False, otherwise="",
        )  # fmt: skip
        id_of, names = self.vocabulary.id_of, [slot.name for slot in candidate.slots]
        return IntentOffer(
            intent_question,
            np.empty(0, np.int64),
            {name: id_of(slot_text(name, is_first=True)) for name in names},
            {name: id_of(slot_text(name, is_first=False)) for name in names},
            id_of(NO_SLOTS),
            id_of(LAST_SLOT),
            self._pieces,
        )

    def close(self) -> None:
        self._llama.close()


def evaluate(
    path: Path,
    vocabulary: AssistantTokenizer,
    corpus: Corpus,
    *,
    every: int = 1,
    say: Callable[[int], None] = lambda n: None,
) -> EvaluationResult:
    """Metrics of a file on every `every`-th validation item. `say` gets the number of finished items."""
    items = corpus.validation[::every]
    classes = IntentClasses.of(corpus)
    found_logits, pairs, calls = [], [], []
    evaluator = Evaluator(path, vocabulary)
    try:
        for item in items:
            one, at = evaluator.intent_logits(item.text)
            found_logits.append(one)
            if item.domain == "skills" and item.intent in vocabulary.slot_names:
                _, domains = classes.labels([item])
                best = int(classes.narrowed(one[None], domains)[0, :-1].argmax())
                slots = evaluator.slots(item.text, vocabulary.intents[best], at)
                wanted = dict(first_values(item))
                pairs.append((wanted, slots))
                calls.append(vocabulary.intents[best] == item.intent and wanted == slots)
            say(1)
    finally:
        evaluator.close()
    logits = torch.stack(found_logits)
    figures = intent_figures(logits, items, classes)
    figures.pop("score")
    return EvaluationResult(
        **figures,
        slot_f1=slot_f1(pairs),
        calls=sum(calls) / max(1, len(calls)),
        thresholds=thresholds(logits, items, classes),
    )


def slot_f1(pairs: Iterable[tuple[dict[str, str], dict[str, str]]]) -> float:
    """F1 over all expected and found (slot, value) pairs; only exact matches count."""
    counts: Counter[str] = Counter()
    for wanted, found in pairs:
        right = sum(found.get(name) == value for name, value in wanted.items())
        counts.update(right=right, wanted=len(wanted), found=len(found))
    total = counts["wanted"] + counts["found"]
    return 2 * counts["right"] / total if total else 1.0


def sample(items: Sequence[Item], n: int) -> list[Item]:
    """About `n` evenly spaced items."""
    return list(items[:: max(1, len(items) // n)])[:n]
