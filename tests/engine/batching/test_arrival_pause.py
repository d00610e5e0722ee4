"""How long a step waits for requests that come with those that are there."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.arrival_pause import LONGEST_S, ArrivalPause

L = LONGEST_S


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # the time, whether others are being prepared, whether the step may wait
        ([(0, False, True)], [0]),
        ([(0, True, False)], [0]),  # a client waits for its next token
        ([(0, True, True), (L / 4, True, True), (L / 2, False, True)], [L, 3 * L / 4, 0]),
        ([(0, True, True), (L, True, True), (3 * L, True, True)], [L, 0, 0]),  # they come all the time
        ([(0, True, True), (L, False, True), (2 * L, True, True)], [L, 0, L]),
    ],
)  # fmt: skip
def test_a_step_waits_for_requests_that_are_being_prepared_but_not_for_long(asked, expected):
    now_s, is_preparing = 0.0, False
    pause = ArrivalPause(lambda: is_preparing, lambda: now_s)
    found = []
    for now_s, is_preparing, may_wait in asked:  # noqa: B007 - read by the two functions
        found.append(pause.seconds(may_wait=may_wait))
    assert found == pytest.approx(expected)
