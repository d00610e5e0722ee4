"""`edgeagent knowledge` on a running daemon."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands import run_here
from tests.conftest import DaemonProcess
from tests.knowledge.documents import pdf


@pytest.fixture
def run(tales_daemon: DaemonProcess):
    port = tales_daemon.url.rpartition(":")[2]

    def call(*words: str | Path):
        return run_here("knowledge", *words, "--port", port)

    return call


def test_a_directory_is_added_searched_synced_and_removed(run, tmp_path: Path):
    folder = tmp_path / "ferries"
    (folder / "deep").mkdir(parents=True)
    (folder / "times.md").write_text("# Times\n\nThe ferry leaves at nine.\n")
    (folder / "deep" / "fares.txt").write_text("A ticket costs five euros.\n")
    (folder / ".hidden.txt").write_text("secret")
    done = run("add", "ferries", folder)
    assert done.returncode == 0, done.stderr
    assert "2 added or replaced, 0 removed, 0 unchanged, 0 refused" in done.stdout
    assert "0 added or replaced, 0 removed, 2 unchanged" in run("add", "ferries", folder).stdout
    found = run("search", "ferries", "what does a ticket cost?")
    assert re.search(r"\[1\] fares\.txt  [01]\.\d\d\n    A ticket costs five euros\.", found.stdout)

    (folder / "times.md").write_text("# Times\n\nThe ferry leaves at ten.\n")
    (folder / "deep" / "fares.txt").unlink()
    (folder / "scan.pdf").write_bytes(pdf("", ""))
    synced = run("sync", folder)
    assert synced.returncode == 1
    assert "1 added or replaced, 1 removed, 0 unchanged, 1 refused" in synced.stdout
    assert "scan.pdf: The PDF has 2 pages and 0 letters" in synced.stderr
    rows = json.loads(run("search", "ferries", "ferry ticket", "--json").stdout)
    assert [row["content"][0]["text"] for row in rows] == ["Times\nThe ferry leaves at ten."]
    listed = run("list", "ferries").stdout
    assert "times.md  completed" in listed and "scan.pdf  failed: The PDF" in listed

    assert "Removed 1 files." in run("remove", "ferries", "times.md").stdout
    assert run("search", "ferries", "ferry").stdout == "Nothing was found.\n"
    assert "ferries  1 files" in run("list").stdout
    assert run("remove", "ferries", "--all").returncode == 0
    assert "ferries" not in run("list").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "nothing-there", "x"], "There is no knowledge base 'nothing-there'"),
        (["remove", "x"], "Name files to remove, or give --all."),
        (["add", "x", "/nonexistent"], "does not exist"),
    ],
)
def test_mistakes_are_one_line(run, words: list[str], message: str):
    done = run(*words)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_without_a_daemon_the_command_says_so():
    done = run_here("knowledge", "list", "--port", "1")
    assert done.returncode == 2 and "No daemon answers" in done.stderr
