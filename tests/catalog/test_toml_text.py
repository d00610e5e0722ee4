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


def test_none_is_left_out_and_other_things_are_refused() -> None:
    assert to_toml({"a": None, "b": 1}) == "b = 1\n"
    with pytest.raises(TypeError, match="bytes has no form"):
        to_toml({"a": b""})
