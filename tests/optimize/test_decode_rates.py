"""Which timed runs count where others are busy, what is predicted, and what stays of a failed search."""

from __future__ import annotations

import os
import time

import pytest

from edgeagent.device.system_files import SystemFiles
from edgeagent.errors import InvalidParameter
from edgeagent.optimize import quietness
from edgeagent.optimize.decode_rates import (
    DecodeRate,
    decode_rate,
    is_enough,
    n_within,
    predictions,
)
from edgeagent.optimize.figures import RunFigures
from edgeagent.optimize.quietness import LoadWatch
from edgeagent.optimize.work_folder import work_folder


def run(rate, others):
    return RunFigures(10, 1, 100, rate / 2, 5, rate, others)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([run(10, None), run(30, 0.0), run(20, 0.1)], DecodeRate(30, 0.0)),
        ([run(30, 0.0), run(40, 1.5), run(10, 2.0)], DecodeRate(30, 0.0)),
        ([run(12, 2.0), run(20, 1.5), run(10, 2.0)], DecodeRate(20, 1.5)),
    ],
)
def test_quiet_runs_count_and_else_the_best_one(runs, expected):
    assert decode_rate(runs) == expected


@pytest.mark.parametrize(
    ("others", "n_runs"),
    [
        ([0, 0, 0, 0], 3),
        ([0, 1, 0, 1, 1, 0], 5),
        ([1, 0, 1, 0, 1, 0], 6),
        ([1, 1, 0], 2),
        ([0, None, 1, 0], 4),
    ],
)
def test_a_machine_that_stays_busy_is_not_waited_for(others, n_runs):
    runs = [run(10, one) for one in others]
    assert next(n for n in range(len(runs) + 1) if is_enough(runs[:n])) == n_runs


def test_predictions_learn_the_pace_from_what_was_timed_before():
    quiet = [DecodeRate(rate, 0.0) for rate in (5.0, 12.0, 7.0, 20.0)]
    assert predictions([10.0, 20.0, None, 40.0], quiet) == [10.0, 15.0, None, 24.0]
    assert n_within([10.0, 10.0, None, 21.0], [DecodeRate(5.0, 0.0), *quiet[1:]]) == (2, 3)
    beside = [DecodeRate(1.0, 1.2), *quiet[1:]]
    assert predictions([10.0, 20.0, None, 40.0], beside) == [10.0, 20.0, None, 32.0]
    assert n_within([10.0, 10.0, None, 21.0], beside) == (2, 2)


def test_what_others_use_is_told_from_what_we_use(tmp_path, monkeypatch):
    proc = tmp_path / "proc"
    own = proc / "77"
    own.mkdir(parents=True)
    monkeypatch.setattr(os, "getpid", lambda: 77)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    clock = iter((0.0, 2.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))

    def write(busy, ours):
        (proc / "stat").write_text(f"cpu 0\ncpu0 {busy} 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n")
        (own / "stat").write_text(f"77 (x) S {'0 ' * 10}{ours} 0 0 0\n")

    write(100, 50)
    watch = LoadWatch(SystemFiles(tmp_path))
    write(400, 250)
    assert watch.others_cores() == pytest.approx(0.5)  # (300 - 200) ticks in 2 s
    assert not quietness.is_quiet(0.5) and quietness.is_quiet(None) and quietness.is_quiet(0.1)


@pytest.mark.parametrize("measured", [0, 1])
def test_the_work_of_a_failed_search_stays_only_where_something_was_measured(tmp_path, measured):
    with pytest.raises(InvalidParameter), work_folder(tmp_path / "a/b") as work:
        (work / "journal.jsonl").write_text("about\n" + measured * "one\n")
        raise InvalidParameter("no")
    assert (tmp_path / "a").exists() == bool(measured)
    (tmp_path / "kept").mkdir()
    with pytest.raises(InvalidParameter), work_folder(tmp_path / "kept"):
        raise InvalidParameter("no")
    assert (tmp_path / "kept").exists() and not list((tmp_path / "kept").iterdir())
