"""Measures of routing between a small and a large model.

Source: RouteLLM, Ong et al. 2024, arXiv:2406.18665, and its evaluation: thresholds at the edges of 10 equally
filled bins of the scores, a trapezoid area, and linear interpolation for CPT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_BINS = 10
N_CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Curve:
    """Quality by the share of requests that the large model answers, both 0 to 1, float64 [n], by share."""

    share: Floats
    quality: Floats

    @property
    def area(self) -> float:
        heights = (self.quality[1:] + self.quality[:-1]) / 2
        return float(np.diff(self.share) @ heights)


@dataclass(frozen=True)
class Bin:
    """Requests with a similar confidence: mean confidence, share that was right, and their number."""

    confidence: float
    accuracy: float
    n: int


def curve_of(scores: Floats, small: Floats, large: Floats) -> Curve:
    """The curve of thresholds over the scores; the large model answers from the threshold on."""
    edges = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, N_BINS + 1)))
    points = []
    for number, edge in enumerate(edges):
        is_large = scores > edge if number == len(edges) - 1 else scores >= edge
        points.append((float(is_large.mean()), float(np.where(is_large, large, small).mean())))
    points.sort()
    share, quality = np.array(points).T
    return Curve(share, quality)


def apgr(curve: Curve, small: Floats, large: Floats) -> float:
    """Average performance gap recovered: 0 always small, 1 as good as always large at any share."""
    width = float(curve.share[-1] - curve.share[0])
    low, high = float(small.mean()) * width, float(large.mean()) * width
    return (curve.area - low) / (high - low) if high > low else 0.0


def cpt(curve: Curve, small: Floats, large: Floats, recovered: float) -> float:
    """Percent of requests to the large model that recover this share of the gap in quality.

    Interpolated linearly; where quality falls with a greater share, the first share that reaches it counts.
    """
    wanted = float(small.mean()) + recovered * (float(large.mean()) - float(small.mean()))
    rising = np.maximum.accumulate(curve.quality)
    return 100.0 * float(np.interp(wanted, rising, curve.share))


def reliability(confidence: Floats, is_right: Floats) -> list[Bin]:
    """Bins of equal width that are not empty."""
    places = np.minimum((confidence * N_CALIBRATION_BINS).astype(int), N_CALIBRATION_BINS - 1)
    found = []
    for number in range(N_CALIBRATION_BINS):
        inside = places == number
        if inside.any():
            found.append(
                Bin(
                    float(confidence[inside].mean()),
                    float(is_right[inside].mean()),
                    int(inside.sum()),
                )
            )
    return found


def ece(confidence: Floats, is_right: Floats) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over the bins."""
    bins = reliability(confidence, is_right)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / len(confidence)


def isotonic(scores: Floats, values: Floats) -> tuple[list[float], list[float]]:
    """The rising step function nearest to the values: the scores where steps begin, and their heights.

    Source: pool adjacent violators, Ayer et al. 1955.
    """
    order = np.argsort(scores, kind="stable")
    blocks: list[list[float]] = []  # first score, sum, count, last score
    ordered = zip(scores[order].tolist(), values[order].tolist(), strict=True)
    for score, value in ordered:
        if blocks and blocks[-1][3] == score:
            blocks[-1][1] += value
            blocks[-1][2] += 1
        else:
            blocks.append([score, value, 1.0, score])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            _, total, count, last = blocks.pop()
            blocks[-1][1] += total
            blocks[-1][2] += count
            blocks[-1][3] = last
    return [block[0] for block in blocks], [block[1] / block[2] for block in blocks]


def step_values(starts: list[float], heights: list[float], scores: Floats) -> Floats:
    """The step function of `isotonic` at some scores."""
    at = np.maximum(np.searchsorted(np.array(starts), scores, side="right") - 1, 0)
    return np.array(heights)[at]
