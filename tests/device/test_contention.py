from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagent.device.contention import (
    TICKS_PER_S,
    CpuTimes,
    cores_taken,
    descendants,
    read_cpu_times,
    read_pressure,
)
from edgeagent.device.system_files import SystemFiles

STAT = """cpu  100 0 0 900 0 0 0 0 0 0
cpu0 {a} 0 0 500 7 0 0 0 0 0
cpu1 50 10 20 400 0 3 2 5 9 0
cpu2 7 7 7 7 7 7 7 7 7 7
intr 1 2 3
procs_running 5
"""
PROCESS = "42 (a (b) c) S 1 1 1 0 -1 4194560 0 0 0 0 {user} {system} 5 5 20 0 1 0 100 1 1"


@pytest.fixture
def tree(tmp_path: Path) -> SystemFiles:
    (tmp_path / "proc/42").mkdir(parents=True)
    (tmp_path / "proc/pressure").mkdir()
    (tmp_path / "proc/stat").write_text(STAT.format(a=100))
    (tmp_path / "proc/42/stat").write_text(PROCESS.format(user=30, system=12))
    return SystemFiles(tmp_path)


def test_only_our_cpus_count_and_stolen_time_is_busy(tree: SystemFiles):
    times = read_cpu_times(tree, [0, 1], [42, 43])
    assert times is not None
    assert times.busy_s == pytest.approx((100 + 50 + 10 + 20 + 3 + 2 + 5) / TICKS_PER_S)
    assert times.own_s == {42: pytest.approx(42 / TICKS_PER_S), 43: 0.0}


@pytest.mark.parametrize("text", ["", "cpu0 1 2\n", "cpu0 a b c d e f g h\n", "nothing\n"])
def test_a_file_that_is_missing_or_odd_says_nothing(tree: SystemFiles, text: str):
    tree.path("/proc/stat").write_text(text)
    assert read_cpu_times(tree, [0, 1], [42]) is None


def test_what_others_take_is_what_is_busy_without_ours():
    before = CpuTimes(100.0, {1: 10.0, 2: 5.0})
    after = CpuTimes(104.0, {1: 11.0, 3: 0.5})  # 2 has ended, 3 is new
    assert cores_taken(before, after, 2.0) == pytest.approx((4.0 - 1.0 - 0.5) / 2)
    assert cores_taken(before, CpuTimes(100.0, {1: 12.0}), 1.0) == 0.0


def test_pressure_is_the_average_of_ten_seconds(tree: SystemFiles):
    assert read_pressure(tree) is None
    tree.path("/proc/pressure/cpu").write_text(
        "some avg10=72.41 avg60=40.46 avg300=15.77 total=13\nfull avg10=1.00 avg60=0.00 total=0\n"
    )
    assert read_pressure(tree) == 72.41
    tree.path("/proc/pressure/cpu").write_text("some avg10=x\n")
    assert read_pressure(tree) is None


def test_this_machine_shows_our_own_time():
    times = read_cpu_times(SystemFiles(Path("/")), os.sched_getaffinity(0), [os.getpid()])
    assert times is not None and 0 < times.own_s[os.getpid()] <= times.busy_s


def test_children_of_every_thread_and_theirs_are_ours(tree: SystemFiles):
    for thread, children in (
        ("1/task/1", "2 3 "),
        ("1/task/9", "4 "),
        ("3/task/3", "5 x 3 "),
        ("4/task/4", ""),
    ):
        folder = tree.path(f"/proc/{thread}")
        folder.mkdir(parents=True)
        (folder / "children").write_text(children)
    assert descendants(tree, 1) == {2, 3, 4, 5}
    assert descendants(tree, 77) == set()


@pytest.mark.process
def test_a_process_that_this_one_has_started_is_among_its_descendants():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in descendants(SystemFiles(Path("/")), os.getpid())
    finally:
        child.communicate(b"\n")
