"""`edgeagent keys` as somebody at the device uses it, and the addresses that keys open."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from edgeagent.cli.main import main
from edgeagent.types.caller import ALL_SCOPES
from tests.api.wire import exchange, request
from tests.cli.conftest import one_line
from tests.conftest import serving

DAY_S = 86_400


@pytest.fixture
def keys(tmp_path: Path, monkeypatch, capsys):
    """`edgeagent keys` with the exit status and output of the command, in this process for speed."""

    def keys(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = ["edgeagent", "keys", *map(str, arguments), "--state-dir", str(tmp_path / "state")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return subprocess.CompletedProcess(words, int(code or 0), *capsys.readouterr())

    return keys


def made(keys, *options: object) -> dict:
    done = keys("create", "--name", "ward 7", "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_secret_alone_is_on_standard_output(keys, tmp_path: Path):
    done = keys("create", "--name", "ward 7")
    assert done.stdout.startswith("ea_") and len(done.stdout.split()) == 1
    assert "not shown again" in done.stderr and "first key" in done.stderr
    listed = keys("list").stdout
    assert "ward 7" in listed and "live" in listed and "never" in listed
    assert done.stdout.strip() not in listed and f"...{done.stdout.strip()[-4:]}" in listed
    assert "first key" not in keys("create", "--name", "second").stderr
    database = tmp_path / "state" / "store" / "edgeagent.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_options_arrive_in_the_key(keys):
    key = made(
        keys, "--scopes", "chat, data", "--owner", "ward-7", "--expires", "90d", "--tool", "lamp",
        "--requests-per-minute", 30, "--concurrency", 2, "--tokens-per-minute", 9000, "--tool", "door",
        "--audio-seconds-per-day", 3600,
    )  # fmt: skip
    assert key["scopes"] == ["chat", "data"] and key["owner"] == "ward-7"
    assert key["tools"] == ["door", "lamp"]
    assert key["limits"] == {
        "requests_per_minute": 30, "concurrency": 2, "tokens_per_minute": 9000,
        "audio_seconds_per_day": 3600,
    }  # fmt: skip
    assert key["expires_at"] == pytest.approx(time.time() + 90 * DAY_S, abs=60)
    (listed,) = json.loads(keys("list", "--json").stdout)
    assert listed == {name: value for name, value in key.items() if name != "secret"}
    shown = keys("list").stdout
    assert "30 requests per minute, 2 concurrency, 9000 tokens per minute" in shown


def test_a_key_is_rotated_revoked_and_forgotten(keys):
    key = made(keys)
    done = keys("rotate", key["id"], "--grace", "1h", "--json")
    new = json.loads(done.stdout)
    assert new["id"] != key["id"] and new["secret"] != key["secret"] and "ends" in done.stderr
    assert new["owner"] == key["owner"]
    again = keys("rotate", new["id"], "--json")
    assert "is revoked" in again.stderr
    newest = json.loads(again.stdout)
    assert "has been revoked since" in keys("revoke", newest["id"]).stdout
    states = {row["id"]: row["state"] for row in json.loads(keys("list", "--json").stdout)}
    assert states == {key["id"]: "live", new["id"]: "revoked", newest["id"]: "revoked"}
    assert "revoke it first" in one_line(keys("forget", key["id"]))
    keys("revoke", key["id"])
    for key_id in states:
        done = keys("forget", key_id)
    assert "It was the last" in done.stderr
    assert "There is no key" in keys("list").stdout


def test_a_sealed_key_has_every_scope_and_belongs_into_an_envelope(keys):
    done = keys("create", "--name", "envelope", "--break-glass")
    assert "envelope" in done.stderr and done.stdout.startswith("ea_")
    (key,) = json.loads(keys("list", "--json").stdout)
    assert key["is_break_glass"] and set(key["scopes"]) == ALL_SCOPES
    assert "live sealed" in keys("list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--name", "x", "--scopes", "chat,root"], "'root'"),
        (["create", "--name", "x", "--scopes", ""], "at least one scope"),
        (["create", "--name", ""], "name"),
        (["create", "--name", "x", "--owner", "a b"], "'a b'"),
        (["create", "--name", "x", "--tool", "a b"], "tool"),
        (["revoke", "key_x"], "key_x"),
        (["rotate", "key_x"], "key_x"),
        (["forget", "key_x"], "key_x"),
    ],
)
def test_what_cannot_be_is_one_line(keys, arguments, said):
    assert said in one_line(keys(*arguments))
    assert "There is no key" in keys("list").stdout


@pytest.mark.parametrize(
    "arguments",
    [["create"], ["create", "--name", "x", "--expires", "90"], ["revoke"],
     ["create", "--name", "x", "--expires", "11y"], ["create", "--name", "x", "--concurrency", 0]],
)  # fmt: skip
def test_a_wrong_command_line_says_how_it_goes(keys, arguments):
    done = keys(*arguments)
    assert done.returncode == 2 and "--help" in done.stderr


def test_our_own_commands_send_the_key_of_the_environment(edgeagent, keys, tmp_path: Path):
    with serving(tmp_path / "models", tmp_path / "state", preload=False) as daemon:
        port = daemon.url.rpartition(":")[2]
        config = tmp_path / "port.toml"
        config.write_text(f"http.port = {port}\n")

        def said(*words: str, **env: str) -> str:
            return one_line(edgeagent(*words, "--config", config, env=env))

        key = made(keys, "--scopes", "models,chat")
        for words in (("models", "load", "x"), ("chat", "Hi")):
            assert "EDGEAGENT_API_KEY" in said(*words)
            assert "API_KEY" not in said(*words, EDGEAGENT_API_KEY=key["secret"])


# ---- addresses that others can reach


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (None, "keys create"),
        (["--break-glass"], "keys create"),  # none for daily work
        ([], "allow_plain_http"),
    ],
)
def test_another_address_needs_a_live_key_and_a_word_about_plain_http(
    edgeagent, keys, tmp_path: Path, options, said
):
    if options is not None:
        made(keys, *options)
    plain = {} if options == [] else {"EDGEAGENT_HTTP__ALLOW_PLAIN_HTTP": "true"}
    serve = ("serve", "--host", "0.0.0.0", "--port", 0, "--state-dir", tmp_path / "state")
    assert said in one_line(edgeagent(*serve, env=plain))


def test_with_both_the_daemon_listens_and_asks_everybody_for_a_key(keys, tmp_path: Path):
    key = made(keys)
    with serving(
        tmp_path / "models",
        tmp_path / "state",
        preload=False,
        host="0.0.0.0",
        allow_plain_http=True,
    ) as daemon:
        url = daemon.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        header = {"Authorization": f"Bearer {key['secret']}"}
        assert httpx.get(f"{url}/v1/models", headers=header).status_code == 200
        keys("revoke", key["id"])
        keys("forget", key["id"])
        reply = exchange(url, request("GET", "/v1/models"))
        assert reply.status == 401, "without any key an exposed daemon has no local owner"


def test_an_inherited_address_counts_as_one_that_was_asked_for(tmp_path: Path):
    from edgeagent.daemon.sockets import addresses

    with socket.create_server(("0.0.0.0", 0)) as everywhere, socket.create_server(
        ("127.0.0.1", 0)
    ) as here, socket.socket(socket.AF_UNIX) as unix:  # fmt: skip
        unix.bind(str(tmp_path / "socket"))
        assert addresses([everywhere, here, unix]) == ["0.0.0.0", "127.0.0.1", "localhost"]
    assert addresses([]) is None


def test_a_lost_database_is_said_and_access_reset_on_the_device(keys, tmp_path: Path):
    made(keys)
    assert "is not locked" in keys("reset-access", "--yes").stderr
    (tmp_path / "state" / "store" / "edgeagent.db").unlink()
    refused = keys("create", "--name", "silently")
    assert refused.returncode == 2 and "reset-access" in refused.stderr
    asked = keys("reset-access")
    assert asked.returncode == 2 and "--yes" in asked.stderr
    done = keys("reset-access", "--yes")
    assert done.returncode == 0 and done.stdout.startswith("ea_")
    assert "API keys were made" in done.stderr and "Access is reset" in done.stderr
    listed = json.loads(keys("list", "--json").stdout)
    assert [(key["name"], set(key["scopes"])) for key in listed] == [("administrator", ALL_SCOPES)]
    assert made(keys)["name"] == "ward 7"


def test_the_clock_is_accepted(keys):
    made(keys, "--expires", "1h")
    done = keys("accept-clock")
    assert done.returncode == 0 and "latest accepted time was 20" in done.stdout


def test_a_bootstrap_key_file_opens_a_new_device(tmp_path: Path):
    path, models = tmp_path / "first.key", tmp_path / "models"
    models.mkdir()
    with serving(
        models, tmp_path / "state", ["--bootstrap-key-file", str(path)], preload=False
    ) as daemon:
        secret = path.read_text().strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert httpx.get(f"{daemon.url}/v1/models").status_code == 401
        reply = httpx.get(f"{daemon.url}/admin/keys", headers={"Authorization": f"Bearer {secret}"})
        assert [key["name"] for key in reply.json()["data"]] == ["bootstrap"]
        assert secret not in daemon.log.read_text()
