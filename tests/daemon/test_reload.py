"""SIGHUP: what a running daemon takes over, and what it says needs a restart."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from edgeagent.daemon.reload import LIVE, SettingsChange, change
from edgeagent.settings import Settings
from edgeagent.settings.engine import EngineSettings
from edgeagent.settings.pool import PoolSettings
from edgeagent.settings.setting_names import FIELDS, TABLES
from tests.conftest import serving, wait_for

HERE = Settings(state_dir=Path("/s"))


@pytest.mark.parametrize(
    "new, expected",
    [
        ({}, SettingsChange((), ())),
        ({"log_level": "debug"}, SettingsChange(("log_level",), ())),
        ({"pool": PoolSettings(idle_unload_s=5)}, SettingsChange(("pool.idle_unload_s",), ())),
        (
            {"engine": EngineSettings(n_ctx=8192), "log_level": "error"},
            SettingsChange(("log_level",), ("engine.n_ctx",)),
        ),
    ],
)
def test_changes_are_told_apart(new, expected):
    assert change(HERE, HERE.model_copy(update=new)) == expected


def test_what_is_live_is_a_setting_or_a_table():
    assert set(LIVE) <= set(FIELDS) | TABLES


def test_a_daemon_takes_over_new_settings_and_goes_on_with_wrong_ones(tmp_path: Path):
    (tmp_path / "models").mkdir()
    with serving(tmp_path / "models", tmp_path / "state", preload=False) as daemon:
        wait_for(lambda: httpx.get(f"{daemon.url}/health").status_code == 200)

        def reload(text: str, *expected: str) -> None:
            daemon.config.write_text(text)
            before = daemon.log.stat().st_size
            daemon.process.send_signal(signal.SIGHUP)
            new = lambda: daemon.log.read_text()[before:]  # noqa: E731
            wait_for(lambda: all(words in new() for words in expected))

        given = daemon.config.read_text()
        reload(given, "reloaded changed=nothing")
        reload('log_level = "debug"\n' + given, "reloaded changed=log_level")
        changed = given.replace("n_seq = 8", "n_seq = 4")
        assert changed != given
        reload(changed, "restart_needed settings=engine.n_seq")
        reload(changed, "reloaded changed=nothing", "restart_needed settings=engine.n_seq")
        reload("n_sequences = 4\n", "reload_refused")
        assert httpx.get(f"{daemon.url}/health").status_code == 200
