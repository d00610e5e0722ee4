"""Work in slices: as much of it in each step as there is time for, with a clock that is told."""

from __future__ import annotations

import pytest

from edgeagent.engine.batching.time_slices import Sliced, TimeSlice, finished


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def work(clock: Clock, n_pieces: int, piece_s: float = 1.0) -> Sliced[str]:
    for _ in range(n_pieces):
        clock.now_s += piece_s
        yield
    return "done"


@pytest.mark.parametrize(("n_pieces", "n_steps"), [(0, 1), (2, 1), (3, 2), (5, 2), (6, 3), (7, 3)])
def test_work_goes_on_from_step_to_step_until_it_is_done(n_pieces: int, n_steps: int):
    clock = Clock()
    slice_, going, n = TimeSlice(3.0, clock), work(clock, n_pieces), 0
    result = None
    while result is None:
        n += 1
        slice_.begin()
        result = slice_.go_on(going)
    assert (result, n) == ("done", n_steps)


def test_all_work_of_a_step_has_one_slice_and_each_piece_begins():
    clock = Clock()
    slice_ = TimeSlice(2.0, clock)
    slice_.begin()
    assert [slice_.go_on(work(clock, 9)) for _ in range(3)] == [None] * 3
    assert clock.now_s == 4.0, "two pieces of the first, one of each of the others"


def test_work_may_be_done_at_once():
    assert finished(work(Clock(), 100)) == "done"
