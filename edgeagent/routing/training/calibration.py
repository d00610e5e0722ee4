"""Fits the probability and the threshold of a policy to outcomes, and keeps earlier revisions."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeagent.errors import InvalidParameter
from edgeagent.routing.score_policy import PolicyFile, ScorePolicy, read_policy
from edgeagent.routing.training.measures import ece, isotonic, step_values
from edgeagent.routing.training.outcome_files import Pair
from edgeagent.routing.training.trainer import MIN_EXAMPLES, N_INNER_FOLDS, folds, write_policy

Floats = NDArray[np.float64]


def calibrated(
    policy: ScorePolicy,
    pair: Pair,
    *,
    share: float | None = None,
    quality: float | None = None,
    seed: int = 0,
) -> tuple[PolicyFile, float, float]:
    """The policy with another probability and threshold, and its calibration error before and after.

    The threshold sends a `share` of the texts to the larger model, or the fewest that reach a mean `quality`;
    without either it stays. The error afterwards is of folds that the fit has not seen.

    Raises: InvalidParameter for too few texts or a quality that no threshold reaches.
    """
    n = len(pair)
    if n < MIN_EXAMPLES:
        raise InvalidParameter(
            f"{n} texts are too few to calibrate on, {MIN_EXAMPLES} are needed: give more data."
        )
    found = [policy.score(text) for text in pair.texts]
    right = np.array([one.right for one in found])
    unseen = np.zeros(n)
    for inside, outside in folds(n, N_INNER_FOLDS, seed):
        unseen[outside] = step_values(*isotonic(right[inside], pair.small[inside]), right[outside])
    starts, heights = isotonic(right, pair.small)
    threshold = policy.file.threshold
    benefit = np.array([one.benefit for one in found])
    if share is not None:
        threshold = float(np.quantile(benefit, 1.0 - share))
    if quality is not None:
        threshold = _threshold_for(benefit, pair, quality)
    file = msgspec.structs.replace(
        policy.file, scores=starts, chances=heights, threshold=threshold,
        revision=policy.file.revision + 1,
    )  # fmt: skip
    before = ece(np.array([one.p_small for one in found]), pair.small)
    return file, before, ece(unseen, pair.small)


def _threshold_for(benefit: Floats, pair: Pair, quality: float) -> float:
    """The highest threshold whose mean quality is at least `quality`."""
    order = np.argsort(-benefit, kind="stable")
    gains = np.cumsum((pair.large - pair.small)[order])
    means = pair.small.mean() + np.concatenate([[0.0], gains]) / len(pair)
    reached = np.flatnonzero(means >= quality)
    if not len(reached):
        raise InvalidParameter(
            f"No threshold reaches a mean quality of {quality:g}, the best has {means.max():.3f}: ask for "
            "less."
        )
    n_large = int(reached[0])
    ordered = benefit[order]
    return float(ordered[n_large - 1]) if n_large else float(np.nextafter(ordered[0], np.inf))


def replace_policy(path: Path, file: PolicyFile) -> Path:
    """Write a policy, and keep the one before it beside it. Returns the path of the earlier one."""
    earlier = read_policy(path).file
    kept = path.with_name(f"{path.name}.{earlier.revision}")
    write_policy(earlier, kept)
    write_policy(file, path)
    return kept


def roll_back(path: Path) -> PolicyFile:
    """Put the newest earlier revision in place of a policy. Raises: InvalidParameter without any."""
    current = read_policy(path).file
    names = (
        re.fullmatch(re.escape(path.name) + r"\.(\d{1,9})", one.name)
        for one in path.parent.iterdir()
    )
    revisions = [int(found[1]) for found in names if found and int(found[1]) < current.revision]
    if not revisions:
        raise InvalidParameter(
            f"{path} has no earlier revision beside it: make another policy with `edgeagent route train`."
        )
    kept = path.with_name(f"{path.name}.{max(revisions)}")
    earlier = read_policy(kept).file
    write_policy(earlier, path)
    kept.unlink()
    return earlier
