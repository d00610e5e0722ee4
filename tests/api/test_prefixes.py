"""What was computed of a stored dialogue outlives the daemon, and nothing that is deleted does."""

from __future__ import annotations

from pathlib import Path

import openai

from tests.commands import run_here
from tests.conftest import TALES_CHAT, DaemonProcess, serving, wait_for

SETTINGS = {"prefix_min_tokens": 16}
INSTRUCTIONS = (
    "You are the harbour master of a small island. Answer what guests ask about boats, tides and the "
    "weather, in one short sentence, and never promise that a ferry sails when there is a storm."
)
TURNS = (
    "My name is Wilhelmina and I travel with two dogs.",
    "When is the next ferry?",
    "Who am I?",
)


def ask(client: openai.OpenAI, text: str, previous=None, **options):
    return client.responses.create(
        model=TALES_CHAT, input=text, instructions=INSTRUCTIONS, temperature=0, max_output_tokens=10,
        previous_response_id=previous.id if previous is not None else None, **options,
    )  # fmt: skip


def files(state: Path) -> list[Path]:
    return sorted((state / "store" / "prefixes").iterdir())


def n_kept(daemon: DaemonProcess) -> int:
    return daemon.log.read_text().count("prefix_kept")


def two_turns(daemon: DaemonProcess, client: openai.OpenAI):
    first = ask(client, TURNS[0])
    wait_for(lambda: n_kept(daemon) == 1)
    second = ask(client, TURNS[1], first)
    wait_for(lambda: n_kept(daemon) == 2)
    return second


def test_a_chain_goes_on_after_a_kill_from_what_was_computed_before(
    tales_dir: Path, tmp_path: Path
):
    state = tmp_path / "state"
    with serving(tales_dir, state, **SETTINGS) as daemon:
        with daemon.client() as client:
            second = two_turns(daemon, client)
            ask(client, TURNS[2], second)
        daemon.process.kill()
        daemon.process.wait()
    sizes = [path.stat().st_size for path in files(state)]
    assert 2 <= len(sizes) <= 3 and INSTRUCTIONS.encode() not in files(state)[0].read_bytes()
    assert max(path.stat().st_mode & 0o777 for path in files(state)) == 0o600
    with serving(tales_dir, state, **SETTINGS) as daemon, daemon.client() as client:
        again = ask(client, TURNS[2], second)
        # The answer may be other tokens when its text is read: where they differ, they are computed anew.
        assert again.usage.input_tokens_details.cached_tokens >= second.usage.input_tokens - 1
        assert again.output_text
        log = daemon.log.read_text()
        assert log.count("prefix_recalled") == 1 and "prefix_unusable" not in log
        # What is in the engine is not read again.
        ask(client, "And my dogs?", again)
        assert daemon.log.read_text().count("prefix_recalled") == 1
        stats = run_here("data", "stats", "--state-dir", state)
        assert "KV cache of conversations and system prompts: " in stats.stdout
        client.responses.delete(second.id)
        wait_for(lambda: files(state) == [])


def test_torn_files_cost_time_and_nothing_else(tales_dir: Path, tmp_path: Path):
    state = tmp_path / "state"
    with serving(tales_dir, state, **SETTINGS) as daemon, daemon.client() as client:
        second = two_turns(daemon, client)
    # Names tell nothing; the first turn's file is the oldest, and without it the others are of no use.
    first, *others = sorted(files(state), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    with serving(tales_dir, state, **SETTINGS) as daemon, daemon.client() as client:
        third = ask(client, TURNS[2], second)
        assert third.output_text and third.usage.input_tokens_details.cached_tokens == 0
        assert "prefix_unusable" in daemon.log.read_text()
        wait_for(lambda: n_kept(daemon) == 1)
        wait_for(lambda: not {*others, first} & set(files(state)))  # it is kept anew
        done = run_here("data", "erase", "--owner", "local", "--yes", "--state-dir", state)
        assert done.returncode == 0, done.stdout[-1500:]
        assert "kept prefixes" in done.stdout
        assert files(state) == []


def test_nothing_is_kept_where_the_settings_say_so_or_nothing_is_stored(
    tales_dir: Path, tmp_path: Path
):
    state = tmp_path / "state"
    with (
        serving(tales_dir, state, prefix_store_bytes=0, prefix_min_tokens=1) as daemon,
        daemon.client() as client,
    ):
        ask(client, TURNS[0])
    assert files(state) == []
    with serving(tales_dir, state, prefix_min_tokens=1) as daemon, daemon.client() as client:
        ask(client, TURNS[0], store=False)
        stored = ask(client, TURNS[0])
        wait_for(lambda: n_kept(daemon) == 1)
        assert len(files(state)) == 1
        client.responses.delete(stored.id)
        wait_for(lambda: files(state) == [])
