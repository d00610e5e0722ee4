"""Runs suites of tasks against a model through the API, as a client would, and scores the answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from edgeagent.errors import EdgeAgentError
from edgeagent.optimize.api_daemon import MODEL_ID, served
from edgeagent.optimize.divergence import estimate
from edgeagent.optimize.evaluate import Tell
from edgeagent.optimize.figures import Spread, SuiteFigures
from edgeagent.optimize.suites import AnyTask, Suite, SummaryTask, request_body
from edgeagent.optimize.task_scores import rouge_n, score, words


def measure_suites(
    model: Path, suites: Sequence[Suite], n_threads: int, n_runs: int, tell: Tell
) -> tuple[SuiteFigures, ...]:
    """Every task `n_runs` times. Greedy answers are alike; the runs are for the latencies.

    Raises: StartFailed; EdgeAgentError with the daemon's message where a task is refused.
    """
    with served(model, n_threads) as client:
        total = n_runs * sum(len(suite.tasks) for suite in suites)
        return tuple(_suite(client, suite, n_runs, tell, total) for suite in suites)


def _suite(client: httpx.Client, suite: Suite, n_runs: int, tell: Tell, total: int) -> SuiteFigures:
    scores: list[float] = []
    latencies: list[float] = []
    rouges: list[tuple[float, float]] = []
    for run in range(n_runs):
        for task in suite.tasks:
            started = time.perf_counter()
            message = _answer(client, task, suite.name)
            latencies.append(1e3 * (time.perf_counter() - started))
            if run == 0:
                scores.append(score(task, message))
                if isinstance(task, SummaryTask):
                    ours, theirs = words(message.get("content") or ""), words(task.reference)
                    rouges.append((rouge_n(ours, theirs, 1), rouge_n(ours, theirs, 2)))
            tell("tasks", 1, total)
    mean = estimate(np.array(scores))
    one, two = (statistics.mean(r[i] for r in rouges) for i in (0, 1)) if rouges else (None, None)
    return SuiteFigures(
        suite.name, len(suite.tasks), n_runs, mean.mean, mean.error, Spread.of(latencies), one, two,
    )  # fmt: skip


def _answer(client: httpx.Client, task: AnyTask, suite: str) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json=request_body(task, MODEL_ID))
    body = response.json()
    if response.status_code != 200:
        raise EdgeAgentError(
            f"A task of {suite} was refused: {body.get('error', {}).get('message', response.status_code)}"
        )
    message: dict[str, Any] = body["choices"][0]["message"]
    return message
