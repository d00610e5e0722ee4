"""Which model is drawn, with which probability, and where nothing may be drawn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.routing.exploration import chances_of, drawn
from tests.routing.routes import LARGE, MIDDLE, SMALL, asked, router, rule, state

NAMES = (SMALL, MIDDLE, LARGE)
names = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, unique=True)


@given(able=names, share=st.floats(0, 1), request_id=st.text(max_size=30), data=st.data())
def test_the_draw_is_one_of_the_models_and_always_the_same(able, share, request_id, data):
    wanted = data.draw(st.sampled_from(able))
    chances = chances_of(wanted, able, share)
    assert sum(chances.values()) == pytest.approx(1)
    model = drawn(request_id, wanted, chances)
    assert model == drawn(request_id, wanted, chances) and chances[model] > 0


def test_the_recorded_probability_is_how_often_a_model_is_drawn():
    chances = chances_of("a", ["a", "b", "c"], 0.3)
    assert chances == pytest.approx({"a": 0.8, "b": 0.1, "c": 0.1})
    found = Counter(drawn(f"req_{n}", "a", chances) for n in range(20_000))
    for name, chance in chances.items():
        assert found[name] / 20_000 == pytest.approx(chance, abs=0.015)


@given(request_id=st.text(min_size=1, max_size=20), explore=st.floats(0, 1))
def test_the_same_request_and_state_give_the_same_decision(request_id, explore):
    request = asked("hello", request_id=request_id)
    first = router("", explore=explore).route(request, state())
    assert first == router("", explore=explore).route(request, state())
    assert first.choice is not None and first.choice.propensity
    assert first.reason == ("default" if first.model_id == SMALL else "explored")


# request, state, settings: the chances of the three models, None where nothing is open
OPEN = [
    (asked("x"), state(), {}, (0.5 + 0.5 / 3, 0.5 / 3, 0.5 / 3)),
    (asked("x"), state(), {"explore": 0.0}, (1.0, 0.0, 0.0)),
    (asked("x"), state(cooling="large"), {}, (0.75, 0.25)),
    (asked("x", privacy="local"), state(), {}, (1.0, 0.0, 0.0)),
    (asked("x", "auto:fast"), state(), {}, None),
    (asked("x", "auto:quality"), state(), {}, None),
    (asked("cat"), state(), {}, None),
    (asked("x"), state(cooling="small"), {}, None),
    (asked("x", failed=frozenset({"large"})), state(), {}, None),
]


@pytest.mark.parametrize(("request_", "device", "given", "chances"), OPEN)
def test_only_what_nobody_decided_is_drawn(request_, device, given, chances):
    routes = router(rule('keywords_any = ["cat"]'), **{"explore": 0.5} | given)
    found = routes.route(request_, device).choice
    assert found is not None
    if chances is None:
        assert found.chances is None and found.propensity is None
    else:
        assert tuple(found.chances.values()) == pytest.approx(chances)
        assert list(found.chances) == list(NAMES[: len(chances)])


@pytest.mark.parametrize(
    ("record", "privacy", "kept"),
    [("features", "any", "text"), ("features", "local", "choice"), ("choices", "any", "choice"),
     ("off", "any", "nothing")],
)  # fmt: skip
def test_nothing_of_a_private_text_is_kept(record, privacy, kept):
    found = router("", record=record).route(asked("secret", privacy=privacy), state()).choice
    assert (found is None) == (kept == "nothing")
    assert found is None or found.text == ("secret" if kept == "text" else None)


def test_the_trace_says_that_a_model_was_drawn():
    routes = router("", explore=1.0)
    requests = (asked("x", request_id=f"req_{n}") for n in range(50))
    found = next(d for r in requests if (d := routes.route(r, state())).reason == "explored")
    told = found.told()
    assert told["propensity"] == pytest.approx(1 / 3)
    assert told["trace"][-1] == {
        "subject": f"model {found.model_id}", "outcome": "chosen", "detail": "explored",
    }  # fmt: skip
    assert routes.route(asked("x"), state()).reason == "default", "a dry run draws nothing"
