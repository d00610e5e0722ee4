"""Which model a request goes to, as a table."""

from __future__ import annotations

import pytest

from edgeagent.errors import InvalidParameter, ModelNotFound, Unavailable
from edgeagent.routing.decision import Decision
from edgeagent.routing.router import ModelNames, any_model, task_model, text_model

ALL = ModelNames({"generate": ["a", "b"], "embed": ["e"], "rerank": ["r"]}, "a")
VECTORS = ModelNames({"embed": ["e"]}, None)
NONE = ModelNames({}, None)


@pytest.mark.parametrize(
    ("name", "models", "expected"),
    [
        (None, ALL, Decision("a", "default")),
        ("b", ALL, Decision("b", "named")),
        ("unheard", ALL, Decision("unheard", "named")),
        ("e", ALL, InvalidParameter),
        (None, VECTORS, Unavailable),
    ],
)
def test_a_text_goes_to_the_model_named_or_the_default_one(name, models, expected):
    if isinstance(expected, Decision):
        assert text_model(name, models) == expected
        return
    with pytest.raises(expected):
        text_model(name, models)


@pytest.mark.parametrize(
    ("name", "models", "expected"),
    [
        (None, ALL, Decision("e", "default")),
        ("e", ALL, Decision("e", "named")),
        ("a", ALL, InvalidParameter),
        (None, NONE, ModelNotFound),
    ],
)
def test_a_task_goes_to_a_model_that_does_it(name, models, expected):
    if isinstance(expected, Decision):
        assert task_model("embed", name, models) == expected
        return
    with pytest.raises(expected, match="embeddings"):
        task_model("embed", name, models)


def test_what_all_models_do_goes_to_the_text_default_before_the_others():
    assert any_model(None, ALL) == Decision("a", "default")
    assert any_model(None, VECTORS) == Decision("e", "default")
    assert any_model("r", ALL) == Decision("r", "named")
    with pytest.raises(ModelNotFound, match="models install"):
        any_model(None, NONE)


def test_a_refusal_names_the_models_that_can():
    with pytest.raises(InvalidParameter, match=r"generates text.*\(a, b\)"):
        text_model("e", ALL)
