"""Types under a bound on bytes, by table and against every possible choice."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.optimize.allocation import Budget, Option, allocate, allocate_within, hull


def options(*rows):
    return [Option(kind, n_bytes, cost) for kind, n_bytes, cost in rows]


def test_only_options_on_the_lower_hull_are_worth_their_bytes():
    rows = options(("a", 10, 8.0), ("b", 11, 7.9), ("c", 20, 1.0), ("d", 25, 2.0), ("e", 40, 0.5))
    assert [o.kind for o in hull(rows)] == ["a", "c", "e"]


def test_of_two_types_of_one_size_the_better_one_counts():
    assert [o.kind for o in hull(options(("a", 10, 3.0), ("b", 10, 2.0), ("c", 20, 1.0)))] == [
        "b",
        "c",
    ]


def test_bytes_go_where_they_save_most():
    tensors = {
        "small": options(("Q4", 4, 10.0), ("Q8", 8, 0.0)),
        "large": options(("Q4", 40, 10.0), ("Q8", 80, 0.0)),
    }
    found = allocate(tensors, 50)
    assert (
        found.kinds == {"small": "Q8", "large": "Q4"} and found.n_bytes == 48 and found.cost == 10
    )


def test_what_is_left_goes_to_an_exchange_that_fits():
    tensors = {"a": options(("Q4", 10, 9.0), ("Q5", 14, 8.5), ("Q8", 20, 0.0))}
    assert allocate(tensors, 15).kinds == {"a": "Q5"}  # Q5 is not on the hull


def test_a_bound_below_the_smallest_types_has_no_allocation():
    assert allocate({"a": options(("Q4", 10, 1.0))}, 9) is None


def test_two_bounds_are_both_kept():
    """Q5 is slow here: what the time does not allow becomes Q8, what the bytes do not becomes Q4."""
    rows = options(("Q4", 40, 9.0), ("Q5", 50, 3.0), ("Q8", 80, 1.0))
    tensors = dict.fromkeys("abcd", rows)
    speeds = {"Q4": 1.0, "Q5": 3.0, "Q8": 1.5}, dict.fromkeys("abcd", 0.25)
    kinds = {}
    for max_bytes, max_s in ((200, None), (None, 1.0), (200, 1.2), (330, 1.5), (200, 9.0)):
        budget = Budget(max_bytes, max_s, *speeds)
        found = allocate_within(tensors, budget)
        assert found is not None and budget.overshoot(found) <= 1
        kinds[max_bytes, max_s] = "".join(sorted(kind[1] for kind in found.kinds.values()))
    assert kinds == {
        (200, None): "5555", (None, 1.0): "4444", (200, 1.2): "4448", (330, 1.5): "8888", (200, 9.0): "5555",
    }  # fmt: skip
    assert allocate_within(tensors, Budget(200, 0.9, *speeds)) is None
    assert allocate_within(tensors, Budget(159, 9.0, *speeds)) is None
    assert allocate_within(tensors, Budget(-1, 9.0, *speeds)) is None


TENSORS = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 50)),
        min_size=1,
        max_size=4,
        unique_by=lambda x: x[0],
    ),
    min_size=1,
)


@settings(max_examples=60)
@given(TENSORS, st.integers(1, 120))
def test_no_choice_is_far_better_and_none_is_too_large(rows, bound):
    tensors = {
        name: options(*((str(i), *row) for i, row in enumerate(found)))
        for name, found in rows.items()
    }
    found = allocate(tensors, bound)
    choices = [
        sum(o.cost for o in chosen)
        for chosen in itertools.product(*tensors.values())
        if sum(o.n_bytes for o in chosen) <= bound
    ]
    if found is None:
        assert not choices
        return
    assert found.n_bytes <= bound
    # The relaxation loses at most one exchange of one tensor.
    assert found.cost <= min(choices) + max(o.cost for row in tensors.values() for o in row)
