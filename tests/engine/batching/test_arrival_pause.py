"""How long a step waits for requests that come with those that are there."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.arrival_pause import GROUP_S, LINGER_S, LONGEST_S, ArrivalPause

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


@pytest.mark.parametrize(
    ("arrivals", "asked_s", "expected"),
    [
        ([0], 0.001, 0),  # a client that is alone
        ([0, 1, 2], 2.001, 0),
        ([0, 0.004], 0.005, LINGER_S - 0.001),
        ([0, 0.004], 0.004 + LINGER_S, 0),
        ([0, 0.004, 3], 3.002, LINGER_S - 0.002),  # the last ones came in a group
        ([0, 0.004, 3, 6], 6.002, 0),
        ([0, GROUP_S + 0.01], GROUP_S + 0.011, 0),
    ],
)
def test_a_step_waits_for_one_more_where_requests_come_in_groups(arrivals, asked_s, expected):
    now_s = 0.0
    pause = ArrivalPause(lambda: False, lambda: now_s)
    for now_s in arrivals:  # noqa: B007 - read by the clock
        pause.arrive()
    now_s = asked_s
    assert pause.seconds(may_wait=True) == pytest.approx(expected)
    assert pause.seconds(may_wait=False) == 0


def test_a_group_that_does_not_end_is_not_waited_for():
    now_s, waited_s = 0.0, 0.0
    pause = ArrivalPause(lambda: False, lambda: now_s)
    pause.arrive()
    for _ in range(50):
        now_s += 0.004
        pause.arrive()
        step_s = min(0.004, pause.seconds(may_wait=True))
        waited_s += step_s
    assert waited_s <= LONGEST_S + 0.004
