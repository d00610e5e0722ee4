"""Logs of decisions whose truth is known: the small model is right on easy texts, the large one on all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeagent.routing.exploration import chances_of, drawn
from edgeagent.routing.text_features import features
from edgeagent.routing.training.decision_log import LoggedDecision
from tests.routing.routes import LARGE, SMALL
from tests.routing.training.texts import outcomes

COST = {SMALL: 10.0, LARGE: 100.0}


def decision(
    text: str,
    chosen: str,
    chances: Mapping[str, float] | None,
    outcome: float | None,
    **fields: str,
) -> LoggedDecision:
    return LoggedDecision(
        chosen=chosen, answered=chosen, default_model=SMALL, reason="default", features=features(text),
        chances=chances, outcome=outcome, costs={"tokens": COST[chosen]}, **fields,
    )  # fmt: skip


def log(n: int, explore: float, *, seed: int = 0, rated: float = 1.0) -> list[LoggedDecision]:
    """`n` decisions of a router that prefers the small model and draws a share of them."""
    rng = np.random.default_rng(seed)
    found = []
    for number, (text, small, large) in enumerate(outcomes(n, seed)):
        chances = chances_of(SMALL, [SMALL, LARGE], explore)
        chosen = drawn(f"req_{seed}_{number}", SMALL, chances)
        outcome = float(small if chosen == SMALL else large)
        is_rated = rng.random() < rated
        domain = "maths" if number % 2 else "home"
        found.append(decision(text, chosen, chances, outcome if is_rated else None, domain=domain))
    return found
