"""What is written as TOML is what the standard library reads back."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.catalog.toml_text import to_toml

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = st.one_of(text, st.booleans(), st.integers(-(2**63), 2**63 - 1),
                  st.floats(allow_nan=False))  # fmt: skip
values = st.one_of(plain, st.lists(plain, max_size=3))
trees = st.recursive(
    st.dictionaries(text, values, max_size=3),
    lambda inner: st.dictionaries(
        text, st.one_of(values, inner, st.lists(inner, min_size=1, max_size=2)), max_size=3
    ),
    max_leaves=6,
)


@given(trees)
def test_a_tree_comes_back_as_it_was(tree: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tree)) == tree


def test_none_is_left_out_at_any_depth() -> None:
    assert tomllib.loads(to_toml({"a": None, "b": 1})) == {"b": 1}
    tree = {"a": {"b": None, "c": [{"d": None, "e": ("f", 1)}]}, "g": [], "h": {}}
    assert tomllib.loads(to_toml(tree)) == {"a": {"c": [{"e": ["f", 1]}]}, "g": [], "h": {}}


@pytest.mark.parametrize("value", [b"", [None], object(), {1, 2}])
def test_what_toml_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="not TOML serializable"):
        to_toml({"a": value})


def test_what_earlier_releases_wrote_reads_as_what_is_written_now() -> None:
    """They had a writer of their own: one line a list, no header for a table that only holds tables."""
    earlier = """\
models = ["ant", "bee"]
text = "a \\"quoted\\" one, \\u007f, \\t, \u00fc"
share = 0.5
n = 9007199254740991

[models-by-id."bee.q8"]
version = 20261128120000
is_held = false

[[files]]
name = "a"

[[files]]
name = "b"
"""
    tree = tomllib.loads(earlier)
    assert tree["text"] == 'a "quoted" one, \x7f, \t, \u00fc'
    assert tomllib.loads(to_toml(tree)) == tree
