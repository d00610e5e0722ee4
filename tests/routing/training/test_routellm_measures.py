"""The measures against values worked out by hand, and against their definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.routing.training.routellm_measures import (
    Curve,
    apgr,
    cpt,
    curve_of,
    ece,
    isotonic,
    reliability,
    step_values,
)

SMALL = np.array([1.0, 1, 1, 1, 1, 0, 0, 0, 0, 0])
LARGE = np.ones(10)
PERFECT = 1.0 - SMALL + np.arange(10) / 100


def test_a_perfect_order_recovers_the_gap_with_the_first_half():
    curve = curve_of(PERFECT, SMALL, LARGE)
    assert (curve.share[0], curve.share[-1]) == (0.0, 1.0)
    assert (curve.quality[0], curve.quality[-1]) == (0.5, 1.0)
    assert apgr(curve, SMALL, LARGE) == pytest.approx(0.75)
    assert cpt(curve, SMALL, LARGE, 0.5) == pytest.approx(25.0)
    assert cpt(curve, SMALL, LARGE, 0.8) == pytest.approx(40.0)


def test_the_reverse_order_recovers_it_last():
    curve = curve_of(-PERFECT, SMALL, LARGE)
    assert apgr(curve, SMALL, LARGE) == pytest.approx(0.25)
    assert cpt(curve, SMALL, LARGE, 0.5) == pytest.approx(75.0)


def test_a_straight_line_is_one_half():
    curve = Curve(np.linspace(0, 1, 11), np.linspace(0.5, 1.0, 11))
    assert curve.area == pytest.approx(0.75)
    assert apgr(curve, SMALL, LARGE) == pytest.approx(0.5)
    assert cpt(curve, SMALL, LARGE, 0.8) == pytest.approx(80.0)


def test_thresholds_are_the_edges_of_ten_equally_filled_bins():
    rng = np.random.default_rng(0)
    scores = rng.random(1000)
    curve = curve_of(scores, rng.integers(0, 2, 1000).astype(float), np.ones(1000))
    assert np.allclose(curve.share, np.linspace(0, 1, 11), atol=2e-3)


def test_equal_scores_have_one_threshold_and_no_area():
    curve = curve_of(np.zeros(10), SMALL, LARGE)
    assert apgr(curve, SMALL, LARGE) == 0.0


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    confidence = np.array([0.25, 0.25, 0.85, 0.85])
    is_right = np.array([0.0, 1.0, 1.0, 1.0])
    assert [(one.confidence, one.accuracy, one.n) for one in reliability(confidence, is_right)] == [
        (0.25, 0.5, 2),
        (0.85, 1.0, 2),
    ]
    assert ece(confidence, is_right) == pytest.approx((0.25 + 0.15) / 2)
    assert ece(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.0


VALUES = st.lists(
    st.tuples(st.integers(-20, 20), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60
)


@given(VALUES)
def test_the_step_function_rises_keeps_the_mean_and_is_at_least_as_near_as_any_constant(pairs):
    scores, values = np.array(pairs, float).T
    starts, heights = isotonic(scores, values)
    assert all(a < b for a, b in pairwise(starts))
    assert all(a < b for a, b in pairwise(heights))
    fitted = step_values(starts, heights, scores)
    assert fitted.mean() == pytest.approx(values.mean())
    error = ((fitted - values) ** 2).sum()
    for constant in (0.0, 0.5, 1.0, float(values.mean())):
        assert error <= ((constant - values) ** 2).sum() + 1e-9


def test_scores_below_the_first_step_get_its_height():
    assert step_values([1.0, 2.0], [0.2, 0.7], np.array([0.0, 1.5, 3.0])).tolist() == [
        0.2,
        0.2,
        0.7,
    ]
