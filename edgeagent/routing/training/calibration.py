"""Fits the probability and the threshold of a policy to outcomes, and keeps earlier revisions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeagent.errors import InvalidParameter, SettingsError
from edgeagent.routing.score_policy import PolicyFile, ScorePolicy, Steps, read_policy
from edgeagent.routing.training.observations import Observations
from edgeagent.routing.training.routellm_measures import ece, isotonic
from edgeagent.routing.training.trainer import MIN_EXAMPLES, N_INNER_FOLDS, folds, write_policy

Floats = NDArray[np.float64]

MIN_DOMAIN = 200  # outcomes of the small model in a domain for a step function of its own
MIN_ABOVE = 10  # outcomes of the larger model that a threshold for a quality needs


@dataclass(frozen=True)
class Calibrated:
    """The new policy, its calibration error before and after, and the domains with a probability of their
    own. The error afterwards is of folds that the fit has not seen."""

    file: PolicyFile
    ece_before: float
    ece_after: float

    @property
    def domains(self) -> list[str]:
        return sorted(self.file.domains)


def calibrated(
    policy: ScorePolicy,
    seen: Observations,
    *,
    share: float | None = None,
    quality: float | None = None,
    seed: int = 0,
) -> Calibrated:
    """The policy with another probability and threshold.

    The threshold sends a `share` of the texts to the larger model, or the fewest that reach a mean `quality`;
    without either it stays. Domains with `MIN_DOMAIN` outcomes get a probability of their own.

    Raises: InvalidParameter for too few outcomes or a quality that no threshold reaches.
    """
    rows = np.flatnonzero(seen.has_small)
    n = len(rows)
    if n < MIN_EXAMPLES:
        raise InvalidParameter(
            f"{n} outcomes of the small model are too few to calibrate on, {MIN_EXAMPLES} are needed: give "
            "more data, or gather more feedback."
        )
    found = [
        policy.score_features(one, domain)
        for one, domain in zip(seen.features, seen.domains, strict=True)
    ]
    right, outcomes = np.array([found[row].right for row in rows]), seen.small[rows]
    domains = [seen.domains[row] for row in rows]
    unseen = np.zeros(n)
    for inside, outside in folds(n, N_INNER_FOLDS, seed):
        whole, own = _fitted(right[inside], outcomes[inside], [domains[row] for row in inside])
        for row in outside:
            unseen[row] = own.get(domains[row] or "", whole).at(float(right[row]))
    whole, own = _fitted(right, outcomes, domains)
    threshold = policy.file.threshold
    benefit = np.array([one.benefit for one in found])
    if share is not None:
        threshold = float(np.quantile(benefit, 1.0 - share))
    if quality is not None:
        threshold = _threshold_for(benefit, seen, quality)
    file = msgspec.structs.replace(
        policy.file, scores=whole.scores, chances=whole.chances, domains=own, threshold=threshold,
        revision=policy.file.revision + 1,
    )  # fmt: skip
    before = ece(np.array([found[row].p_small for row in rows]), outcomes)
    return Calibrated(file, before, ece(unseen, outcomes))


def _fitted(
    right: Floats, outcomes: Floats, domains: Sequence[str | None]
) -> tuple[Steps, dict[str, Steps]]:
    """The step function of all texts, and those of the domains with enough of them."""
    own = {}
    for domain, n in Counter(domains).items():
        if domain and n >= MIN_DOMAIN:
            inside = np.array([one == domain for one in domains])
            own[domain] = Steps(*isotonic(right[inside], outcomes[inside]))
    return Steps(*isotonic(right, outcomes)), own


def _threshold_for(benefit: Floats, seen: Observations, quality: float) -> float:
    """The highest threshold whose mean quality is at least `quality`.

    For each number of texts that go to the larger model: the weighted mean of its outcomes on them, and that
    of the small one's on the others.
    """
    order = np.argsort(-benefit, kind="stable")
    n, weights = len(order), seen.weights[order]
    large, small = seen.large[order], seen.small[order]
    above, n_above = _sums(weights, large)
    below, n_below = (sums[-1] - sums for sums in _sums(weights, small))
    share = np.arange(n + 1) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        of_large = np.where(share > 0, share * above / n_above, 0.0)
        of_small = np.where(share < 1, (1 - share) * below / n_below, 0.0)
    means = of_large + of_small
    n_known = np.concatenate([[0], np.cumsum(~np.isnan(large))])
    is_told = n_known >= np.minimum(MIN_ABOVE, np.arange(n + 1))
    reached = np.flatnonzero((means >= quality) & is_told)
    if not len(reached):
        told = means[is_told & ~np.isnan(means)]
        best = (
            f"the best has {told.max():.3f}"
            if len(told)
            else "no outcome of the larger model is known"
        )
        raise InvalidParameter(
            f"No threshold reaches a mean quality of {quality:g}, {best}: ask for less, or give more data."
        )
    n_large = int(reached[0])
    ordered = benefit[order]
    return float(ordered[n_large - 1]) if n_large else float(np.nextafter(ordered[0], np.inf))


def _sums(weights: Floats, outcomes: Floats) -> tuple[Floats, Floats]:
    """Weighted outcomes and weights of the first 0, 1, ..., n texts, without unknown ones."""
    known = np.where(np.isnan(outcomes), 0.0, weights)
    values = known * np.nan_to_num(outcomes)
    return np.concatenate([[0.0], np.cumsum(values)]), np.concatenate([[0.0], np.cumsum(known)])


def replace_policy(path: Path, file: PolicyFile) -> Path:
    """Write a policy, and keep the one before it beside it. Returns the path of the earlier one."""
    earlier = read_policy(path).file
    kept = path.with_name(f"{path.name}.{earlier.revision}")
    write_policy(earlier, kept)
    write_policy(file, path)
    return kept


def keep_earlier(path: Path, file: PolicyFile) -> tuple[PolicyFile, Path | None]:
    """Write a policy that was trained anew: as the next revision where there is one already, which is kept
    beside it. A file that is no policy of this version is replaced."""
    try:
        earlier = read_policy(path).file
    except SettingsError:
        write_policy(file, path)
        return file, None
    file = msgspec.structs.replace(file, revision=earlier.revision + 1)
    return file, replace_policy(path, file)


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
