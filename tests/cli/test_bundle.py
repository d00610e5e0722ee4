"""From the key to the device, with the commands that a person types."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeagent.catalog.bundles.signing import load_public_key, make_key_pair
from edgeagent.cli.bundle import profile_name, profile_text
from edgeagent.device.profile_files import load, load_all, parse
from edgeagent.settings import Settings
from tests.commands import run_here as edgeagent


@pytest.mark.parametrize("name", sorted(load_all()))
def test_every_shipped_profile_travels_unchanged(name: str, tmp_path: Path) -> None:
    text = profile_text(Settings(state_dir=tmp_path), name)
    assert parse(text, "profile.toml") == msgspec.structs.replace(load(name), based_on=None)
    assert profile_name(text, "profile.toml") == name


@pytest.fixture
def made(stories_dir: Path, tmp_path: Path) -> Path:
    """out.eab with stories260k, the profile of a Pi 5 and a wheel; its keys beside it."""
    assert edgeagent("bundle", "keys", "signing", "--out", tmp_path / "keys").returncode == 0
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "agent-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    done = edgeagent(
        "bundle", "create", "--profile", "pi5-8gb", "--models", "stories260k", "--wheels", wheels,
        "--models-dir", stories_dir, "--sign-key", tmp_path / "keys" / "bundle.key",
        tmp_path / "out.eab",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"minisign -Vm {tmp_path / 'out.eab'} -p " in done.stdout
    return tmp_path / "out.eab"


@pytest.mark.process
def test_a_bundle_travels_from_one_machine_to_another(made: Path, tmp_path: Path) -> None:
    state = tmp_path / "device"
    public = tmp_path / "keys" / "bundle.pub"
    refused = edgeagent("bundle", "install", made, "--state-dir", state)
    assert refused.returncode == 2
    assert "is not trusted here" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not state.exists()

    assert edgeagent("bundle", "keys", "trust", public, "--state-dir", state).returncode == 0
    key_id = public.read_text().split()[6].lower()
    assert key_id in edgeagent("bundle", "keys", "list", "--state-dir", state).stdout
    shown = edgeagent("bundle", "show", made, "--state-dir", state).stdout
    assert "not installed here" in shown
    assert "models/stories260k/stories260k.gguf" in shown
    done = edgeagent("bundle", "install", made, "--state-dir", state)
    assert done.returncode == 0, done.stderr
    assert "model stories260k" in done.stdout
    assert "profile pi5-8gb in" in done.stdout
    assert "pip install --no-index --find-links" in done.stdout
    assert "is installed here" in edgeagent("bundle", "show", made, "--state-dir", state).stdout
    assert "stories260k: good" in edgeagent("models", "verify", "--state-dir", state).stdout


def test_a_changed_bundle_is_one_line_that_names_the_part(made: Path, tmp_path: Path) -> None:
    data = bytearray(made.read_bytes())
    data[data.index(b"GGUF") + 600_000] ^= 1
    made.write_bytes(data)
    key = tmp_path / "keys" / "bundle.pub"
    for command in ("install", "show"):
        done = edgeagent("bundle", command, made, "--key", key, "--state-dir", tmp_path / "device")
        assert done.returncode == 2
        assert "Part 'models/stories260k/stories260k.gguf' of the bundle was changed" in done.stderr
    assert not (tmp_path / "device").exists()


def test_an_empty_bundle_and_an_unknown_profile_are_refused(made: Path, tmp_path: Path) -> None:
    key = tmp_path / "keys" / "bundle.key"
    for options, said in (
        ((), "would be empty"),
        (("--profile", "pi5-8g"), "use 'pi5-8gb'"),
        (("--models", "absent"), "is not one of the"),
    ):
        done = edgeagent(
            "bundle", "create", "--sign-key", key, "--state-dir", tmp_path / "none", *options,
            tmp_path / "x.eab",
        )  # fmt: skip
        assert done.returncode == 2
        assert said in done.stderr
    assert not (tmp_path / "x.eab").exists()


def test_a_key_is_shown_in_the_format_of_minisign(tmp_path: Path) -> None:
    key = load_public_key(make_key_pair(tmp_path, "new")[1])
    (tmp_path / "old.pub").write_text(f"edgeagent-ed25519 {key.id} {key.raw.hex()}\n")
    for name in ("new.key", "new.pub", "old.pub"):
        assert edgeagent("bundle", "keys", "show", tmp_path / name).stdout == key.text
    (tmp_path / "none.pub").write_text("nothing")
    for name, said in (("none.pub", "is not a public key"), ("absent", "cannot be read")):
        done = edgeagent("bundle", "keys", "show", tmp_path / name)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_every_command_explains_itself() -> None:
    for words in (("bundle",), ("bundle", "create"), ("bundle", "install"), ("bundle", "show"),
                  ("bundle", "keys"), ("bundle", "keys", "signing"), ("bundle", "keys", "trust"),
                  ("bundle", "keys", "list"), ("bundle", "keys", "show")):  # fmt: skip
        done = edgeagent(*words, "--help")
        assert done.returncode == 0
        assert "Usage:" in done.stdout
