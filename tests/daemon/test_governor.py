"""The governor on a made tree of /proc and /sys, with a pool that has no workers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from edgeagent.daemon.governor import Governor, headroom_c
from edgeagent.device.thermal import Thermal, Trip, Zone
from edgeagent.pool.cores import CoreShares
from edgeagent.settings.governor import GovernorSettings
from tests.conftest import wait_for


class Tree:
    """The files that a governor reads; time is what `at_s` says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.at_s = 0.0
        self._ticks = 0.0
        for folder in (
            "proc/pressure",
            "sys/class/thermal/thermal_zone0",
            "sys/class/power_supply",
        ):
            (root / folder).mkdir(parents=True)
        self.heat(40)
        self.go_on(0.0)

    def heat(self, temp_c: float) -> None:
        zone = self.root / "sys/class/thermal/thermal_zone0"
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text(f"{round(1000 * temp_c)}\n")

    def go_on(self, seconds: float, cores_taken: float = 0.0) -> None:
        """Let time pass in which other programs use so many cores."""
        self.at_s += seconds
        self._ticks += seconds * cores_taken * os.sysconf("SC_CLK_TCK")
        first, *others = sorted(os.sched_getaffinity(0))
        lines = [f"cpu{first} {round(self._ticks)} 0 0 0 0 0 0 0 0 0"]
        lines += [f"cpu{cpu} 0 0 0 0 0 0 0 0 0 0" for cpu in others]
        (self.root / "proc/stat").write_text("\n".join(lines) + "\n")


class IdlePool:
    def __init__(self) -> None:
        self.cores = CoreShares(4, list)
        self.is_busy = True


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def governor(tree: Tree, pool: IdlePool, **settings) -> Governor:
    return Governor(pool, GovernorSettings(**settings), 4, tree.root, lambda: tree.at_s)


async def test_programs_beside_us_and_heat_reach_the_pool_and_go_again(tree: Tree):
    pool = IdlePool()
    governs = governor(tree, pool)
    assert not (await governs.sample()).reasons, "nothing is known from a single reading"
    tree.go_on(1.0, cores_taken=2.0)
    await governs.sample()
    assert pool.cores.throttle.reasons == ("contention",)
    assert pool.cores.throttle.n_cores_taken == 2
    tree.go_on(3.0, cores_taken=2.0)
    tree.heat(79)
    await governs.sample()
    assert pool.cores.throttle.reasons == ("contention", "heat")
    assert pool.cores.throttle.n_threads == 3
    tree.heat(50)
    tree.go_on(30.0)
    for n_cores_taken in (1, 1, 0):
        assert (await governs.sample()).n_cores_taken == n_cores_taken
        tree.go_on(1.0)
    assert not pool.cores.throttle.reasons


async def test_it_watches_while_there_is_work_and_ends_with_it(tree: Tree, monkeypatch):
    for name in ("SOON_S", "WORKING_S", "COOLING_S"):
        monkeypatch.setattr(f"edgeagent.daemon.governor.{name}", 0.001)
    pool = IdlePool()
    governs = governor(tree, pool)
    governs.wake()
    watch = governs._task
    assert watch is not None
    tree.heat(79)
    await asyncio.to_thread(wait_for, lambda: pool.cores.throttle.reasons == ("heat",))
    pool.is_busy = False
    tree.go_on(60.0)
    assert not watch.done(), "it cools first"
    tree.heat(40)
    await asyncio.to_thread(wait_for, watch.done)
    assert not pool.cores.throttle.reasons
    governs.wake()
    assert governs._task is not watch
    await governs.close()
    await governs.close()
    governs.wake()
    assert governs._task.done()


async def test_turned_off_it_reads_nothing(tree: Tree):
    governs = governor(tree, IdlePool(), enabled=False)
    governs.wake()
    assert governs._task is None


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ([], None),
        ([("cpu-thermal", 60.0, [])], 20.0),
        ([("cpu-thermal", 60.0, [("passive", 85.0), ("critical", 110.0)])], 25.0),
        ([("cpu-thermal", 60.0, [("critical", 110.0)])], 20.0),
        ([("iwlwifi", 79.0, []), ("x86_pkg_temp", 50.0, [])], 30.0),
        ([("acpitz", 90.0, [("passive", 95.0), ("passive", 92.0)]), ("cpu", 50.0, [])], 2.0),
        ([("cpu", None, [("passive", 85.0)])], None),
    ],
)
def test_degrees_below_the_limit(zones, expected):
    thermal = Thermal(
        tuple(
            Zone("zone", kind, temp_c, tuple(Trip(*trip) for trip in trips))
            for kind, temp_c, trips in zones
        )
    )
    assert headroom_c(thermal, max_temp_c=80.0) == expected


async def test_a_model_that_is_loading_is_no_other_program(tree: Tree):
    """Its worker is a child of the daemon before the pool knows its number."""
    loading = 4242
    task = tree.root / f"proc/{os.getpid()}/task/{os.getpid()}"
    task.mkdir(parents=True)
    (task / "children").write_text(f"{loading} ")
    stat = tree.root / f"proc/{loading}/stat"
    stat.parent.mkdir()
    second = os.sysconf("SC_CLK_TCK")
    pool = IdlePool()
    governs = governor(tree, pool)
    for used_s in (0, 3):
        fields = [*["0"] * 11, str(used_s * second), "0", *["0"] * 5]
        stat.write_text(f"{loading} (python) {' '.join(fields)}\n")
        tree.go_on(1.5 if used_s else 0.0, cores_taken=2.0)
        await governs.sample()
    assert pool.cores.throttle.reasons == ()
