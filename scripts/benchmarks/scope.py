"""How well texts out of an assistant's scope can be told from those in it, and by which signals.

    scripts/bench scope --work DIR [--data ../shared/data] [--encoder FILE] [--json FILE]

For CLINC150's validation split with its texts out of scope: the share of these that is handed on, by the
share of right calls that is lost with them. Signals are those of the scope gate (routing/scope_gate.py): the
assistant's own probability and its lead, nearness by words and by vectors to the training texts of the intent
that it has chosen, and to CLINC150's training texts out of scope. They are combined by logistic regression.
Each text is scored by a fit that has not seen it (5 folds of the validation texts, drawn five times, of which
the mean is shown, with the spread of resampled texts out of scope).

`--work` is the directory of `edgeagent forge scope`, which has answers and vectors; what is missing is
computed. --encoder: another sentence encoder (GGUF), whose vectors are kept beside them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.forge.datasets import load
from edgeagent.forge.scope_files import ENCODER, ScopeTexts, answers_of, scope_file, vectors_of
from edgeagent.routing.scope_gate import VECTOR_SIGNALS
from edgeagent.routing.training.scope_training import counted, fit_gate, signals_of
from scripts.benchmarks.machine import describe

SMALL, DOMAIN = "edge-assistant-s", "assistant"
LOST = (0.0025, 0.005, 0.0075, 0.009, 0.01, 0.02, 0.05)
N_DRAWS, N_RESAMPLED = 5, 1000
MODEL = ("log-odds", "margin")
WORDS = ("near", "centre", "unknown", "words")
VECTORS = ("vector near", "vector centre")
COMBINATIONS: dict[str, tuple[str, ...]] = {
    "probability": ("log-odds",),
    "probability, lead": MODEL,
    "words": (*WORDS, "outside"),
    "probability, lead, words, without texts out of scope": (*MODEL, *WORDS),
    "probability, lead, words": (*MODEL, *WORDS, "outside"),
    "vectors": (*VECTORS, "vector outside"),
    "probability, lead, vectors": (*MODEL, *VECTORS, "vector outside"),
    "all, without texts out of scope": (*MODEL, *WORDS, *VECTORS),
    "all": VECTOR_SIGNALS,
}
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def signals(args: argparse.Namespace) -> tuple[Floats, Bools]:
    """The signals of the right calls and of the texts out of scope: float64 [n, n_signals]."""
    corpus = load(args.data)
    texts = ScopeTexts.of(corpus)
    model = next((shipped_models_dir() / SMALL).glob("*.gguf"))
    kept = args.work / f"{sha256_of(model)[:16]}-{DOMAIN}.answers"
    answers = answers_of(model, texts.fitted[DOMAIN], corpus, DOMAIN, kept)
    encoder = args.encoder or shipped_models_dir() / ENCODER / f"{ENCODER}.gguf"
    name = "vectors" if args.encoder is None else f"vectors-{sha256_of(encoder)[:16]}"
    known = vectors_of(encoder, texts.all_texts, args.work / f"{name}.npz")
    mine = counted([msgspec.structs.replace(one, vector=known[one.text]) for one in answers])
    found = signals_of(mine, scope_file(texts, {}, known))[1]
    assert found is not None
    return found, np.array([one.wanted is None for one in mine], bool)


def curve(scores: Floats, is_outside: Bools) -> Floats:
    """AUROC, and the share of the texts outside below the score that loses each share of `LOST` of those
    inside."""
    inside, outside = np.sort(scores[~is_outside]), scores[is_outside]
    area = (outside[:, None] < inside).mean()
    shares = [(outside < inside[int(lost * len(inside))]).mean() for lost in LOST]
    return np.array([area, *shares])


def spread(scores: Floats, is_outside: Bools, lost: float) -> tuple[float, float]:
    """Between which shares 95% of the draws of so many texts out of scope lie."""
    inside, outside = np.sort(scores[~is_outside]), scores[is_outside]
    below = outside < inside[int(lost * len(inside))]
    drawn = np.random.default_rng(0).choice(below, (N_RESAMPLED, len(below))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def measured(args: argparse.Namespace) -> dict[str, list[float]]:
    columns, is_outside = signals(args)
    print(f"{int((~is_outside).sum())} right calls, {int(is_outside.sum())} out of scope")
    found = {}
    for name, of in COMBINATIONS.items():
        chosen = columns[:, [VECTOR_SIGNALS.index(one) for one in of]]
        # `fit_gate` scores each text by the mean of four fits that have not seen it.
        draws = [fit_gate(chosen, is_outside, seed=10 * n)[1] for n in range(N_DRAWS)]
        curves = [curve(scores, is_outside) for scores in draws]
        found[name] = [*np.mean(curves, axis=0).tolist(), *spread(draws[0], is_outside, 0.01)]
    return found


def table(found: dict[str, list[float]]) -> Sequence[str]:
    heads = [f"{100 * lost:g}% lost" for lost in LOST]
    lines = ["| signals | AUROC | " + " | ".join(heads) + " | spread at 1% |"]
    lines.append("|---" * (len(LOST) + 3) + "|")
    for name, (area, *shares) in found.items():
        told = " | ".join(f"{100 * one:.0f}%" for one in shares[: len(LOST)])
        low, high = shares[len(LOST) :]
        lines.append(f"| {name} | {area:.3f} | {told} | {100 * low:.0f} to {100 * high:.0f}% |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--encoder", type=Path, metavar="FILE", help="another sentence encoder")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"{describe()}; {time.strftime('%Y-%m-%d')}")
    found = measured(args)
    print("\n".join(table(found)))
    if args.json is not None:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
