"""What continues a private turn is private."""

from __future__ import annotations

import pytest

from edgeagent.routing.decision import Decision
from edgeagent.serving.turn_privacy import stored_metadata, strictest, with_privacy


@pytest.mark.parametrize(
    ("classes", "expected"),
    [([], "any"), ([None, "any"], "any"), (["any", "site", None], "site"), (["site", "local"], "local"),
     (["secret"], "local")],
)  # fmt: skip
def test_the_strictest_class_counts(classes, expected):
    assert strictest(classes) == expected


@pytest.mark.parametrize(
    ("own", "before", "expected"),
    [(None, [], None), (None, ["any"], None), ("any", [], "any"), (None, ["local"], "local"),
     ("any", ["site"], "site"), ("local", ["site"], "local"), ("site", ["local"], "local"),
     ("wrong", ["any"], "wrong")],
)  # fmt: skip
def test_a_turn_takes_over_the_privacy_of_what_it_continues(own, before, expected):
    metadata = {"a": "b"} | ({"privacy": own} if own is not None else {})
    found = with_privacy(metadata, before)
    assert found.get("privacy") == expected and found["a"] == "b"


def test_a_turn_of_auto_local_is_kept_as_private():
    assert stored_metadata({}, Decision("m", "default", route="auto:local")) == {"privacy": "local"}
    assert stored_metadata({}, Decision("m", "default", route="auto")) == {}
