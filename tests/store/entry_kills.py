"""Kill a process that changes who may enter, and see who enters then; also with an older database."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from edgeagent.errors import StoreLocked
from edgeagent.store.database import Database
from edgeagent.store.keyring import Keyring
from tests.store.entering import opened
from tests.store.kills import ROOT
from tests.store.writing import KEY


@dataclass
class Tally:
    kills: int = 0
    acknowledged: int = 0
    revived_keys: int = 0
    lost_keys: int = 0
    revived_rows: int = 0
    lost_rows: int = 0
    open_or_locked: int = 0


@dataclass
class Campaign:
    """Kills on one state directory. `older`: a copy of its database, to be put back after each."""

    state: Path
    rng: random.Random
    tally: Tally = field(default_factory=Tally)
    keys: dict[str, str] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    older: Path | None = None

    def kill_once(self) -> None:
        seed = str(self.rng.getrandbits(30))
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.store.entering", str(self.state), KEY, seed],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        first = child.stdout.readline()
        timer = threading.Timer(self.rng.uniform(0, 0.4), child.kill)
        timer.start()
        text = first + child.stdout.read()
        timer.join()
        child.wait()
        child.stdout.close()
        assert child.returncode == -9, f"it ended by itself with {child.returncode}"
        self.tally.kills += 1
        for line in text.split("\n")[:-1]:
            self._hear(*line.split())
        self._check(is_older=False)
        if self.older is not None:
            self._check_older(self.older)
        elif self.keys:
            self.older = self.state.with_name("older.db")
            shutil.copy(self.state / "store" / "edgeagent.db", self.older)

    def _hear(self, what: str, *words: str) -> None:
        self.tally.acknowledged += 1
        if what == "key":
            self.keys[words[0]] = words[1]
        else:
            {"revoked": self.revoked, "erased": self.erased, "kept": self.kept}[what].add(words[0])

    def _check_older(self, older: Path) -> None:
        """The same with the oldest database in the place of the newest, on a copy of the directory."""
        now, self.state = self.state, self.state.with_name("copy")
        shutil.copytree(now, self.state)
        for name in ("edgeagent.db-wal", "edgeagent.db-shm"):
            (self.state / "store" / name).unlink(missing_ok=True)
        shutil.copy(older, self.state / "store" / "edgeagent.db")
        self._check(is_older=True)
        shutil.rmtree(self.state)
        self.state = now

    def _check(self, *, is_older: bool) -> None:
        with opened(self.state, KEY) as (store, keyring):
            for key_id, secret in self.keys.items():
                entered = self._enters(keyring, secret)
                self.tally.revived_keys += entered and key_id in self.revoked
                if not entered and not is_older and key_id not in self.revoked:
                    # Ended, and killed before that was acknowledged: counted once.
                    self.tally.lost_keys += 1
                    self.revoked.add(key_id)
            self.tally.open_or_locked += self._enters(keyring, None)
            there = self._owners(store)
        self.tally.revived_rows += len(there & self.erased)
        if not is_older:
            self.tally.lost_rows += len(self.kept - there)

    def _enters(self, keyring: Keyring, secret: str | None) -> bool:
        try:
            return keyring.caller(secret, is_exposed=False) is not None
        except StoreLocked:
            self.tally.open_or_locked += 1
            return False

    @staticmethod
    def _owners(store: Database) -> set[str]:
        sql = "select owner from conversation"
        return {row[0] for row in store.read(lambda db: db.execute(sql).fetchall())}
