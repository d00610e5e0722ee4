"""Which model of a route answers, and why: cases by hand, properties, and settings that are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.errors import Forbidden, SettingsError, Unavailable
from edgeagent.routing.auto_router import AutoRouter
from edgeagent.routing.route_request import ModelState, RouteState, window
from edgeagent.routing.upstreams.upstream_access import Access
from edgeagent.settings.route_rules import MAX_RULES
from edgeagent.settings.routing import RoutingSettings
from tests.routing.routes import LARGE, MIDDLE, SMALL, TALKER, asked, router, rule, state

CODE = rule('keywords_any = ["stack trace", "Python"]')
NIGHT = rule('time = "22:00-06:00"', MIDDLE)
GERMAN = rule('language = ["de"]')
FIGURES = rule("regex = '[0-9]{4}'")
LONG = rule("min_chars = 20")
SHORT = rule("max_chars = 20", MIDDLE)
TOOLS = rule("has_tools = true", MIDDLE)
NO_TOOLS = rule("has_tools = false", MIDDLE)
SCHEMA = rule("has_schema = true", MIDDLE)
BANK = rule('domain = ["banking", "travel"]')
WARD = rule('metadata = { ward = "7", shift = "night" }')
ANN = rule('key = ["key_ann", "bob"]')
PRIVATE = rule('privacy = "local"', MIDDLE)
BATTERY = rule("battery = true", MIDDLE)
LOW = rule("max_battery_percent = 30", MIDDLE)
HOT = rule("heat = true", MIDDLE)
WARM = rule("min_temp_c = 70", MIDDLE)
LOADED = rule('resident = "large"')
BUSY = rule('queue = { model = "large", min = 4 }', MIDDLE)
BOTH = rule('keywords_any = ["invoice"], has_tools = true')
EITHER = rule('any = [ { keywords_any = ["invoice"] }, { has_tools = true } ]')
EACH = rule("all = [ { min_chars = 3 }, { not = { has_tools = true } } ]")
NOT_HOT = rule("not = { heat = true }")
TWO = rule('keywords_any = ["cat"]', MIDDLE, "first") + rule(
    'keywords_any = ["cat"]', LARGE, "second"
)
TALK = rule('keywords_any = ["poem"]', TALKER)
ROUTES = """
[[routes]]
name = "ward"
candidates = ["middle", "large"]
default_model = "large"
keys = ["key_ann", "clinic"]
[[routes]]
name = "open"
candidates = ["middle"]
"""

# settings, request, state: model, reason, rule
CASES: list[tuple[str, Any, RouteState, tuple[str, str, str | None]]] = [
    ("", asked("hello"), state(), (SMALL, "default", None)),
    ("", asked("hello", "auto:fast"), state(), (SMALL, "preferred", None)),
    ("", asked("hello", "auto:quality"), state(), (LARGE, "preferred", None)),
    ("", asked("hello", "auto:local"), state(), (SMALL, "default", None)),
    ('default_model = "middle"', asked("hello"), state(), (MIDDLE, "default", None)),
    ("", asked("hello"), state(cooling=SMALL), (MIDDLE, "fallback", None)),
    ("", asked("hello"), state(cooling="small middle"), (LARGE, "fallback", None)),
    ("", asked("hello", "auto:quality"), state(cooling=LARGE), (MIDDLE, "preferred", None)),
    ("", asked("hello", "auto:fast"), state(cooling=SMALL), (MIDDLE, "preferred", None)),
    ("", asked("hello", has_schema=True), state(), (MIDDLE, "fallback", None)),
    ("", asked("hello", is_plain=True), state(), (MIDDLE, "fallback", None)),
    ('fallbacks = ["large"]', asked("hello"), state(cooling=SMALL), (LARGE, "fallback", None)),
    ('fallbacks = ["talker"]', asked("hello"), state(cooling=SMALL), (TALKER, "fallback", None)),
    ('fallbacks = ["absent"]', asked("hello"), state(cooling=SMALL), (MIDDLE, "fallback", None)),
    ('candidates = ["absent", "large"]', asked("x"), state(), (LARGE, "fallback", None)),
    (CODE, asked("my PYTHON program"), state(), (LARGE, "rule", "r")),
    (CODE, asked("a stack  trace!"), state(), (LARGE, "rule", "r")),
    (CODE, asked("pythons are snakes"), state(), (SMALL, "default", None)),
    (CODE, asked("stack of traces"), state(), (SMALL, "default", None)),
    (CODE, asked("python", "auto:fast"), state(), (SMALL, "preferred", None)),
    (CODE, asked("python"), state(cooling=LARGE), (MIDDLE, "fallback", "r")),
    (NIGHT, asked("x"), state(minute=23 * 60), (MIDDLE, "rule", "r")),
    (NIGHT, asked("x"), state(minute=0), (MIDDLE, "rule", "r")),
    (NIGHT, asked("x"), state(minute=6 * 60), (SMALL, "default", None)),
    (NIGHT, asked("x"), state(minute=12 * 60), (SMALL, "default", None)),
    (GERMAN, asked("Wie ist das Wetter in Rom?"), state(), (LARGE, "rule", "r")),
    (GERMAN, asked("What is the weather in Rome?"), state(), (SMALL, "default", None)),
    (GERMAN, asked("Rome 2024"), state(), (SMALL, "default", None)),
    (FIGURES, asked("the year 1848"), state(), (LARGE, "rule", "r")),
    (FIGURES, asked("the year 48"), state(), (SMALL, "default", None)),
    (LONG, asked("x" * 20), state(), (LARGE, "rule", "r")),
    (LONG, asked("x" * 19), state(), (SMALL, "default", None)),
    (LONG, asked("x", n_chars=5000), state(), (LARGE, "rule", "r")),
    (SHORT, asked("x" * 20), state(), (MIDDLE, "rule", "r")),
    (SHORT, asked("x" * 21), state(), (SMALL, "default", None)),
    (TOOLS, asked("x", has_tools=True), state(), (MIDDLE, "rule", "r")),
    (TOOLS, asked("x"), state(), (SMALL, "default", None)),
    (NO_TOOLS, asked("x"), state(), (MIDDLE, "rule", "r")),
    (SCHEMA, asked("x", has_schema=True), state(), (MIDDLE, "rule", "r")),
    (BANK, asked("x", metadata={"domain": "travel"}), state(), (LARGE, "rule", "r")),
    (BANK, asked("x", metadata={"domain": "home"}), state(), (SMALL, "default", None)),
    (BANK, asked("banking"), state(), (SMALL, "default", None)),
    (WARD, asked("x", metadata={"ward": "7", "shift": "night", "a": "b"}), state(), (LARGE, "rule", "r")),
    (WARD, asked("x", metadata={"ward": "7"}), state(), (SMALL, "default", None)),
    (ANN, asked("x", key_id="key_ann"), state(), (LARGE, "rule", "r")),
    (ANN, asked("x", key_id="key_b", owner="bob"), state(), (LARGE, "rule", "r")),
    (ANN, asked("x", key_id="key_b", owner="eve"), state(), (SMALL, "default", None)),
    (PRIVATE, asked("x", privacy="local"), state(), (MIDDLE, "rule", "r")),
    (PRIVATE, asked("x"), state(), (SMALL, "default", None)),
    (BATTERY, asked("x"), state(is_on_battery=True), (MIDDLE, "rule", "r")),
    (BATTERY, asked("x"), state(), (SMALL, "default", None)),
    (LOW, asked("x"), state(battery_percent=30), (MIDDLE, "rule", "r")),
    (LOW, asked("x"), state(battery_percent=31), (SMALL, "default", None)),
    (LOW, asked("x"), state(), (SMALL, "default", None)),
    (HOT, asked("x"), state(is_throttled=True), (MIDDLE, "rule", "r")),
    (HOT, asked("x"), state(is_throttled=False), (SMALL, "default", None)),
    (NOT_HOT, asked("x"), state(), (LARGE, "rule", "r")),
    (WARM, asked("x"), state(hottest_c=70.0), (MIDDLE, "rule", "r")),
    (WARM, asked("x"), state(), (SMALL, "default", None)),
    (LOADED, asked("x"), state(resident="large"), (LARGE, "rule", "r")),
    (LOADED, asked("x"), state(resident="small"), (SMALL, "default", None)),
    (BUSY, asked("x"), state(busy=4), (MIDDLE, "rule", "r")),
    (BUSY, asked("x"), state(busy=3), (SMALL, "default", None)),
    (BOTH, asked("invoice", has_tools=True), state(), (LARGE, "rule", "r")),
    (BOTH, asked("invoice"), state(), (SMALL, "default", None)),
    (EITHER, asked("x", has_tools=True), state(), (LARGE, "rule", "r")),
    (EITHER, asked("x"), state(), (SMALL, "default", None)),
    (EACH, asked("long"), state(), (LARGE, "rule", "r")),
    (EACH, asked("long", has_tools=True), state(), (SMALL, "default", None)),
    (TWO, asked("a cat"), state(), (MIDDLE, "rule", "first")),
    (TALK, asked("a poem"), state(), (TALKER, "rule", "r")),
    (ROUTES, asked("x", "ward", key_id="key_ann"), state(), (LARGE, "default", None)),
    (ROUTES, asked("x", "ward", owner="clinic"), state(cooling=LARGE), (MIDDLE, "fallback", None)),
    (ROUTES, asked("x", "open"), state(), (MIDDLE, "default", None)),
    (ROUTES + TALK, asked("a poem", "open"), state(), (MIDDLE, "default", None)),
    (ROUTES + rule("min_chars = 1", MIDDLE), asked("x", "ward", owner="clinic"), state(),
     (MIDDLE, "rule", "r")),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "request_", "device", "expected"), CASES)
def test_a_request_goes_to_this_model_for_this_reason(settings, request_, device, expected):
    found = router(settings).route(request_, device)
    assert (found.model_id, found.reason, found.rule) == expected
    assert found.route == request_.route
    assert found.trace[-1].subject == f"model {found.model_id}"


def test_without_candidates_the_default_model_and_its_larger_one_are_asked():
    found = AutoRouter(RoutingSettings())
    assert found.route(asked(), state()).larger == (LARGE,)
    alone = RouteState(state().models, default_id=LARGE)
    assert found.route(asked(route="auto:fast"), alone).model_id == SMALL
    assert found.route(asked(route="auto:quality"), alone).model_id == TALKER


def test_what_stands_behind_the_chosen_model_may_take_over_as_far_as_it_can_answer():
    assert router().route(asked(), state()).larger == (MIDDLE, LARGE)
    assert router().route(asked(), state(cooling=MIDDLE)).larger == (LARGE,)
    assert router().route(asked(route="auto:quality"), state()).larger == ()


def test_a_route_of_other_keys_is_forbidden():
    with pytest.raises(Forbidden, match="may not use the route 'ward'"):
        router(ROUTES).route(asked("x", "ward", key_id="key_eve", owner="eve"), state())
    assert not router(ROUTES).may_use("ward", "key_eve", "eve")
    assert router(ROUTES).may_use("open", "key_eve", "eve")


def test_no_model_that_can_answer_is_a_503_that_says_when_to_come_back():
    with pytest.raises(Unavailable, match="small has failed") as caught:
        router().route(asked(), state(cooling="small middle large"))
    assert caught.value.retry_after_s == 9.0
    with pytest.raises(Unavailable, match="No model that generates text"):
        AutoRouter(RoutingSettings()).route(asked(), RouteState({}))


# ---- properties

TEXTS = st.text(max_size=60)
RULES = st.lists(
    st.sampled_from([CODE, NIGHT, GERMAN, FIGURES, LONG, TOOLS, EITHER, NOT_HOT]), max_size=5
)


def renamed(rules: list[str]) -> str:
    return "".join(one.replace('id = "r"', f'id = "r{n}"') for n, one in enumerate(rules))


@given(RULES, TEXTS, st.booleans(), st.floats(-20, 120))
def test_the_same_request_and_state_give_the_same_decision(rules, text, has_tools, temp_c):
    found = router(renamed(rules))
    request, device = asked(text, has_tools=has_tools), state(hottest_c=temp_c)
    first = found.route(request, device)
    assert first == found.route(request, device)
    assert first == router(renamed(rules)).route(asked(text, has_tools=has_tools), device)


@given(RULES, TEXTS, st.floats(-1e-9, 1e-9))
def test_a_rule_that_does_not_hold_changes_nothing_wherever_it_stands(rules, text, noise):
    never = rule('metadata = { never = "set" }', MIDDLE, "never")
    text_before, text_behind = never + renamed(rules), renamed(rules) + never
    device = state(hottest_c=50.0 + noise)
    plain = router(renamed(rules)).route(asked(text), state(hottest_c=50.0))
    for settings in (text_before, text_behind):
        found = router(settings).route(asked(text), device)
        assert (found.model_id, found.reason, found.rule) == (
            plain.model_id,
            plain.reason,
            plain.rule,
        )


@given(st.permutations([CODE, NIGHT, FIGURES, LONG]), TEXTS)
def test_the_order_of_rules_with_one_target_does_not_change_the_model(rules, text):
    to_large = [one.replace(MIDDLE, LARGE) for one in rules]
    found = router(renamed(to_large)).route(asked(text), state())
    assert found.model_id == router(renamed(sorted(to_large))).route(asked(text), state()).model_id


# ---- what is refused, in one line with a way out


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (rule("min_chars = 1") + rule("min_chars = 2"), "the id 'r'"),
        (rule(""), "without conditions"),
        (rule("not = { any = [ { } ] }"), "without conditions"),
        (rule('keywords_any = ["!?"]'), "without letters or digits"),
        (rule("regex = '('"), "unclosed group"),
        (rule(r"regex = '(a)\1'"), "backreferences are not supported"),
        (rule("regex = 'a(?=b)'"), "look-around"),
        (rule("regex = '(a{1,30}){1,30}'"), "multiply to 900"),
        (rule(r"regex = '(\w\w\w\w\w\w){99}'"), "exceeds size limit"),
        (rule("not = { " * 9 + "has_tools = true" + " }" * 9), "more than 8 deep"),
        (rule("any = [" + ", ".join(["{ any = [" + ", ".join(["{ heat = true }"] * 20) + "] }"] * 20) + "]"),
         "421 tables of conditions"),
        ("".join(rule("regex = 'a'", name=f"r{n}") for n in range(33)), "33 regexes, the limit is 32"),
        ('default_model = "absent"', "none of the candidates"),
        ('[[routes]]\nname = "auto"\ncandidates = ["small"]', "which is taken"),
        ('[[routes]]\nname = "a"\ncandidates = ["small"]\ndefault_model = "large"', "none of its candidates"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used_are_refused(settings, why):
    with pytest.raises(SettingsError) as caught:
        router(settings)
    assert why in caught.value.message and "\n" not in caught.value.message
    assert ": " in caught.value.message


# ---- bounds


def test_of_a_giant_prompt_only_its_beginning_and_end_are_read():
    text = "begin " + "x" * 16_000_000 + " end"
    assert len(window(text)) < 5000
    assert window(text).startswith("begin") and window(text).endswith("end")


@pytest.mark.parametrize(
    "pattern", ["(a|a)*$", "(a*)*b", "(a|aa)+$", r"(\w+\s?)+!$", "(?:a{1,10}){1,10}b", ".*.*.*.*x$"]
)
def test_no_pattern_takes_more_than_linear_time(pattern):
    """Twice the text, twice the time: 16 times the text would take 2 ** 1000 times as long with backtracking,
    so that this test would not end."""
    found = router(rule(f"regex = '{pattern}'"))
    for n_chars in (256, 4096):
        found.route(asked("a" * n_chars + "\n"), state())


def test_a_thousand_rules_are_compiled_and_looked_through():
    settings = "".join(rule(f'keywords_any = ["word {n}"]', name=f"r{n}") for n in range(MAX_RULES))
    found = router(settings).route(asked("x " * 2000 + f"word {MAX_RULES - 1}"), state())
    assert found.rule == f"r{MAX_RULES - 1}"


def test_a_default_model_that_failed_is_not_chosen_again_though_it_is_no_candidate():
    """Otherwise the request would load it again and again."""
    chosen = AutoRouter(RoutingSettings(default_model=MIDDLE))
    assert chosen.route(asked("x"), state()).model_id == MIDDLE
    for request, device in (
        (asked("x", failed=frozenset({MIDDLE})), state()),
        (asked("x"), state(cooling=MIDDLE)),
    ):
        decision = chosen.route(request, device)
        assert (decision.model_id, decision.reason) == (SMALL, "fallback")


BIG, CLOSED = "big", "closed"
ELSEWHERE = {
    BIG: ModelState(BIG, access=(Access(frozenset({"*"}), frozenset({"site", "any"})),)),
    CLOSED: ModelState(CLOSED, access=(Access(frozenset({"ann"}), frozenset({"any"})),)),
}


@given(
    candidates=st.lists(st.sampled_from([SMALL, MIDDLE, BIG, CLOSED]), min_size=1, unique=True),
    fallbacks=st.lists(st.sampled_from([LARGE, BIG, CLOSED]), unique=True),
    target=st.sampled_from([BIG, CLOSED, MIDDLE]),
    route=st.sampled_from(["auto", "auto:fast", "auto:quality", "auto:local"]),
    text=st.sampled_from(["cat", "dog"]),
    privacy=st.sampled_from(["local", "site", "any"]),
    owner=st.sampled_from(["ann", "bob"]),
    cooling=st.sampled_from(["", SMALL, f"{MIDDLE} {SMALL}"]),
    explore=st.sampled_from([0.0, 1.0]),
)
def test_no_route_sends_a_request_where_it_may_not_go(
    candidates, fallbacks, target, route, text, privacy, owner, cooling, explore
):
    own = state(cooling=cooling)
    scene = replace(own, models={**own.models, **ELSEWHERE})
    privacy = "local" if route == "auto:local" else privacy
    rules = rule('keywords_any = ["cat"]', target)
    routed = router(rules, candidates=candidates, fallbacks=fallbacks, explore=explore)
    request = asked(text, route, privacy=privacy, owner=owner, request_id="req_1")
    try:
        found = routed.route(request, scene)
    except Unavailable:
        return
    assert found.privacy == privacy
    for model_id in (found.model_id, *found.larger):
        for access in scene.models[model_id].access:
            assert access.admits(request.sender)


def test_a_request_that_has_come_through_too_many_daemons_is_answered_here():
    scene = replace(state(), models={**state().models, **ELSEWHERE})
    rules = rule('keywords_any = ["cat"]', BIG)
    routed = router(rules, candidates=[SMALL, BIG])
    for n_hops, expected in ((2, (BIG, "rule")), (3, (SMALL, "fallback"))):
        found = routed.route(asked("cat", n_hops=n_hops), scene)
        assert (found.model_id, found.reason) == expected
        assert BIG not in found.larger or n_hops < 3
    with pytest.raises(Forbidden, match="circle"):
        router(candidates=[BIG]).route(asked("cat", n_hops=3), scene)
    cooling = replace(state(cooling=SMALL), models={**state(cooling=SMALL).models, **ELSEWHERE})
    with pytest.raises(Unavailable, match="come through 3"):
        routed.route(asked("cat", n_hops=3), cooling)


def test_models_elsewhere_are_candidates_only_where_the_settings_say_so():
    scene = replace(state(), models={**state().models, **ELSEWHERE}, default_id=None)
    found = router(candidates=[]).route(asked("x", "auto:quality"), scene)
    assert found.model_id not in ELSEWHERE


def test_heat_and_battery_keep_no_request_from_a_model_elsewhere():
    own = state(is_on_battery=True, is_throttled=True)
    scene = replace(own, models={**own.models, **ELSEWHERE})
    budgets = {"small_on_battery": True, "small_when_hot": True}
    for large, expected in ((BIG, BIG), (LARGE, SMALL)):
        rules = rule("has_tools = false", large)
        routed = router(rules, candidates=[SMALL, large], budgets=budgets, default_model=large)
        assert routed.route(asked("x"), scene).model_id == expected
