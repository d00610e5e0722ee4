"""Trains a policy on the log of a device, which knows of each text how one of the two models did.

Two regressions, one for each model, on the texts that it was chosen for; the policy is the same combination
of both as of files (routing/training/trainer.py). Which model was chosen may depend on the text, since the
regression knows it; it must not depend on anything else, which exploration ensures.
"""

from __future__ import annotations

import numpy as np

from edgeagent.errors import InvalidParameter
from edgeagent.routing.training.observations import Observations
from edgeagent.routing.training.routellm_measures import isotonic
from edgeagent.routing.training.trainer import (
    MIN_EXAMPLES,
    N_INNER_FOLDS,
    WRONG_SHARE,
    Frame,
    TextMatrix,
    Trained,
    Weights,
    fit,
    folds,
)


def train_on_log(seen: Observations, texts: TextMatrix, seed: int = 0) -> Trained:
    """Raises: InvalidParameter where one of the models has too few outcomes."""
    rows = {
        "small": np.flatnonzero(seen.has_small),
        "large": np.flatnonzero(seen.has_large),
    }
    for name, found in rows.items():
        if len(found) < MIN_EXAMPLES:
            raise InvalidParameter(
                f"The log has {len(found)} rated answers of the {name} model, {MIN_EXAMPLES} are needed: "
                "gather feedback, and set [routing] explore so that both models are chosen."
            )
    frame = Frame.of(texts)
    small = fit(texts.take(rows["small"]), seen.small[rows["small"]], frame)
    large = fit(texts.take(rows["large"]), seen.large[rows["large"]], frame)
    of_small = texts.take(rows["small"])
    outcomes, unseen = seen.small[rows["small"]], np.zeros(len(rows["small"]))
    for inside, outside in folds(len(outcomes), N_INNER_FOLDS, seed):
        trained = fit(of_small.take(inside), outcomes[inside], frame)
        unseen[outside] = trained.scores(of_small.take(outside))
    starts, heights = isotonic(unseen, outcomes)
    return Trained(_benefit(small, large), small, starts, heights)


def _benefit(small: Weights, large: Weights) -> Weights:
    """`trainer.benefit` of the two regressions, which is linear in them."""
    lack = 1.0 + WRONG_SHARE
    return Weights(
        small.frame,
        large.columns - lack * small.columns,
        large.bias - lack * small.bias + WRONG_SHARE,
    )
