"""Which candidate is too expensive, what answers in its place, and what no budget changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.routing.route_request import RouteState
from edgeagent.settings.route_budgets import RouteBudgets
from tests.routing.routes import LARGE, MIDDLE, SMALL, TALKER, asked, router, rule, state

TOKENS = RouteBudgets(tokens_per_key_day=100)
LATENCY = RouteBudgets(latency_s=2.0)
QUEUE = RouteBudgets(max_queue=4)
BATTERY = RouteBudgets(small_on_battery=True)
HEAT = RouteBudgets(small_when_hot=True)
ENERGY = RouteBudgets(energy_j=5.0)
ENERGY_DAY = RouteBudgets(energy_per_key_day_j=100)
NONE = RouteBudgets()


def slow(name: str, first_s: float, answer_s: float, **device: Any) -> RouteState:
    """A device whose model takes that long."""
    found = state(**device)
    models = dict(found.models)
    models[name] = replace(models[name], first_token_s=first_s, answer_s=answer_s)
    return replace(found, models=models)


def used(**tokens: int) -> RouteState:
    return replace(state(), tokens_of_key=tokens)


def costly(joules: float) -> RouteState:
    """A device whose large model has measured answers."""
    found = state(energy_source="rapl")
    large = replace(found.models[LARGE], answer_j=joules)
    return replace(found, models={**found.models, LARGE: large})


def spent(source: str | None = "ina", **joules: float) -> RouteState:
    return replace(state(energy_source=source), joules_of_key=joules)


BEST = asked("x", "auto:quality")
HURRY = asked("x", "auto:quality", left_s=1.0)
CAT = rule('keywords_any = ["cat"]')
PRIVATE_DEFAULT = 'default_model = "large"'

# budgets, settings, request, state: model, reason, words of the trace
CASES = [
    (TOKENS, "", BEST, used(large=99), (LARGE, "preferred", "")),
    (TOKENS, "", BEST, used(large=100), (MIDDLE, "budget", "100 of 100 tokens")),
    (TOKENS, "", BEST, used(large=100, middle=500), (SMALL, "budget", "100 of 100 tokens")),
    (TOKENS, "", BEST, used(small=9999), (LARGE, "preferred", "")),
    (TOKENS, "", asked("x"), used(small=9999, large=100), (SMALL, "default", "")),
    (TOKENS, CAT, asked("cat"), used(large=100), (MIDDLE, "budget", "tokens of the day")),
    (TOKENS, PRIVATE_DEFAULT, asked("x"), used(large=100), (MIDDLE, "budget", "tokens")),
    (RouteBudgets(tokens_per_key_day=0), "", BEST, used(), (SMALL, "budget", "0 of 0")),
    (NONE, "", BEST, used(large=10**9), (LARGE, "preferred", "")),
    (LATENCY, "", BEST, slow(LARGE, 0.1, 2.1), (MIDDLE, "budget", "about 2.1 s, 2 s are")),
    (LATENCY, "", BEST, slow(LARGE, 0.1, 2.0), (LARGE, "preferred", "")),
    (LATENCY, "", BEST, state(), (LARGE, "preferred", "")),
    (NONE, "", HURRY, slow(LARGE, 1.5, 9.0), (MIDDLE, "budget", "the request has 1.0 s")),
    (NONE, "", HURRY, slow(LARGE, 0.5, 9.0), (LARGE, "preferred", "")),
    (NONE, "", BEST, slow(LARGE, 1.5, 9.0), (LARGE, "preferred", "")),
    (NONE, "", asked("x", left_s=0.1), slow(SMALL, 1.5, 9.0), (SMALL, "default", "")),
    (QUEUE, "", BEST, state(busy=4), (MIDDLE, "budget", "4 requests run or wait")),
    (QUEUE, "", BEST, state(busy=3), (LARGE, "preferred", "")),
    (ENERGY, "", BEST, costly(5.1), (MIDDLE, "budget", "about 5.1 J, 5 J are")),
    (ENERGY, "", BEST, costly(5.0), (LARGE, "preferred", "")),
    (ENERGY, "", BEST, state(), (LARGE, "preferred", "unmeasured")),
    (ENERGY_DAY, "", BEST, spent(large=99.9), (LARGE, "preferred", "")),
    (ENERGY_DAY, "", BEST, spent(large=100, small=900), (MIDDLE, "budget", "used 100 of 100 J")),
    (ENERGY_DAY, "", BEST, spent(large=100, middle=200), (SMALL, "budget", "100 of 100 J")),
    (ENERGY_DAY, "", BEST, spent(None, large=900), (LARGE, "preferred", "nothing here measures")),
    (BATTERY, "", BEST, state(is_on_battery=True), (SMALL, "budget", "battery")),
    (BATTERY, "", BEST, state(), (LARGE, "preferred", "")),
    (HEAT, "", BEST, state(is_throttled=True), (SMALL, "budget", "throttled")),
    (HEAT, "", BEST, state(is_on_battery=True), (LARGE, "preferred", "")),
    (HEAT, "", BEST, state(is_throttled=True, cooling=SMALL), (LARGE, "preferred", "")),
    (HEAT, "", asked("x", has_schema=True), state(is_throttled=True), (MIDDLE, "fallback", "")),
    (TOKENS, rule('keywords_any = ["cat"]', TALKER), asked("cat"), used(talker=100), (TALKER, "rule", "")),
]  # fmt: skip


@pytest.mark.parametrize(("budgets", "settings", "request_", "device", "found"), CASES)
def test_a_smaller_candidate_answers_what_is_too_expensive(
    budgets, settings, request_, device, found
):
    decision = router(settings, budgets=budgets).route(request_, device)
    model, reason, why = found
    assert (decision.model_id, decision.reason) == (model, reason)
    assert why in " ".join(map(str, decision.trace))
    assert ("over budget" in " ".join(map(str, decision.trace))) == (reason == "budget")


def test_what_is_too_expensive_does_not_take_over_and_is_not_drawn():
    decision = router("", budgets=TOKENS, explore=1.0).route(
        asked("x", request_id="req_1"), used(large=100)
    )
    assert decision.larger in ((MIDDLE,), ()) and decision.too_expensive == {LARGE}
    assert decision.choice is not None and decision.choice.chances is not None
    assert set(decision.choice.chances) == {SMALL, MIDDLE}
    degraded = router("", budgets=TOKENS).route(BEST, used(large=100))
    assert degraded.choice is not None and degraded.choice.chances is None
    assert degraded.header == "route=auto:quality; model=middle; reason=budget"


@given(
    tokens=st.integers(0, 200), bound=st.integers(0, 200), busy=st.integers(0, 9), limit=st.integers(1, 9),
    battery=st.sampled_from([True, False, None]), small=st.booleans(), answer_s=st.floats(0, 10),
    left=st.none() | st.floats(0, 10),
    route=st.sampled_from(["auto", "auto:fast", "auto:quality", "auto:local"]),
)  # fmt: skip
def test_there_is_always_an_answer_and_it_is_the_same(
    tokens, bound, busy, limit, battery, small, answer_s, left, route
):
    budgets = RouteBudgets(
        tokens_per_key_day=bound, max_queue=limit, small_on_battery=small, latency_s=5.0
    )
    device = slow(LARGE, answer_s / 2, answer_s, busy=busy, is_on_battery=battery)
    device = replace(device, tokens_of_key={LARGE: tokens, MIDDLE: 1})
    request = asked("x", route, left_s=left, request_id="req_1")
    routes = router("", budgets=budgets, explore=0.3)
    first = routes.route(request, device)
    assert (
        first
        == routes.route(request, device)
        == routes.route(request, replace(device, models=dict(reversed(device.models.items()))))
    )
    assert first.model_id == SMALL or first.model_id not in first.too_expensive
    assert not first.too_expensive & set(first.larger)


def test_only_what_needs_the_device_reads_it():
    assert not router("", budgets=TOKENS).uses_device
    assert router("", budgets=HEAT).uses_device and router("", budgets=BATTERY).uses_device
