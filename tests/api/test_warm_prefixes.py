"""What was computed of a system prompt outlives the daemon, for the key that sent it only."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

EAGER = {
    "store.prefixes.min_tokens": 16, "store.prefixes.min_uses": 2, "store.prefixes.min_age_s": 0,
    "store.prefixes.min_saving_ms": 0,
}  # fmt: skip
PORTER = (
    "You are the night porter of a small hotel. Answer briefly, and never tell who has which room."
)
BAKER = (
    "You sell bread in a village by the sea. Name prices in full, and be kind to children and dogs."
)
TOOL = {
    "type": "function",
    "function": {"name": "ring", "description": "Ring the bell", "parameters": {"type": "object"}},
}


def daemon_of(models: Path, state: Path, **settings: Any) -> AbstractContextManager[DaemonProcess]:
    return serving(models, state, **(EAGER | settings))


def ask(daemon: DaemonProcess, system: str, text: str, key: str = "none", **more: Any) -> int:
    """Send a chat; how many tokens of its prompt were cached."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    body = {"model": TALES_CHAT, "messages": turns, "max_tokens": 3, "temperature": 0} | more
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{daemon.url}/v1/chat/completions"
    reply = httpx.post(url, json=body, headers=headers, timeout=60)
    assert reply.status_code == 200, reply.text
    return int(reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def count(daemon: DaemonProcess, event: str) -> int:
    return daemon.log.read_text().count(event)


def kept_tokens(daemon: DaemonProcess) -> list[int]:
    return [
        int(n) for n in re.findall(r"warm_prefix_kept .*n_tokens=(\d+)", daemon.log.read_text())
    ]


def files(state: Path) -> list[Path]:
    return sorted((state / "store" / "prefixes").iterdir())


def made_key(state: Path, name: str) -> tuple[str, str]:
    done = run_here(
        "keys", "create", "--name", name, "--json", "--scopes", "chat,data", "--state-dir", state
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    return made["id"], made["secret"]


def test_a_system_prompt_and_its_tools_outlive_a_kill_and_no_word_of_a_user_does(
    tales_dir: Path, tmp_path: Path
):
    state = tmp_path / "state"
    with daemon_of(tales_dir, state) as daemon:
        ask(daemon, PORTER, "Is there a room with a bath?", tools=[TOOL])
        ask(daemon, BAKER, "A loaf, please.")
        assert count(daemon, "warm_prefix_kept") == 0  # each was seen once
        whole = ask(daemon, PORTER, "When is breakfast?", tools=[TOOL])
        wait_for(lambda: count(daemon, "warm_prefix_kept") == 1)
        daemon.process.kill()
        daemon.process.wait()
    (n_kept,) = kept_tokens(daemon)
    assert n_kept - 2 <= whole <= n_kept  # it ends where the two questions do not yet differ
    (file,) = files(state)
    assert file.stat().st_mode & 0o777 == 0o600 and b"porter" not in file.read_bytes()
    with daemon_of(tales_dir, state) as daemon:
        assert (
            ask(daemon, PORTER, "Where is the harbour?") < 40 < n_kept
        )  # without its tools it is another
        again = ask(daemon, PORTER, "Where is the harbour?", tools=[TOOL])
        assert n_kept - 1 <= again <= n_kept + 1
        ask(daemon, PORTER, "Do you take dogs?", tools=[TOOL])
        assert count(daemon, "warm_prefix_recalled") == 1 and files(state) == [file]
        stats = run_here("data", "stats", "--state-dir", state)
        assert "KV cache of conversations and system prompts: 1 file" in stats.stdout
        done = run_here("data", "erase", "--owner", "local", "--yes", "--state-dir", state)
        assert done.returncode == 0, done.stdout[-1500:]
        assert files(state) == []


def test_a_prompt_belongs_to_its_key_and_a_file_in_its_place_is_refused(
    tales_dir: Path, tmp_path: Path
):
    state = tmp_path / "state"
    (ann, ann_secret), (_, bob_secret) = made_key(state, "ann"), made_key(state, "bob")
    with daemon_of(tales_dir, state, preload=False) as daemon:
        for text in ("Good evening.", "Is it late?"):
            ask(daemon, PORTER, text, ann_secret)
            ask(daemon, BAKER, text, bob_secret)
        wait_for(lambda: count(daemon, "warm_prefix_kept") == 2)
    with daemon_of(tales_dir, state, preload=False) as daemon:
        assert ask(daemon, PORTER, "Hello?", bob_secret) == 0
        assert count(daemon, "warm_prefix_recalled") == 0
        assert ask(daemon, PORTER, "Hello?", ann_secret) > 20
        assert count(daemon, "warm_prefix_recalled") == 1
    one, other = files(state)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    with daemon_of(tales_dir, state, preload=False) as daemon:
        assert ask(daemon, PORTER, "Hello?", ann_secret) == 0
        assert ask(daemon, BAKER, "Hello?", bob_secret) == 0
        assert count(daemon, "warm_prefix_unusable") == 2
        wait_for(lambda: files(state) == [])
        ask(daemon, PORTER, "Are you there?", ann_secret)
        wait_for(lambda: count(daemon, "warm_prefix_kept") == 1)  # it is kept anew
        assert run_here("keys", "revoke", ann, "--state-dir", state).returncode == 0
    with daemon_of(tales_dir, state, preload=False) as daemon:
        wait_for(lambda: files(state) == [])


@pytest.mark.parametrize(
    "settings", [{"store.prefixes.system_prompts": False}, {"store.prefixes.max_bytes": 0}]
)
def test_nothing_is_kept_where_the_settings_say_so(tales_dir: Path, tmp_path: Path, settings):
    with daemon_of(tales_dir, tmp_path / "state", **settings) as daemon:
        for text in ("One.", "Two.", "Three."):
            ask(daemon, PORTER, text)
    assert files(tmp_path / "state") == [] and count(daemon, "warm_prefix") == 0
