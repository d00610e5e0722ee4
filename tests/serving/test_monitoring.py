"""What the gauges of the daemon are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeagent.pool.resident_model import Resident
from edgeagent.serving.monitoring import model_gauges, store_bytes
from edgeagent.store.database_files import StoreFiles
from edgeagent.types.engine_config import EngineHealth
from edgeagent.worker.breaker import Breaker


def test_every_folder_of_a_store_counts(tmp_path: Path):
    files = StoreFiles(tmp_path)
    for n, folder in enumerate((files.backups, files.prefixes, files.recordings, files.quarantine)):
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"x" * (n + 1))
    found = store_bytes(files)
    assert (found["backups"], found["prefixes"], found["recordings"]) == (1, 2, 3)
    assert found["quarantine"] == 4
    assert sum(found.values()) == 10


class Worker:
    """The client of a worker, as the gauges read it."""

    is_alive = True

    def __init__(self, health: EngineHealth) -> None:
        self.health = health


def test_counts_of_a_model_go_on_when_its_worker_is_another():
    resident = Resident("a", Breaker(3, 60.0))
    first: Any = Worker(EngineHealth(n_preempted=1, n_drafted=9, n_accepted=7))
    second: Any = Worker(EngineHealth(n_preempted=2, n_drafted=30, n_accepted=20))
    resident.client = first
    assert model_gauges(resident).n_drafted == 9
    resident.let_go()
    shown = model_gauges(resident)
    assert (shown.n_preempted, shown.n_drafted, shown.n_accepted) == (1, 9, 7)
    resident.client = second
    shown = model_gauges(resident)
    assert (shown.n_preempted, shown.n_drafted, shown.n_accepted) == (3, 39, 27)
