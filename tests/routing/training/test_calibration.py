"""Probabilities by domain, thresholds for a quality, and training on a log whose truth is known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.routing.score_policy import ScorePolicy, Steps
from edgeagent.routing.text_features import features
from edgeagent.routing.training.calibration import MIN_DOMAIN, calibrated
from edgeagent.routing.training.log_training import train_on_log
from edgeagent.routing.training.observations import Observations
from edgeagent.routing.training.trainer import TextMatrix, policy_file
from tests.routing.routes import LARGE, SMALL
from tests.routing.training.logs import log
from tests.routing.training.texts import outcomes


@pytest.fixture(scope="module")
def seen() -> Observations:
    return Observations.of_log(log(900, 0.5), SMALL, LARGE)


@pytest.fixture(scope="module")
def policy(seen: Observations) -> ScorePolicy:
    texts = TextMatrix.of_features(seen.features)
    return ScorePolicy(policy_file((SMALL, LARGE), texts, train_on_log(seen, texts), 0.5))


def complete(n: int, seed: int) -> Observations:
    texts, small, large = zip(*outcomes(n, seed), strict=True)
    found = [features(text) for text in texts]
    return Observations(
        found, [None] * n, np.array(small, float), np.array(large, float), np.ones(n)
    )


def quality(policy: ScorePolicy, threshold: float, seen: Observations) -> float:
    is_large = np.array([policy.score_features(one).benefit >= threshold for one in seen.features])
    return float(np.where(is_large, seen.large, seen.small).mean())


def test_a_log_teaches_which_texts_gain(policy):
    easy, hard = (
        policy.score("set a timer please, number 7"),
        policy.score("prove the theorem please, number 7"),
    )
    assert easy.benefit < policy.file.threshold < hard.benefit
    assert easy.p_small > 0.7 and hard.p_small < 0.5


def test_a_log_without_the_large_model_is_refused():
    alone = Observations.of_log(log(300, 0.0), SMALL, LARGE)
    with pytest.raises(InvalidParameter, match=r"of the large model.*explore"):
        train_on_log(alone, TextMatrix.of_features(alone.features))


@pytest.mark.parametrize("wanted", [0.65, 0.8])
def test_a_threshold_for_a_quality_reaches_it_on_other_texts(policy, seen, wanted):
    unseen = complete(600, 77)
    found = calibrated(policy, seen, quality=wanted).file
    assert quality(policy, found.threshold, unseen) > wanted - 0.06
    higher = np.nextafter(found.threshold, np.inf) + 0.2
    assert quality(policy, higher, unseen) < wanted + 0.06, "with as few as possible"


def test_complete_outcomes_and_those_of_a_log_give_nearly_the_same(policy, seen):
    by_files = calibrated(policy, complete(900, 0), share=0.4).file
    by_log = calibrated(policy, seen, share=0.4).file
    assert by_log.threshold == pytest.approx(by_files.threshold, abs=1e-6)


def test_domains_with_enough_outcomes_have_a_probability_of_their_own(policy):
    """The same texts are answered well in one domain and badly in the other."""
    given = complete(2 * MIN_DOMAIN + 20, 3)
    n = len(given)
    domains = ["a" if i % 2 else "b" for i in range(n - 10)] + ["rare"] * 10
    small = np.array([1.0 if domain == "a" else 0.0 for domain in domains])
    split = Observations(given.features, domains, small, given.large, np.ones(n))
    made = calibrated(policy, split)
    assert made.domains == ["a", "b"]
    scorer, whole = ScorePolicy(made.file), policy.score("set a timer")
    assert scorer.score("set a timer", "a").p_small == 1.0
    assert scorer.score("set a timer", "b").p_small == 0.0
    assert scorer.score("set a timer", "rare") == scorer.score("set a timer")
    assert 0.3 < scorer.score("set a timer").p_small < 0.7
    assert scorer.score("set a timer").benefit == whole.benefit, "the order of texts stays"
    assert made.ece_after < 0.05 < made.ece_before


def test_a_policy_of_before_has_no_domains(policy):
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(policy.file))
    del old["domains"]
    assert msgspec.convert(old, type(policy.file)).domains == {}
    bad = msgspec.structs.replace(policy.file, domains={"a": Steps([], [])})
    assert not bad.domains["a"].is_sound
