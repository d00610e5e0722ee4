"""The journal as a file: nothing of it can be changed, moved or cut unnoticed, and a kill loses nothing."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import pytest

from edgeagent.errors import StoreLocked
from edgeagent.store import journal as journals
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.journal import Journal, JournalPosition
from edgeagent.store.journal_replay import selector_entry
from edgeagent.store.ownership import Selector
from edgeagent.store.store_key import Secret
from tests.store.kills import ROOT


@pytest.fixture
def files(folder):
    found = StoreFiles(folder)
    found.make()
    return found


@pytest.fixture
def journal(files, secret):
    made = Journal(files, secret)
    made.begin(is_keyed=False)
    return made


def said(journal):
    found = journal.read()
    return [(entry.n, entry.kind, entry.what) for entry in found.entries]


def test_entries_are_numbered_and_read_again_by_another_process(journal, files, secret):
    journal.append("keyed")
    journal.append("revoke", "key_1")
    other = Journal(files, secret)
    assert said(other) == [(1, "keyed", ""), (2, "revoke", "key_1")]
    journal.append("open")
    assert said(other)[-1] == (3, "open", "") and not other.read().is_keyed
    assert other.read().revoked == ["key_1"]


def test_without_a_journal_nothing_is_entered(files, secret):
    journal = Journal(files, secret)
    assert journal.read() is None
    with pytest.raises(StoreLocked, match="reset-access"):
        journal.append("revoke", "key_1")


def test_neither_names_nor_key_ids_can_be_read_in_the_file(journal, files):
    journal.append("revoke", "key_canary")
    journal.append("erase", selector_entry(journal, Selector(owner="ann", subject="Jane Canary")))
    raw = files.journal.read_bytes()
    pieces = raw + b"".join(base64.b64decode(line) for line in raw.split(b"\n"))
    assert b"canary" not in pieces.lower() and b"ann" not in pieces
    assert "Canary" not in str(journal.read()), "with the key neither"


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: [lines[0], lines[2], lines[3]],
        lambda lines: [lines[0], lines[1], lines[1], lines[2], lines[3]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[1], lines[2][:-6] + b"AAAAA=", lines[3]],
        lambda lines: [lines[0], b"noise", *lines[2:]],
        lambda lines: [],
    ],
    ids=["swapped", "left out", "twice", "without its beginning", "edited", "noise", "emptied"],
)
def test_a_changed_file_is_refused(journal, files, secret, change):
    for key_id in ("key_1", "key_2", "key_3"):
        journal.append("revoke", key_id)
    lines = files.journal.read_bytes().splitlines()
    files.journal.write_bytes(b"".join(line + b"\n" for line in change(lines)))
    with pytest.raises(StoreLocked, match="damaged"):
        Journal(files, secret).read()
    with pytest.raises(StoreLocked, match="damaged"):
        Journal(files, secret).append("revoke", "key_4")


def test_the_journal_of_another_store_is_refused(journal, files):
    journal.append("keyed")
    with pytest.raises(StoreLocked, match="damaged"):
        Journal(files, Secret(os.urandom(32), "another")).read()


def test_a_write_cut_at_any_byte_is_as_if_it_had_not_begun(journal, files, secret):
    journal.append("revoke", "key_1")
    before = len(files.journal.read_bytes())
    journal.append("revoke", "key_2")
    whole = files.journal.read_bytes()
    for end in range(before, len(whole)):
        files.journal.write_bytes(whole[:end])
        found = Journal(files, secret)
        assert said(found) == [(1, "revoke", "key_1")], end
        if end % 40 == 0:
            found.append("revoke", "key_3")
            assert said(Journal(files, secret))[-1] == (2, "revoke", "key_3")
    # A file system may bring the size, and then the end, to the disk before what is between.
    files.journal.write_bytes(whole[:before] + bytes(len(whole) - before - 1) + b"\n")
    assert said(Journal(files, secret)) == [(1, "revoke", "key_1")]


def test_a_place_tells_a_longer_journal_from_a_shorter_and_from_another(journal):
    at_start = journal.read().head
    place = journal.append("keyed").head
    journal.append("revoke", "key_1")
    found = journal.read()
    assert found.holds(at_start) and found.holds(place) and found.holds(found.head)
    assert not found.holds(JournalPosition(place.id, 3, b"x" * 32)), "longer than this one"
    assert not found.holds(JournalPosition(place.id, 1, b"x" * 32)), "went another way"
    assert not found.holds(JournalPosition("other", 1, place.mac))


def test_many_entries_are_compacted_to_what_they_said(journal, files, secret, monkeypatch):
    monkeypatch.setattr(journals, "MOST_ENTRIES", 3)
    journal.append("keyed")
    for n in range(6):
        journal.append("revoke", f"key_{n}")
    size, head = files.journal.stat().st_size, journal.read().head
    assert journal.compact(5)
    found = Journal(files, secret).read()
    assert [entry.n for entry in found.entries] == [6, 7]
    assert found.head == head and found.is_keyed
    assert found.revoked == [f"key_{n}" for n in range(6)]
    assert files.journal.stat().st_size < size
    assert not journal.compact(7), "few entries are kept in any case"
    assert journal.append("open").head.n == 8


_APPENDING = """
import sys
from pathlib import Path
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.journal import Journal
from edgeagent.store.store_key import Secret
journal = Journal(StoreFiles(Path(sys.argv[1])), Secret(bytes.fromhex(sys.argv[2]), "the test"))
for n in range(int(sys.argv[4])):
    journal.append("revoke", f"{sys.argv[3]}-{n}")
    print(f"{sys.argv[3]}-{n}", flush=True)
"""


def appending(files, secret, name, n):
    command = [sys.executable, "-c", _APPENDING, str(files.folder), secret.raw.hex(), name, str(n)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_append_in_turn_and_a_killed_one_loses_nothing_acknowledged(
    journal, files, secret
):
    writers = [appending(files, secret, name, n) for name, n in (("a", 40), ("b", 100_000))]
    told = [writers[1].stdout.readline().strip() for _ in range(40)]
    writers[1].kill()
    told += writers[1].stdout.read().split()
    told += writers[0].communicate(timeout=60)[0].split()
    writers[1].wait()
    writers[1].stdout.close()
    entered = [what for _, _, what in said(journal)]
    assert set(told) <= set(entered) and len(entered) - len(told) <= 1
    assert [n for n, _, _ in said(journal)] == list(range(1, len(entered) + 1))
