"""The model card of a shipped model, for people: what it does, how well, what it was made of, what it
cannot do.

Every number comes from `evaluate`, from the training log, or from `parity`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.evaluate import EvaluationResult
from edgeagent.forge.parity import Parity
from edgeagent.forge.recipe import Recipe

_FIGURES = (
    ("assistant", "CLINC150: accuracy of 150 intents"),
    ("service", "Banking77: accuracy of 77 intents"),
    ("skills", "SNIPS: accuracy of 7 intents"),
    ("slot_f1", "SNIPS: F1 of slots, exact values"),
    ("calls", "SNIPS: whole calls that are right"),
    ("oos_recall", "CLINC150: out-of-scope texts that are recognised"),
    ("oos_cost", "CLINC150: right answers that this loses"),
)


@dataclass(frozen=True)
class TrainingSummary:
    """The summary of one training from its log: `figures` of its best weights, `trained_s` in seconds.
    `before` is the training whose weights it started from."""

    recipe: Recipe
    n_params: int
    figures: dict[str, float]
    epochs: int
    trained_s: float
    before: TrainingSummary | None = None

    def knows(self, figure: str) -> bool:
        """Whether it was trained for what a metric measures: a sentence encoder is not trained on skills."""
        return figure in self.figures and (self.recipe.kind == "decoder" or figure != "skills")


def training(
    run: Path, recipe: Recipe, n_params: int, before: TrainingSummary | None = None
) -> TrainingSummary:
    """Read a run's folder. Raises: ForgeFailed if the training is not complete."""
    try:
        figures = json.loads((run / "figures.json").read_text(encoding="utf-8"))
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        last = json.loads(lines[-1])
        epochs, trained_s = int(last["epoch"]), float(last["trained_s"])
    except (OSError, ValueError, IndexError, KeyError) as exc:
        raise ForgeFailed(
            f"{run} has no complete training ({exc}): train its recipe first."
        ) from exc
    return TrainingSummary(recipe, n_params, figures, epochs, trained_s, before)


def card(
    trained: TrainingSummary,
    path: Path,
    quant: str,
    plain: EvaluationResult,
    quantized: EvaluationResult,
    parity: Parity,
    others: Sequence[TrainingSummary],
    machine: str,
) -> str:
    """The card in Markdown. `plain` and `quantized` are the results of the F16 file and of the one at
    `path`; `others` are trainings for comparison; `machine` is where it was trained."""
    recipe = trained.recipe
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            f"{recipe.description}. {trained.n_params:,} parameters, llama architecture, {quant}, "
            f"{path.stat().st_size / 1e6:.1f} MB, Apache-2.0.",
            "",
            *_use(recipe.name),
            *_measured(quant, plain, quantized, parity),
            *_thresholds(quantized),
            *_compared(trained, others),
            *_made(trained, machine),
            *_limits(),
            *_data(),
        ]
    )


def _use(name: str) -> list[str]:
    return [
        "## What it does",
        "",
        "One text of a user becomes one call, in a single pass over the intents that are on offer:",
        "",
        '    book me a table for two in Rome  ->  {"name":"BookRestaurant","arguments":{"party_size_number"'
        ':"two","city":"Rome"}}',
        "",
        "Three domains: `assistant` (CLINC150: 150 intents of everyday life), `service` (Banking77: 77",
        "questions to a bank) and `skills` (SNIPS: 7 intents with slots). Where no intent is probable",
        "enough it abstains.",
        "",
        "    curl http://127.0.0.1:8484/v1/chat/completions -H 'Content-Type: application/json' \\",
        f"""      -d '{{"model": "{name}", "metadata": {{"domain": "assistant"}},""",
        """           "messages": [{"role": "user", "content": "wake me at seven tomorrow"}]}'""",
        "",
    ]


def _measured(
    quant: str, plain: EvaluationResult, quantized: EvaluationResult, parity: Parity
) -> list[str]:
    left, right = plain.as_dict(), quantized.as_dict()
    return [
        "## Measured",
        "",
        "On what was kept back of the data sets' training material (CLINC150's validation split; of",
        "Banking77 every tenth item of each intent, of SNIPS every twentieth), with the names of the",
        "item's own domain on offer, as llama.cpp computes it:",
        "",
        f"| figure | F16 | {quant}, shipped |",
        "|---|---|---|",
        *(f"| {said} | {100 * left[k]:.1f}% | {100 * right[k]:.1f}% |" for k, said in _FIGURES),
        "",
        f"llama.cpp beside torch on {parity.n_prompts} prompts (F16): largest difference of a logit "
        f"{parity.largest_difference:.4f}, {parity.n_equal} of {parity.n_prompts} greedy answers equal.",
        "",
    ]


def _thresholds(figures: EvaluationResult) -> list[str]:
    return [
        "An intent whose probability is below its domain's threshold is not believed. The thresholds are",
        "set on the validation items and stand in `model.toml`:",
        "",
        "| on offer | threshold | right answers lost | out-of-scope recognised |",
        "|---|---|---|---|",
        *(
            f"| {domain} | {t.value:.3f} | {100 * t.cost:.1f}% | {100 * t.recall:.1f}% |"
            for domain, t in figures.thresholds.items()
        ),
        "",
    ]


def _compared(trained: TrainingSummary, others: Sequence[TrainingSummary]) -> list[str]:
    if not others:
        return []
    keys = [(k, said) for k, said in _FIGURES if k in trained.figures]
    runs = (trained, *others)
    return [
        "## Beside other trainings",
        "",
        "In torch, the best weights of each:",
        "",
        "| figure | " + " | ".join(run.recipe.name for run in runs) + " |",
        "|---" * (1 + len(runs)) + "|",
        *(
            f"| {said} | "
            + " | ".join(f"{100 * run.figures[k]:.1f}%" if run.knows(k) else "" for run in runs)
            + " |"
            for k, said in keys
        ),
        "| parameters | "
        + " | ".join(f"{run.n_params:,}" if run.n_params else "" for run in runs)
        + " |",
        "| epochs | " + " | ".join(str(run.epochs) for run in runs) + " |",
        "",
    ]


def _made(trained: TrainingSummary, machine: str) -> list[str]:
    recipe, before = trained.recipe, trained.before
    assert recipe.shape is not None
    made = [
        "## How it was made",
        "",
        f"`scripts/train_default_models`, recipe `edgeagent/forge/recipes/{recipe.name}.toml`: "
        f"{recipe.shape.n_layers} layers of width {recipe.shape.n_embd}, {recipe.n_tokens:,} tokens of a",
        f"byte-level BPE, {_taught(trained)}",
        f"on {machine}, {time.strftime('%Y-%m-%d')}.",
    ]
    while before is not None:
        made.append(f"It began with the weights of {before.recipe.name}, {_taught(before)}.")
        recipe, before = before.recipe, before.before
    blocks = recipe.start.blocks if recipe.start is not None else []
    return [
        *made,
        "Word vectors began as those of SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), projected to the",
        "width of this model"
        + (f", and the blocks as its blocks {', '.join(map(str, blocks))}." if blocks else "."),
        "sentence-teacher is a head on the sentence vectors of all-MiniLM-L6-v2 (Apache-2.0); it is asked",
        "during training and not shipped.",
        "",
    ]


def _taught(trained: TrainingSummary) -> str:
    recipe = trained.recipe
    teachers = " and ".join(teacher.run for teacher in recipe.teachers) or "no teacher"
    return (
        f"{trained.epochs} epochs over {recipe.n_variants} variants of each text, taught by {teachers}: "
        f"{trained.trained_s / 60:.0f} minutes of steps"
    )


def _limits() -> list[str]:
    return [
        "## What it cannot do",
        "",
        "It holds no conversation: it reads the last text of the user alone and answers with one call.",
        "English only. It knows the intents of its data sets and no others, and a text that asks for two",
        "things gets one of them. Values of slots are copied from the text, not normalized: a date stays",
        "the words it was said in. Thresholds were set on the data sets' own out-of-scope texts; other",
        "strange texts may be believed more often. Banking77's questions come from one bank's customers.",
        "Do not let it act alone where a wrong call does harm: ask back.",
        "",
    ]


def _data() -> list[str]:
    return [
        "## Data",
        "",
        "| data set | licence | by |",
        "|---|---|---|",
        "| CLINC150 | CC BY 3.0 | Larson et al. 2019, An Evaluation Dataset for Intent Classification and "
        "Out-of-Scope Prediction |",
        "| Banking77 | CC BY 4.0 | Casanueva et al. 2020, Efficient Intent Detection with Dual Sentence "
        "Encoders |",
        "| SNIPS | CC0 1.0 | Coucke et al. 2018, Snips Voice Platform |",
        "| BFCL questions, as out-of-scope texts | Apache-2.0 | Patil et al., Berkeley Function Calling "
        "Leaderboard |",
        "",
    ]
