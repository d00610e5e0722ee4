"""Whether a judge is asked, what it reads, and what happens where it fails."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from edgeagent.errors import EngineFailed
from edgeagent.serving.knowledge.judge import Judge
from edgeagent.settings.knowledge import KnowledgeSettings
from edgeagent.types.unary_requests import RerankSpec, Scores


class Models:
    """A chooser and engines of one rank model."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self._name = name
        self._fails = fails
        self.asked: list[RerankSpec] = []

    async def with_task(self, task: str) -> list[str]:
        return [self._name] if task == "rerank" else []

    @asynccontextmanager
    async def lease(self, model: str):
        assert model == self._name
        yield self

    async def ask(self, spec: RerankSpec) -> Scores:
        if self._fails:
            raise EngineFailed("no step")
        self.asked.append(spec)
        values = [0.1 * (n + 1) for n in range(len(spec.documents))]
        return Scores(values=values, n_prompt=1, queue_ms=0.0, total_ms=1.0)


@pytest.mark.parametrize(
    ("installed", "wanted", "n", "fails", "expected"),
    [
        ("edge-judge", "edge-judge", 2, False, [0.1, 0.2]),
        ("edge-judge", "edge-judge", 0, False, None),
        ("edge-judge", "edge-judge", 2, True, None),
        ("edge-judge", "", 2, False, None),
        ("reranker", "edge-judge", 2, False, None),
    ],
)
async def test_each_text_is_judged_where_there_is_a_judge(installed, wanted, n, fails, expected):
    models = Models(installed, fails=fails)
    own = cast("Any", models)
    judge = Judge(own, own, KnowledgeSettings(judge_model=wanted))
    found = await judge.scores("May a dog come?", [f"text {i}" for i in range(n)])
    assert found == (None if expected is None else pytest.approx(expected))
    assert len(models.asked) == (expected is not None)
    if models.asked:
        assert models.asked[0].documents[0] == "text 0" and models.asked[0].truncate
