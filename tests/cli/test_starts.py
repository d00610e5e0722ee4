"""Starts that cannot work: one line on standard error that says why, exit status 2, no traceback."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import httpx
import pytest

from edgeagent.cli.serve import serve
from edgeagent.daemon.sockets import bind, listen
from edgeagent.errors import StartFailed
from tests.api.wire import exchange, post
from tests.cli.conftest import one_line
from tests.conftest import DaemonProcess, serving, wait_for

ASK = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


def test_a_port_in_use_is_named(edgeagent, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(edgeagent("serve", "--port", port, "--state-dir", tmp_path))
    assert str(port) in line and "--port" in line


def test_no_model_is_loaded_for_an_address_that_cannot_be_had(tmp_path: Path, monkeypatch):
    begun = []
    monkeypatch.setattr("edgeagent.daemon.early_worker.waiting", contextlib.nullcontext)
    monkeypatch.setattr("edgeagent.cli.serve_daemon.Preload", lambda *given: begun.append(given))
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartFailed, match="--port"),
    ):
        serve.main(
            ["--port", str(taken.getsockname()[1]), "--state-dir", str(tmp_path)],
            standalone_mode=False,
        )
    assert begun == []


def test_of_two_that_have_an_address_the_first_to_listen_keeps_it():
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", first.getsockname()[1]) as second:
        listen(second)
        with pytest.raises(StartFailed, match="cannot be listened on"):
            listen(first)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "8.8.8.8", "127.0.0.1.evil"]
)
def test_an_address_that_others_reach_is_refused_without_keys(edgeagent, tmp_path: Path, host):
    line = one_line(edgeagent("serve", "--host", host, "--port", 0, "--state-dir", tmp_path))
    assert host in line and "127.0.0.1" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 8484", "did you mean http.port"),
        ("port = 'many'", "port"),
        ("port = 99999", "99999"),
        ("port = ", "not valid TOML"),
        ("[port", "not valid TOML"),
        ("n_ctx = 1.5", "n_ctx"),
        ("allowed_hosts = 'one'", "allowed_hosts"),
        ("log_level = 'loud'", "log_level"),
        ("\udcff\udcfe", "cannot be read"),
    ],
)
def test_a_wrong_configuration_names_the_line_and_the_file(edgeagent, tmp_path: Path, text, said):
    config = tmp_path / "my.toml"
    config.write_bytes(text.encode(errors="surrogateescape"))
    for command in (["serve", "--port", 0], ["doctor"], ["models", "list"]):
        if command[0] == "serve" and "port" in text:
            command = ["serve"]
        line = one_line(edgeagent(*command, "--config", config, "--state-dir", tmp_path))
        assert said in line and "my.toml" in line


def test_a_configuration_that_is_not_there_is_an_error(edgeagent, tmp_path: Path):
    assert "gone.toml" in one_line(edgeagent("serve", "--config", tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EDGEAGENT_PROT", "1", "EDGEAGENT_HTTP__PORT"),
        ("EDGEAGENT_XYZZY", "1", "EDGEAGENT_XYZZY"),
        ("EDGEAGENT_PORT", "many", "EDGEAGENT_PORT"),
        ("EDGEAGENT_ALLOWED_HOSTS", "one", "allowed_hosts"),
    ],
)
def test_a_wrong_variable_is_named(edgeagent, tmp_path: Path, name, value, said):
    assert said in one_line(edgeagent("serve", "--state-dir", tmp_path, env={name: value}))


def test_a_missing_models_directory_leaves_the_daemon_up(tmp_path: Path):
    with serving(tmp_path / "gone", tmp_path / "state", preload=False) as daemon:
        reply = exchange(daemon.url, post("/v1/chat/completions", ASK))
        assert reply.status == 503 and "models install" in reply.error["message"]
        assert httpx.get(f"{daemon.url}/health").status_code == 200
        assert not (tmp_path / "gone").exists(), "nothing is made where somebody mistyped"


def test_without_a_model_the_log_says_how_to_get_one(tmp_path: Path):
    daemon = DaemonProcess(tmp_path / "gone", tmp_path / "state", {})
    try:
        wait_for(lambda: "no_model" in daemon.log.read_text())
    finally:
        daemon.stop()
    assert f"{tmp_path / 'gone'}" in daemon.log.read_text()


@pytest.mark.process
def test_a_models_directory_that_is_a_file_is_a_clear_error_of_every_command(
    edgeagent, tmp_path: Path, stories
):
    file = tmp_path / "models"
    file.write_text("no directory")
    commands = (
        ["models", "list"], ["models", "verify"], ["models", "remove", "x", "--yes"],
        ["models", "install", stories], ["doctor"], ["serve", "--port", 0],
    )  # fmt: skip
    for command in commands:
        assert str(file) in one_line(edgeagent(*command, "--models-dir", file))


def test_a_directory_that_cannot_be_written_is_a_clear_error(edgeagent, stories: Path):
    # Not even root can make anything in /proc.
    done = edgeagent("models", "install", stories, "--models-dir", "/proc/edgeagent")
    assert "/proc/edgeagent" in one_line(done)


def test_a_file_that_is_no_sound_model_is_a_503_and_the_others_serve(stories: Path, tmp_path: Path):
    models = tmp_path / "models"
    models.mkdir()
    whole = stories.read_bytes()
    bad = {
        "cut-in-half": whole[: len(whole) // 2],
        "cut-in-the-header": whole[:100],
        "text": b"this is no model",
        "empty": b"",
        "magic-and-noise": b"GGUF" + b"\xff" * 4096,
        "zeros": whole[:4] + bytes(len(whole) - 4),
    }
    for name, content in (bad | {"good": whole}).items():
        (models / f"{name}.gguf").write_bytes(content)
    with serving(models, tmp_path / "state", default_model="good") as daemon:
        for name in bad:
            for _ in range(2):
                asked = post("/v1/completions", {"model": name, "prompt": "Hi"})
                reply = exchange(daemon.url, asked)
                assert reply.status == 503, name
                assert reply.error["code"] in ("gguf_refused", "model_unusable"), name
                assert reply.headers["x-should-retry"] == "false", name
            body = {"model": "good", "prompt": "Once", "max_tokens": 2}
            assert exchange(daemon.url, post("/v1/completions", body)).status == 200, name
        assert daemon.process.poll() is None
        log = daemon.log.read_text()
    assert "Traceback" not in log


def test_a_model_whose_file_goes_away_is_no_500(stories: Path, tmp_path: Path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "brief.gguf").write_bytes(stories.read_bytes())
    with serving(models, tmp_path / "state", default_model="brief") as daemon:
        listed = httpx.get(f"{daemon.url}/v1/models").json()["data"]
        assert [m["id"] for m in listed if not m["id"].startswith("auto")] == ["brief"]
        (models / "brief.gguf").unlink()
        assert httpx.get(f"{daemon.url}/v1/models").status_code == 200
        assert httpx.get(f"{daemon.url}/v1/models/brief").status_code in (200, 404)


def test_a_broken_catalog_of_the_user_is_a_clear_error(edgeagent, tmp_path: Path):
    (tmp_path / "catalog.toml").write_text("[[model]\n")
    line = one_line(
        edgeagent("serve", "--port", 0, "--models-dir", tmp_path, "--state-dir", tmp_path)
    )
    assert "catalog.toml" in line


@pytest.mark.process
def test_old_names_of_settings_bring_one_warning_each(edgeagent, tmp_path: Path):
    config = tmp_path / "old.toml"
    config.write_text(f"n_seq = 3\nstate_dir = {json.dumps(str(tmp_path))}\n")
    done = edgeagent("doctor", "--config", config, "--json", env={"EDGEAGENT_N_CTX": "1024"})
    settings = json.loads(done.stdout)["settings"]
    assert settings["engine.n_seq"] == {"value": 3, "origin": str(config)}
    assert settings["engine.n_ctx"] == {"value": 1024, "origin": "EDGEAGENT_N_CTX"}
    assert done.stderr.splitlines() == [
        f"edgeagent: warning: {config}: n_seq is now called [engine] n_seq; the old name still works.",
        "edgeagent: warning: EDGEAGENT_N_CTX is now called EDGEAGENT_ENGINE__N_CTX; the old name still "
        "works.",
    ]


def test_a_configuration_of_the_first_release_starts_the_daemon(tmp_path: Path):
    config = tmp_path / "old.toml"
    config.write_text('preload = false\nn_seq = 3\nstore = "off"\nretention_content_days = 30\n')
    with serving(
        tmp_path / "models", tmp_path / "state", ["--config", str(config)], preload=False
    ) as daemon:
        assert httpx.get(f"{daemon.url}/health").status_code == 200
        log = daemon.log.read_text()
        assert log.count("warning: ") == 4 and "store is now called [store] enabled" in log
        assert not (tmp_path / "state" / "store").exists()


@pytest.mark.process
def test_doctor_shows_each_value_with_its_origin(edgeagent, tmp_path: Path):
    config = tmp_path / "my.toml"
    config.write_text(f"state_dir = {json.dumps(str(tmp_path))}\n[engine]\nn_seq = 3\n")
    done = edgeagent(
        "doctor", "--config", config, "--offline", env={"EDGEAGENT_ENGINE__N_CTX": "1024"}
    )
    rows = {line.split()[0]: line.rstrip() for line in done.stdout.splitlines() if line.strip()}
    assert "3" in rows["engine.n_seq"] and "my.toml" in rows["engine.n_seq"]
    assert "1024" in rows["engine.n_ctx"] and rows["engine.n_ctx"].endswith(
        "EDGEAGENT_ENGINE__N_CTX"
    )
    assert "True" in rows["offline"] and rows["offline"].endswith("flag")
    assert rows["engine.queue_limit"].endswith("default")
    assert "profile" in rows["engine.n_batch"]
    assert "is not installed" in done.stdout
