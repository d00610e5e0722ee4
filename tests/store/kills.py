"""Kill a writing process at a random moment, open its store, count what is missing."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.store_key import Secret
from tests.store.conftest import SCHEMA, texts
from tests.store.writing import KEY

ROOT = Path(__file__).resolve().parents[2]
START_S = 1.5  # a process may be killed while it starts, recovers, migrates


@dataclass
class Tally:
    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    damaged: int = 0
    before_first_write: int = 0


@dataclass
class Campaign:
    """Kills on one folder: what was acknowledged before any of them must be there after each."""

    folder: Path
    rng: random.Random
    tally: Tally = field(default_factory=Tally)
    acknowledged: set[str] = field(default_factory=set)

    def kill_once(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.store.writing", str(self.folder), KEY, "8", "0", "FULL"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        first = self.rng.random() < 0.85
        lines = self._read_until_killed(child, wait_for_first_row=first)
        self.tally.kills += 1
        self.tally.before_first_write += not lines
        self.acknowledged.update(lines)
        self.tally.acknowledged += len(lines)
        self._check()

    def _read_until_killed(
        self, child: subprocess.Popen[bytes], *, wait_for_first_row: bool
    ) -> list[str]:
        assert child.stdout is not None
        begun = [child.stdout.readline()] if wait_for_first_row else []
        delay_s = self.rng.uniform(0, 0.25 if wait_for_first_row else START_S)
        timer = threading.Timer(delay_s, child.kill)
        timer.start()
        content = b"".join(begun) + child.stdout.read()  # ends with the process
        timer.join()
        child.wait()
        child.stdout.close()
        return [line.decode() for line in content.split(b"\n")[:-1]]

    def _check(self) -> None:
        secret = Secret(bytes.fromhex(KEY), "the test")
        with contextlib.closing(
            Database(self.folder, secret, StoreOptions(reserve_bytes=0), SCHEMA)
        ) as store:
            self.tally.damaged += len(store.notices)
            self.tally.lost += len(self.acknowledged - set(store.read(texts)))
