"""Learned scores: what training finds, what the daemon computes of it without numpy, and bad files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import InvalidParameter, SettingsError
from edgeagent.routing.feature_record import packed, unpacked
from edgeagent.routing.score_policy import MAX_BYTES, PolicyFile, ScorePolicy, read_policy
from edgeagent.routing.text_features import (
    N_COLUMNS,
    SHAPE_NAMES,
    TextFeatures,
    features,
    shape,
    word_number,
)
from edgeagent.routing.training.outcome_files import Pair
from edgeagent.routing.training.sparse_rows import SparseRows, ridge
from edgeagent.routing.training.trainer import (
    TextMatrix,
    inner_folds,
    policy_file,
    train,
    write_policy,
)
from tests.routing.routes import LARGE, MIDDLE, SMALL, asked, router, state
from tests.routing.training.texts import EASY, HARD, outcomes


@pytest.fixture(scope="module")
def pair() -> Pair:
    texts, small, large = zip(*outcomes(400), strict=True)
    groups = np.zeros(len(texts), int)
    quality = np.array(small, float), np.array(large, float)
    return Pair(list(texts), groups, ["made"], *quality, SMALL, LARGE)


@pytest.fixture(scope="module")
def file(pair: Pair) -> PolicyFile:
    texts = TextMatrix.of(pair.texts)
    return policy_file(
        (pair.small_name, pair.large_name), texts, train(texts, pair.small, pair.large), 0.5
    )


@pytest.fixture(scope="module")
def path(file: PolicyFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "route.policy"
    write_policy(file, path)
    return path


def test_hard_texts_gain_and_easy_ones_do_not(path):
    policy = read_policy(path)
    easy, hard = (
        policy.score(f"{phrase} please, number 7")
        for phrase in ("set a timer", "prove the theorem")
    )
    assert easy.benefit < policy.file.threshold < hard.benefit
    assert easy.p_small > 0.7 and hard.p_small < 0.5
    assert easy.is_known and hard.is_known


def test_the_daemon_computes_what_numpy_does(pair, file):
    texts = TextMatrix.of(pair.texts)
    trained = train(texts, pair.small, pair.large)
    benefit, chances = trained.benefit.scores(texts), trained.chances(texts)
    policy = ScorePolicy(file)
    for text, one, chance in list(zip(pair.texts, benefit, chances, strict=True))[:50]:
        found = policy.score(text)
        assert found.benefit == pytest.approx(one, abs=1e-5)
        assert found.p_small == pytest.approx(chance, abs=0.15), "float32 may fall on the next step"


def test_a_text_of_other_words_is_out_of_distribution(path):
    found = read_policy(path).score("Объясните квантовую запутанность zxcv qwer")
    assert not found.is_known and found.share_known < 0.2


def test_ridge_finds_the_weights_of_a_linear_target():
    rng = np.random.default_rng(0)
    dense = rng.random((200, 6))
    rows = SparseRows.of([dict(enumerate(row)) for row in dense.tolist()], 6)
    shape_ = rng.standard_normal((200, 2))
    target = dense @ np.arange(6) + shape_ @ np.array([3.0, -2.0]) + 1.0
    weights, bias = ridge(rows, shape_, target, words_penalty=3.0, shape_penalty=10.0)
    both = np.hstack([dense, shape_])
    penalty = np.diag([3.0] * 6 + [10.0] * 2)
    exact = np.linalg.solve(both.T @ both + penalty, both.T @ (target - bias))
    assert bias == pytest.approx(target.mean())
    assert np.allclose(weights, exact, atol=0.05)
    factors = np.array([0.0, 1, 2, 3, 4, 5])
    scaled = dense * factors / np.linalg.norm(dense * factors, axis=1, keepdims=True)
    assert np.allclose(rows.scaled(factors).times(np.ones(6)), scaled.sum(axis=1))
    picked = rows.take(np.array([5, 0]))
    assert np.allclose(picked.times(np.arange(6.0)), (dense @ np.arange(6))[[5, 0]])
    assert np.allclose(rows.transposed_times(np.ones(200)), dense.sum(axis=0))


def test_columns_without_a_value_change_no_weight_and_have_none():
    rng = np.random.default_rng(1)
    dense, shape_ = rng.random((80, 3)), rng.standard_normal((80, 2))
    target = dense @ np.array([1.0, -2.0, 3.0]) + shape_ @ np.array([0.5, 0.25])
    at = [7, 400, 65_000]
    few = SparseRows.of([dict(enumerate(row)) for row in dense.tolist()], 3)
    many = SparseRows.of([dict(zip(at, row, strict=True)) for row in dense.tolist()], 65_536)
    penalties = {"words_penalty": 2.0, "shape_penalty": 5.0}
    expected, _ = ridge(few, shape_, target, **penalties)
    found, _ = ridge(many, shape_, target, **penalties)
    assert np.allclose(found[[*at, 65_536, 65_537]], expected)
    assert np.count_nonzero(found) == 5


@given(text=st.text(max_size=80) | st.sampled_from([*EASY, *HARD]), seed=st.integers(0, 9))
def test_the_log_scores_as_the_text_does_to_the_last_bit_in_any_order(file, text, seed):
    policy, found = ScorePolicy(file), features(text)
    assert policy.score_features(unpacked(packed(found))) == policy.score(text)
    columns = list(found.counts.items())
    Random(seed).shuffle(columns)
    shuffled = TextFeatures(dict(columns), found.shape, found.words)
    assert policy.score_features(shuffled) == policy.score(text)


@pytest.mark.parametrize(("n_groups", "are_whole"), [(1, False), (4, False), (5, True), (9, True)])
def test_inner_folds_are_of_whole_files_where_there_are_enough(n_groups, are_whole):
    groups = np.arange(90) % n_groups
    found = inner_folds(90, groups, 0)
    assert sorted(np.concatenate([outside for _, outside in found])) == list(range(90))
    for inside, outside in found:
        assert not set(inside) & set(outside) and len(inside) + len(outside) == 90
        assert bool(set(groups[inside]) & set(groups[outside])) != are_whole
    assert np.array_equal(found[0][0], inner_folds(90, groups, 0)[0][0])
    assert np.array_equal(found[0][0], inner_folds(90, None, 0)[0][0]) != are_whole


def test_few_texts_are_refused(pair):
    texts = TextMatrix.of(pair.texts[:20])
    with pytest.raises(InvalidParameter, match="50 are needed"):
        train(texts, pair.small[:20], pair.large[:20])


# ---- features


def test_features_are_bounded_and_stable():
    found = features("How MANY, 12?")
    assert found.words == set(map(word_number, ["how", "many", ",", "1", "2", "?"]))
    assert all(0 <= column < N_COLUMNS for column in found.columns)
    assert len(found.counts) == 12 and set(found.columns.values()) == {1.0}
    assert len(found.shape) == len(shape("")) == len(SHAPE_NAMES)
    assert features("") == TextFeatures({}, shape(""), frozenset())
    assert features("x " * 8_000_000).counts[word_number("x") & (N_COLUMNS - 1)] == 255


# ---- the router


def test_requests_that_no_rule_matches_are_routed_by_the_policy(path):
    found = router("", policy=path)
    hard = found.route(asked("prove the theorem please"), state())
    assert (hard.model_id, hard.reason) == (LARGE, "learned")
    assert set(hard.scores) == {"benefit", "p_small", "known"} and hard.told()["scores"]
    easy = found.route(asked("set a timer please"), state())
    assert (easy.model_id, easy.reason) == (SMALL, "learned")
    odd = found.route(asked("zxcv qwer uiop"), state())
    assert (odd.model_id, odd.reason, odd.trace[0].outcome) == (SMALL, "default", "does not know")
    cold = found.route(asked("prove the theorem please"), state(cooling=LARGE))
    assert (cold.model_id, cold.reason) == (MIDDLE, "fallback")
    assert found.route(asked("prove it", route="auto:fast"), state()).reason == "preferred"
    named = '[[routes]]\nname = "ward"\ncandidates = ["middle"]'
    assert router(named, policy=path).route(asked("prove it", "ward"), state()).scores == {}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: b"", "cannot be used"),
        (lambda data: data[:1000], "cannot be used"),
        (lambda data: b"\x81" * 5000, "cannot be used"),
        (lambda data: b"\x91" * 100_000, "cannot be used"),
        (lambda data: data + b"x" * (MAX_BYTES + 1), "cannot be read"),
    ],
)
def test_a_file_that_is_no_policy_is_one_line(path, tmp_path, spoil, why):
    bad = tmp_path / "bad"
    bad.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SettingsError, match=why) as caught:
        read_policy(bad)
    assert "route train" in caught.value.message and "\n" not in caught.value.message
    with pytest.raises(SettingsError, match="cannot be read"):
        read_policy(tmp_path / "absent")


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 9}, {"benefit": b"x"}, {"known": b""}, {"scores": []},
        {"shape_scale": [0.0] * len(SHAPE_NAMES)},
    ],
)  # fmt: skip
def test_a_policy_whose_parts_do_not_fit_is_refused(file, tmp_path, wrong):
    bad = tmp_path / "bad"
    bad.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(file, **wrong)))
    with pytest.raises(SettingsError, match=r"version 9|do not fit"):
        read_policy(bad)


def test_scoring_does_not_import_numpy(path):
    code = (
        "import sys; from pathlib import Path; from edgeagent.routing.score_policy import read_policy; "
        f"print(read_policy(Path({str(path)!r})).score('set a timer').is_known, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
