"""How well texts out of an assistant's scope can be told from those in it, and by which signals.

    scripts/bench scope [--data ../shared/data] [--vectors FILE] [--json FILE]

For CLINC150's validation split with its texts out of scope: the share of these that is handed on, by the
share of right calls that is lost with them. Signals are the assistant's own probability and its lead, as a
daemon gives them, and neighbours among the training texts by the vectors of all-MiniLM-L6-v2: how near the
three nearest texts in scope are, and the nearest text out of scope; and the same by words alone
(`scope_words`), with which no other model is asked. They are combined by logistic regression.
Each text is scored by a fit that has not seen it (5 folds of the validation texts, drawn five times, of which
the mean is shown). Training texts serve as neighbours only: the assistant was trained on them, so that its
probability on them says nothing.

Needs the extra `forge`. Vectors take minutes: --vectors keeps them in a file for the next run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.forge.datasets import OUT_OF_SCOPE
from edgeagent.forge.encoder import Encoder
from scripts.benchmarks.assistant import Item
from scripts.benchmarks.machine import describe
from scripts.benchmarks.routing import Case, asked, body
from scripts.benchmarks.scope_words import WordSignals
from scripts.benchmarks.served import serving
from tests.conftest import published_minilm

SMALL = "edge-assistant-s"
LOST = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05)
N_FOLDS, N_DRAWS = 5, 5
N_NEAREST = 3
PENALTY = 3.0  # of the logistic regression, on standardized signals
WORDS = ("words_near", "words_centre", "words_any_centre", "words_unknown", "words_outside")
COMBINATIONS: tuple[tuple[str, ...], ...] = (
    ("probability",),
    ("margin",),
    ("probability", "margin"),
    WORDS,
    ("probability", "margin", *WORDS),
    ("near_inside",),
    ("near_inside", "near_outside"),
    ("probability", "near_inside"),
    ("probability", "near_inside", "near_outside"),
    ("probability", "margin", "near_inside", "near_outside"),
    ("probability", "margin", "near_inside", "near_outside", *WORDS),
)
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def splits(data: Path) -> dict[str, list[tuple[str, str]]]:
    """Text and intent of CLINC150's splits train, oos_train, val and oos_val."""
    path = data / "clinc150" / "clinc150.json"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: name the folder of the data sets with --data")
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: [(text, intent) for text, intent in rows] for name, rows in found.items()}


def unit_vectors(texts: Sequence[str], kept: Path | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vectors of texts, of unit length; those in the file `kept` are not computed anew."""
    known: dict[str, Any] = {}
    if kept is not None and kept.is_file():
        stored = np.load(kept)
        known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
    if new := [text for text in dict.fromkeys(texts) if text not in known]:
        known |= zip(new, Encoder(published_minilm()).vectors(new).numpy(), strict=True)
        if kept is not None:
            np.savez(kept, texts=np.array(list(known)), vectors=np.array(list(known.values())))
    found = np.array([known[text] for text in texts], np.float32)
    unit: np.ndarray[Any, np.dtype[np.float32]] = found / np.linalg.norm(
        found, axis=1, keepdims=True
    )
    return unit


def confidences(
    rows: Sequence[tuple[str, str]], models_dir: Path
) -> tuple[Floats, Floats, list[str]]:
    """Log-odds and lead of the most probable intent of each text, float64 [n], and the intents."""
    settings = {"shipped_models_dir": str(shipped_models_dir()), "default_model": SMALL}
    cases = [Case(Item(text, "assistant", intent), "") for text, intent in rows]
    with serving(models_dir, **settings) as daemon:
        daemon.wait_until_ready()
        answers, _, _ = asked(daemon, [body(SMALL, case) for case in cases], 1)
    told = [answer["edgeagent"]["confidence"] for answer in answers]
    probability = np.clip([one["probability"] for one in told], 1e-6, 1 - 1e-6)
    return (
        np.log(probability / (1 - probability)),
        np.array([one["margin"] for one in told]),
        [one["intent"] for one in told],
    )


def fitted(signals: Floats, is_outside: Bools) -> Floats:
    """Weights of a logistic regression, the constant last; by Newton's method."""
    rows = np.c_[signals, np.ones(len(signals))]
    penalty = PENALTY * np.eye(rows.shape[1])
    penalty[-1, -1] = 1e-6
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-rows @ weights))
        gradient = rows.T @ (p - is_outside) + penalty @ weights
        weights -= np.linalg.solve((rows * (p * (1 - p))[:, None]).T @ rows + penalty, gradient)
    return weights


def held_out_scores(signals: Floats, is_outside: Bools, seed: int) -> Floats:
    """How far in scope each text seems, by fits that have not seen it: float64 [n]."""
    fold = np.random.default_rng(seed).integers(0, N_FOLDS, len(signals))
    scores = np.zeros(len(signals))
    for number in range(N_FOLDS):
        seen = fold != number
        middle, scale = signals[seen].mean(0), signals[seen].std(0)
        weights = fitted((signals[seen] - middle) / scale, is_outside[seen])
        rows = (signals[~seen] - middle) / scale
        scores[~seen] = -(rows @ weights[:-1] + weights[-1])
    return scores


def curve(scores: Floats, is_outside: Bools) -> Floats:
    """AUROC, and the share of the texts outside below the score that loses each share of `LOST` of those
    inside."""
    inside, outside = np.sort(scores[~is_outside]), scores[is_outside]
    area = (outside[:, None] < inside).mean()
    shares = [(outside < inside[int(lost * len(inside))]).mean() for lost in LOST]
    return np.array([area, *shares])


def measured(args: argparse.Namespace) -> dict[str, list[float]]:
    texts = splits(args.data)
    rows = texts["val"] + texts["oos_val"]
    log_odds, margin, intents = confidences(rows, args.models_dir)
    is_right = np.array([a == b for a, (_, b) in zip(intents, rows, strict=True)])
    names = ("train", "oos_train", "val", "oos_val")
    every = [text for name in names for text, _ in texts[name]]
    vectors = unit_vectors(every, args.vectors)
    ends = np.cumsum([len(texts[name]) for name in names])
    inside, outside, asked_about = (
        vectors[: ends[0]],
        vectors[ends[0] : ends[1]],
        vectors[ends[1] :],
    )
    middle = inside.mean(0)
    inside, outside, asked_about = (
        (part - middle) / np.linalg.norm(part - middle, axis=1, keepdims=True)
        for part in (inside, outside, asked_about)
    )
    signals = {
        "probability": log_odds,
        "margin": margin,
        "near_inside": np.sort(asked_about @ inside.T, axis=1)[:, -N_NEAREST:].mean(1),
        "near_outside": -(asked_about @ outside.T).max(1),
    }
    words = WordSignals(texts["train"], [text for text, _ in texts["oos_train"]])
    by_word = np.array([words.of(text, one) for (text, _), one in zip(rows, intents, strict=True)])
    signals |= dict(zip(WORDS, by_word.T, strict=True))
    is_outside = np.array([intent == OUT_OF_SCOPE for _, intent in rows])
    counts = is_outside | is_right  # what is wrong anyway is no loss
    print(
        f"{int((~is_outside & is_right).sum())} right calls, {int(is_outside.sum())} out of scope"
    )
    found = {}
    for names_of in COMBINATIONS:
        columns = np.c_[tuple(signals[name][counts] for name in names_of)].astype(np.float64)
        draws = [
            curve(held_out_scores(columns, is_outside[counts], seed), is_outside[counts])
            for seed in range(N_DRAWS)
        ]
        told = [name for name in names_of if name not in WORDS]
        told += ["words"] if set(WORDS) <= set(names_of) else []
        found[" + ".join(told)] = np.mean(draws, axis=0).tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models-dir", type=Path, default=Path(".cache/models"))
    parser.add_argument(
        "--vectors", type=Path, metavar="FILE", help="keep the vectors there (.npz)"
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    print(f"{describe()}; {time.strftime('%Y-%m-%d')}")
    found = measured(args)
    print("\n| signals | AUROC | " + " | ".join(f"{100 * lost:g}% lost" for lost in LOST) + " |")
    print("|---" * (len(LOST) + 2) + "|")
    for name, (area, *shares) in found.items():
        told = " | ".join(f"{100 * one:.0f}%" for one in shares)
        print(f"| {name} | {area:.3f} | {told} |")
    if args.json is not None:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
