"""Backups when they are due, and caches that forget what the command line erased."""

from __future__ import annotations

import os
from pathlib import Path

from edgeagent.settings import Settings, resolve
from edgeagent.store import client_deletion, conversations, database, journal
from edgeagent.store.data_lifecycle import DataLifecycle
from edgeagent.store.database import open_store
from tests.commands import run_here
from tests.conftest import SHALLOW, serving, wait_for

LONG = "The harbour ferry leaves at nine, at noon and at six, except on Sundays. " * 4


def settings_in(state: Path, **values: object) -> Settings:
    return resolve(flags={"state_dir": state} | values).settings


async def test_a_backup_is_taken_when_the_newest_is_too_old_or_from_the_future(tmp_path: Path):
    settings = settings_in(tmp_path / "state", store_backup_hours=24)
    with open_store(settings) as store:
        lifecycle = DataLifecycle(store, settings)
        for n, age_s in ((1, None), (1, 3600), (2, 25 * 3600), (3, -3600)):
            if age_s is not None:
                newest = store.backups.listed()[-1].path
                stamp = newest.stat().st_mtime - age_s
                os.utime(newest, (stamp, stamp))
            lifecycle._back_up()
            assert len(store.backups.listed()) == n, age_s
            if age_s is not None:
                os.utime(newest)


async def test_a_long_journal_is_cut_once_no_backup_needs_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(journal, "MOST_ENTRIES", 2)
    monkeypatch.setattr(database, "LONG_ENTRIES", 4)
    settings = settings_in(tmp_path / "state", store_backup_hours=24, store_backups=2)
    with open_store(settings) as store:
        lifecycle = DataLifecycle(store, settings)
        lifecycle._back_up()
        for _ in range(5):
            made = store.write(
                lambda db: conversations.create(db, "ann", metadata={}, now_ms=1)
            ).result()
            client_deletion.delete(
                store, client_deletion.DeletionTarget("conversation", made["id"], "ann")
            )
        for n_backups, n_entries in ((2, 5), (2, 0), (2, 0)):
            lifecycle._back_up()
            assert len(store.backups.listed()) == n_backups
            assert len(store.journal.read().entries) == n_entries
        assert store.backups.listed()[-1].number == 3, "no more than that needs"


async def test_no_backup_is_taken_where_none_is_wanted(tmp_path: Path):
    settings = settings_in(tmp_path / "state", store_backup_hours=0)
    with open_store(settings) as store:
        DataLifecycle(store, settings)._back_up()
        assert store.backups.listed() == []


def test_engines_forget_what_the_command_line_has_erased(shallow_dir: Path, tmp_path: Path):
    state = tmp_path / "state"
    with serving(shallow_dir, state) as daemon, daemon.client() as client:

        def n_cached() -> int:
            made = client.chat.completions.create(
                model=SHALLOW,
                messages=[{"role": "user", "content": LONG}],
                max_tokens=2,
                store=True,
            )
            return made.usage.prompt_tokens_details.cached_tokens

        n_cached()
        assert n_cached() > 50
        done = run_here("data", "erase", "--owner", "local", "--yes", "--state-dir", state)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: "prefixes_forgotten" in daemon.log.read_text())
        assert n_cached() == 0
