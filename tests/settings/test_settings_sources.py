"""Layers of settings: who wins, and where each value says it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import SettingsError
from edgeagent.settings import resolve
from edgeagent.settings.environment import listen_fds
from edgeagent.settings.setting_names import FIELDS


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "edgeagent.settings.settings_sources.SYSTEM_CONFIG", tmp_path / "system.toml"
    )


def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]):
    """n_seq from each of the named layers; the number is the layer's place in the order."""
    kwargs = {}
    if "profile" in names:
        kwargs["profile"] = ("pi5", {"engine.n_seq": 2})
    if "system" in names:
        (tmp_path / "system.toml").write_text("[engine]\nn_seq = 3")
    if "config" in names:
        (tmp_path / "own.toml").write_text("engine.n_seq = 4")
        kwargs["config"] = tmp_path / "own.toml"
    if "environment" in names:
        monkeypatch.setenv("EDGEAGENT_ENGINE__N_SEQ", "5")
    if "flag" in names:
        kwargs["flags"] = {"engine.n_seq": 6}
    return resolve(**kwargs)


@pytest.mark.parametrize(
    ("names", "value", "origin"),
    [
        ([], 8, "default"),
        (["profile"], 2, "profile pi5"),
        (["profile", "system"], 3, "system.toml"),
        (["profile", "system", "config"], 4, "own.toml"),
        (["profile", "config", "environment"], 5, "EDGEAGENT_ENGINE__N_SEQ"),
        (["profile", "config", "environment", "flag"], 6, "flag"),
        (["profile", "flag"], 6, "flag"),
    ],
)
def test_the_stronger_layer_wins_and_is_named(tmp_path, monkeypatch, names, value, origin):
    found = layers(tmp_path, monkeypatch, names)
    assert found.settings.engine.n_seq == value
    assert found.origins["engine.n_seq"].endswith(origin)
    assert found.origins["engine.n_batch"] == "default"
    assert set(found.origins) == set(FIELDS)


def test_a_flag_that_was_not_given_changes_nothing():
    found = resolve(flags={"port": None, "offline": False})
    assert found.settings.http.port == 8484 and found.origins["http.port"] == "default"
    assert found.origins["offline"] == "flag"


def test_lists_in_the_environment_are_json(monkeypatch):
    monkeypatch.setenv("EDGEAGENT_HTTP__ALLOWED_HOSTS", '["a.local", "b.local"]')
    assert resolve().settings.http.allowed_hosts == ["a.local", "b.local"]


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("EDGEAGENT_HTTP__PORT", "")
    assert resolve().settings.http.port == 8484


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"n_sq": 1}, "did you mean engine.n_seq"),
        ({"engine": {"n_sq": 1}}, "'engine.n_sq'"),
        ({"engine": {"n_sq": 1}}, "did you mean engine.n_seq"),
        ({"store": {"retention": {"content_dys": 1}}}, "did you mean store.retention.content_days"),
        ({"engin": {"n_seq": 1}}, "did you mean [engine]"),
        ({"engine": 5}, "write [engine]"),
        ({"store": {"retention": 5}}, "write [store.retention]"),
        ({"engine": {"n_seq": 0}}, "engine.n_seq = 0"),
        ({"engine": {"n_seq": "many"}}, "'many'"),
        ({"engine": {"n_seq": {"a": 1}}}, "engine.n_seq"),
        ({"worker": {"hang_timeout_s": float("nan")}}, "worker.hang_timeout_s"),
        ({"engine": {"queue_timeout_s": float("inf")}}, "engine.queue_timeout_s"),
        ({"http": {"host": ""}}, "http.host"),
        ({"http": {"allowed_hosts": [1]}}, "http.allowed_hosts"),
        ({"models": {"aliases": {"a": ""}}}, "models.aliases"),
        ({"routing": {"assistant_tools": 5}}, "routing.assistant_tools"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_layer(layer, said):
    with pytest.raises(SettingsError) as caught:
        resolve(profile=("pi5", layer))
    assert said in caught.value.message
    assert "profile pi5" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("EDGEAGENT_ENGINE__N_SQ", "did you mean EDGEAGENT_ENGINE__N_SEQ"),
        ("EDGEAGENT_N_SQ", "did you mean EDGEAGENT_ENGINE__N_SEQ"),
        ("EDGEAGENT_ENGINE", "Unknown variable EDGEAGENT_ENGINE;"),
    ],
)
def test_an_unknown_variable_is_an_error_with_the_nearest_name(monkeypatch, name, said):
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=said):
        resolve()


def test_names_of_variables_may_be_lower_case(monkeypatch):
    monkeypatch.setenv("edgeagent_http__port", "1234")
    assert resolve().settings.http.port == 1234


def test_settings_cannot_be_changed():
    for table in (resolve().settings, resolve().settings.http):
        with pytest.raises(ValueError, match="frozen"):
            table.port = 1


def test_models_live_in_the_state_directory_unless_told_otherwise(tmp_path: Path):
    assert (
        resolve(flags={"state_dir": tmp_path}).settings.effective_models_dir == tmp_path / "models"
    )
    flags = {"state_dir": tmp_path, "models_dir": tmp_path / "other"}
    assert resolve(flags=flags).settings.effective_models_dir == tmp_path / "other"


@pytest.mark.parametrize(
    ("pid", "fds", "count"),
    [("7", "2", 2), ("8", "2", 0), ("7", "x", 0), ("7", "-1", 0), ("", "1", 0)],
)
def test_inherited_sockets_are_for_the_process_they_name(monkeypatch, pid, fds, count):
    monkeypatch.setenv("LISTEN_PID", pid)
    monkeypatch.setenv("LISTEN_FDS", fds)
    assert listen_fds(7) == count


def test_a_file_without_end_is_no_configuration():
    with pytest.raises(SettingsError, match=r"/dev/zero has more than 1 MiB"):
        resolve(config=Path("/dev/zero"))
