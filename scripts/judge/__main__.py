"""`python -m scripts.judge FOLDER --squad FILE`: trains a judge of answerability on the processor, and writes
it as a GGUF file. With the same FOLDER it goes on where it ended.

First it learns to find answers, from questions about Wikipedia (`squad.py` says where the file comes from);
then from `texts/`, whose customers ask in their own words, with some of the others among them.
Organisations whose name has a share below `--held-out` are measured with, and never learned from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from edgeagent.forge.encoder import Encoder
from edgeagent.serving.knowledge.judge import N_JUDGED
from scripts.benchmarks.answerability import area, declined_at, lost_at
from scripts.judge.beginning import begin_from
from scripts.judge.pairs import Asked, Pair, asked, content, foreign_pairs, pairs
from scripts.judge.squad import squad_pairs
from scripts.judge.texts import organisations
from scripts.judge.training import BATCH, Judge, Rates, train
from scripts.judge.writing import calibration, write

TEXTS = Path(__file__).parent / "texts"
PUBLISHED = Path(".cache/published/all-minilm-l6-v2")  # which the tests fetch
READING = Rates(1.5e-4, 0.66)
JUDGING = Rates(1.2e-4)
READ = 3500  # questions of SQuAD among those of an epoch


def vectors_of(published: Path) -> Callable[[Sequence[str]], Any]:
    encoder = Encoder(published)
    encoder.tokenizer.enable_truncation(256)
    return lambda texts: functional.normalize(encoder.vectors(texts), dim=1)


def best_logits(judge: Judge, questions: Sequence[Asked]) -> list[float]:
    """The logit of each question's best passage, among those that are judged when it is asked."""
    rows = [(one.question, content(p)) for one in questions for p in one.passages[:N_JUDGED]]
    logits = iter(judge.logits(rows))
    return [max(next(logits) for _ in one.passages[:N_JUDGED]) for one in questions]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.judge", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the state of training and edge-judge.gguf")
    parser.add_argument("--texts", type=Path, default=TEXTS)
    parser.add_argument("--published", type=Path, default=PUBLISHED,
                        help="all-MiniLM-L6-v2: config.json, vocab.txt, model.safetensors")  # fmt: skip
    parser.add_argument("--begin", type=Path, metavar="GGUF",
                        help="a judge to learn on from, in place of reading SQuAD first")  # fmt: skip
    parser.add_argument(
        "--squad", type=Path, help="train-v1.1.json; without it, only the texts teach"
    )
    parser.add_argument("--squad-steps", type=int, default=1350, help="with which it begins")
    parser.add_argument("--held-out", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, help="fewer than these epochs have")
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=JUDGING.first, help="of learning, at first")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(args.published)
    if args.begin is not None:
        if args.begin.resolve().parent == args.folder.resolve():
            parser.error(
                f"{args.folder} has the training that made {args.begin.name}: give another FOLDER"
            )
        args.squad_steps = 0
        try:
            begin_from(judge, args.begin)
        except ValueError as exc:
            parser.error(str(exc))
    vectors = vectors_of(args.published)
    learned, measured = [], []
    for of in organisations(args.texts.glob("*.txt")):
        side = measured if of.share < args.held_out else learned
        side += asked(of, vectors)
    print(f"{len(learned)} questions to learn from, {len(measured)} to measure with")
    ends = time.monotonic() + 60 * args.minutes
    reading: list[Pair] = []
    if args.squad is not None:
        reading = squad_pairs(args.squad, args.seed)
        state, n_steps = args.folder / "reading.pt", args.squad_steps
        if not train(judge, [reading], state, 60 * args.minutes, READING, n_steps):
            return
        del reading[: BATCH * n_steps]
    epochs = []
    for n in range(args.epochs):
        seed = args.seed * 100 + n
        epoch = pairs(learned, seed) + foreign_pairs(learned, seed)
        epochs.append(epoch + reading[n * READ : (n + 1) * READ])
    state = args.folder / "state.pt"
    if not train(judge, epochs, state, ends - time.monotonic(), Rates(args.rate), args.steps):
        return
    logits = best_logits(judge, measured)
    sides: list[list[float]] = [
        [v for v, one in zip(logits, measured, strict=True) if (one.words is not None) is wanted]
        for wanted in (True, False)
    ]
    right, wrong = sides
    print(f"held out: area {area(right, wrong):.3f}, lost at 90% declined {lost_at(right, wrong, 0.9):.1%}, "
          f"declined at 10% lost {declined_at(right, wrong, 0.1):.1%}")  # fmt: skip
    scale, shift = calibration(logits, [one.words is not None for one in measured])
    target = args.folder / "edge-judge.gguf"
    write(judge, args.published, target, scale, shift)
    print(f"{target}: logits times {scale:.3f}, and {shift:+.3f}")


if __name__ == "__main__":
    main()
