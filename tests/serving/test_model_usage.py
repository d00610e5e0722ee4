"""Tokens of a day by key and model, and how long answers take: with a clock of the test's own."""

from __future__ import annotations

import msgspec
import pytest

from edgeagent.serving.model_usage import DAY_S, MAX_PAIRS, MEAN_KEPT_S, ModelUsage
from edgeagent.store.requests import RequestRow

ROW = RequestRow(
    id="req_1", owner="ann", key_id="key_ann", endpoint="chat", model="large", route="default", status=200,
    finish="stop", n_prompt=30, n_cached=0, n_generated=20, queue_ms=100.0, ttft_ms=300.0, tpot_ms=10.0,
    total_ms=1100.0, created_ms=1,
)  # fmt: skip
MODELS = {"large": 1, "small": 1}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def usage(clock: Clock) -> ModelUsage:
    return ModelUsage(clock)


def test_joules_count_for_a_day_and_their_mean_is_the_next_answers(usage, clock):
    assert usage.answer_j("large") is None
    usage.note(msgspec.structs.replace(ROW, energy_j=10.0), 0)
    usage.note(ROW, 0)
    assert usage.answer_j("large") == 10, "what was not measured says nothing"
    usage.note(msgspec.structs.replace(ROW, energy_j=20.0), 0)
    assert usage.answer_j("large") == pytest.approx(12)
    assert usage.joules_of("key_ann", MODELS) == {"large": 30}
    assert usage.joules_of("key_bob", MODELS) == {}
    clock.now += DAY_S + 1
    assert usage.joules_of("key_ann", MODELS) == {}


def test_a_model_that_was_slow_long_ago_is_tried_again(usage, clock):
    usage.note(msgspec.structs.replace(ROW, energy_j=10.0), 0)
    clock.now += MEAN_KEPT_S
    assert usage.answer_j("large") == 10
    assert usage.predicted("large", 0) is not None
    clock.now += 1
    assert usage.answer_j("large") is None
    assert usage.predicted("large", 0) is None
    usage.note(msgspec.structs.replace(ROW, energy_j=1.0, total_ms=600.0), 0)
    assert usage.answer_j("large") == 1, "nothing of the old mean"
    assert usage.predicted("large", 0).answer_s == pytest.approx(0.5)


def test_tokens_count_for_a_day_by_key_and_model(usage, clock):
    usage.note(ROW, 0)
    usage.note(msgspec.structs.replace(ROW, model="small", n_generated=0), 0)
    usage.note(msgspec.structs.replace(ROW, key_id="key_bob", status=499), 0)
    assert usage.tokens_of("key_ann", MODELS) == {"large": 50, "small": 30}
    assert usage.tokens_of("key_bob", MODELS) == {"large": 50}
    assert usage.tokens_of("key_eve", MODELS) == {}
    clock.now += DAY_S - 1
    usage.note(ROW, 0)
    assert usage.tokens_of("key_ann", MODELS)["large"] == 100
    clock.now += 2
    assert usage.tokens_of("key_ann", MODELS) == {"large": 50}
    clock.now += DAY_S
    assert usage.tokens_of("key_ann", MODELS) == {}


def test_what_was_used_before_a_restart_leaves_the_day_in_time(usage, clock):
    usage.add("key_ann", "large", 70, ago_s=DAY_S - 10)
    usage.add("key_ann", "large", 5, ago_s=0)
    assert usage.tokens_of("key_ann", MODELS) == {"large": 75}
    clock.now += 11
    assert usage.tokens_of("key_ann", MODELS) == {"large": 5}


def test_the_prediction_is_the_time_alone_times_what_is_there(usage):
    assert usage.predicted("large", 3) is None
    usage.note(ROW, 0)
    alone, beside = usage.predicted("large", 0), usage.predicted("large", 3)
    assert (alone.first_token_s, alone.answer_s) == (0.2, 1.0)
    assert (beside.first_token_s, beside.answer_s) == (0.8, 4.0)
    for _ in range(100):  # measured beside one other, it was twice as fast alone
        usage.note(msgspec.structs.replace(ROW, total_ms=2100.0, ttft_ms=500.0), 1)
    assert usage.predicted("large", 0).answer_s == pytest.approx(1.0)
    for failed in ({"status": 500}, {"ttft_ms": None}):
        usage.note(msgspec.structs.replace(ROW, total_ms=1e6, **failed), 0)
    assert usage.predicted("large", 0).answer_s == pytest.approx(1.0)


def test_the_number_of_keys_that_are_counted_is_bounded(usage):
    for n in range(MAX_PAIRS + 50):
        usage.add(f"key_{n}", "large", 1)
    assert usage.tokens_of("key_0", MODELS) == {}
    assert usage.tokens_of(f"key_{MAX_PAIRS + 49}", MODELS) == {"large": 1}
