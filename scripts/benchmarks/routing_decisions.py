"""What a decision of a route costs, and a score of the bundled scope gate."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from edgeagent.catalog.assistant_intents import ALL
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.routing.auto_router import AutoRouter
from edgeagent.routing.route_request import ModelState, RouteRequest, RouteState, window
from edgeagent.routing.scope_gate import ScopeGate, read_scope
from edgeagent.routing.training.outcome_files import pair_of, read_outcomes
from edgeagent.routing.training.trainer import TextMatrix, policy_file, train, write_policy
from edgeagent.settings.routing import RoutingSettings
from scripts.benchmarks.exchange import Json


def decision_ms(data: Path) -> Json:
    """Milliseconds of a decision over questions of MMLU, with 20 rules, a policy, budgets and exploration."""
    files = sorted((data / "routellm" / "mmlu").glob("*.csv"))
    if not files:
        raise SystemExit(f"SKIPPED: {data} has no routellm/mmlu")
    pair = pair_of(read_outcomes(files[:4]), None, None, None)
    texts = TextMatrix.of(pair.texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "route.policy")
        trained = train(texts, pair.small, pair.large)
        write_policy(policy_file(("small", "large"), texts, trained, 0.3), path)
        rules = [
            {
                "id": f"rule{n}",
                "match": {
                    "keywords_any": [f"never{n}", f"nor this {n}"],
                    "regex": f"[0-9]{{{n + 5}}}x",
                },
                "route_to": "large",
            }
            for n in range(20)
        ]
        settings = RoutingSettings.model_validate(
            {
                "candidates": ["small", "large"], "policy": path, "rules": rules, "explore": 0.05,
                "budgets": {"tokens_per_key_day": 1000, "latency_s": 5, "max_queue": 4},
            }
        )  # fmt: skip
        router = AutoRouter(settings)
    state = RouteState({name: ModelState(name) for name in ("small", "large")})
    took: list[float] = []
    computed: list[float] = []  # without what other programs took of the core
    for number, text in enumerate(pair.texts):
        request = RouteRequest(
            "auto", text=window(text), n_chars=len(text), request_id=f"req_{number}"
        )
        started, own = time.perf_counter(), time.thread_time()
        router.route(request, state)
        computed.append(1e3 * (time.thread_time() - own))
        took.append(1e3 * (time.perf_counter() - started))
    chars = statistics.median(len(text) for text in pair.texts)
    found: Json = {"n": len(took), "median_chars": chars}
    by_words, by_vectors = scored_ms(pair.texts)
    parts = {
        "wall_ms": took,
        "processor_ms": computed,
        "gate_ms": by_words,
        "vector_ms": by_vectors,
    }
    for name, values in parts.items():
        cuts = statistics.quantiles(values, n=100)
        found[name] = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}
    return found


def scored_ms(texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Milliseconds of scores of the bundled scope gate, by words and by the vector of the text."""
    file = read_scope(shipped_models_dir() / "edge-assistant.scope")
    gate = ScopeGate(file, next(iter(file.models.values())))
    rng = random.Random(0)
    vector = [rng.gauss(0, 0.05) for _ in range(len(file.middle) // 4)]
    by_words: list[float] = []
    by_vectors: list[float] = []
    for text, intent in zip(texts, cycle(sorted(file.intents)), strict=False):
        started = time.perf_counter()
        first = gate.score(ALL, text, intent, 0.5, 0.1, 0.01)
        then = time.perf_counter()
        assert first is not None
        gate.with_vector(ALL, intent, first, vector, 0.01)
        by_words.append(1e3 * (then - started))
        by_vectors.append(1e3 * (time.perf_counter() - then))
    return by_words, by_vectors
