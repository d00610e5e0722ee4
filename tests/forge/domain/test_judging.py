"""Many examples within a budget of time: in which order, how many, and which base model."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgeagent.forge.domain import judging
from edgeagent.forge.domain.example import Domain, Place
from edgeagent.forge.domain.head_training import PART
from edgeagent.forge.domain.workspace import Workspace

N_INTENTS = 5


class Base:
    """A base model whose states tell intents apart more or less well."""

    def __init__(self, name: str, noise: float) -> None:
        self.name, self.noise, self.n_read = name, noise, 0


def domain(n: int) -> Domain:
    made = Domain()
    for i in range(n):
        # The last intent has few examples.
        intent = i % (N_INTENTS - 1) if i % 100 else N_INTENTS - 1
        made.add(f"text {i} of {intent}", f"intent_{intent}", Place(Path("a"), i + 1))
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path, "bot")
    made.work.mkdir(parents=True)
    return made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Replaces the worker that computes states; `pauses["s"]` is what a part of texts takes."""
    pauses = {"s": 0.0}

    async def states_of(base, texts, workspace, tell, *, name="", until=None):
        found = []
        for start in range(0, len(texts), PART):
            if start and until is not None and time.monotonic() > until:
                break
            part = texts[start : start + PART]
            rng = np.random.default_rng(len(part[0]) + start)
            states = base.noise * rng.normal(size=(len(part), N_INTENTS + 3)).astype(np.float32)
            for row, text in zip(states, part, strict=True):
                row[-1] = 1
                if text.startswith("text "):
                    row[int(text[-1])] += 1
            await asyncio.sleep(pauses["s"])
            base.n_read += len(part)
            found.append(states)
        return np.concatenate(found)

    monkeypatch.setattr(judging, "states_of", states_of)
    monkeypatch.setattr(judging, "MOST_JUDGED", 2 * PART)
    return pauses


def judged(made: Domain, bases, workspace: Workspace, minutes: float):
    return asyncio.run(judging.judge(made, bases, workspace, 1, minutes, lambda *_: None))


def test_every_beginning_has_the_intents_in_like_shares():
    examples = domain(1000).examples
    ordered = judging.spread(examples, seed=1)
    assert sorted(e.text for e in ordered) == sorted(e.text for e in examples)
    assert ordered == judging.spread(examples, seed=1) != judging.spread(examples, seed=2)
    assert Counter(e.intent for e in ordered[:50]) == dict.fromkeys(
        {e.intent for e in examples}, 10
    )


def test_many_examples_choose_with_some_and_learn_from_all(workspace: Workspace, pauses):
    bases = [Base("bad", 3.0), Base("good", 0.1)]
    made = judged(domain(judging.MOST_JUDGED + 3000), bases, workspace, 10)
    assert made.base.name == "good" and made.n_learnt == judging.MOST_JUDGED + 3000
    n = judging.MOST_JUDGED
    assert len(made.domain.examples) == made.texts.n_examples == n
    assert (
        len(made.head.labels) <= n + len(made.texts.texts) - n
        and made.head.calibration.accuracy > 0.99
    )
    assert bases[0].n_read < 1.2 * n, "of the other base model no more is read"
    right = (made.states[:n] @ made.head.rows[:N_INTENTS].T).argmax(1) == made.texts.labels[:n]
    assert right.mean() > 0.99


def test_what_there_is_no_time_for_is_left_out(workspace: Workspace, pauses):
    pauses["s"] = 0.05
    base = Base("slow", 0.1)
    made = judged(domain(judging.MOST_JUDGED + 20_000), [base], workspace, minutes=1 / 60)
    assert PART <= made.n_learnt < 20_000, made.n_learnt
    assert set(made.texts.classes[:-1]) == {f"intent_{n}" for n in range(N_INTENTS)}
    assert made.head.calibration.accuracy > 0.9


def test_few_examples_are_all_judged(workspace: Workspace, pauses):
    made = judged(domain(200), [Base("a", 0.1)], workspace, 0.01)
    assert (made.n_learnt, len(made.domain.examples)) == (200, 200)
