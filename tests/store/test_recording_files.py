"""Sealed recordings: what was acknowledged comes back, whatever a crash left; nothing else can be read."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edgeagent.errors import StoreDamaged
from edgeagent.store import recording_files
from edgeagent.store.recording_files import RECORD_BYTES, Recording, RecordingReader, append


def recording(name: str = "job_1") -> Recording:
    return Recording(id=name, owner="ann", key=recording_files.new_key())


def read(folder: Path, row: Recording, offset: int = 0, step: int = 1 << 30) -> bytes:
    found = b""
    with closing(RecordingReader(folder, row)) as reader:
        while part := reader.read(offset + len(found), step):
            found += part
    return found


def test_parts_of_any_size_come_back_in_one(tmp_path):
    draw = random.Random(1)
    row, whole = recording(), b""
    for size in (1, 5000, RECORD_BYTES, 3 * RECORD_BYTES + 7, 2):
        part = draw.randbytes(size)
        row = append(tmp_path, row, part)
        whole += part
    assert row.n_received == len(whole)
    assert read(tmp_path, row) == whole
    for _ in range(20):
        at = draw.randrange(len(whole))
        with closing(RecordingReader(tmp_path, row)) as reader:
            part = reader.read(at, 4096)
            assert 0 < len(part) <= 4096
            assert part == whole[at : at + len(part)]
            assert reader.read(len(whole), 1) == b""


def test_what_was_not_acknowledged_is_cut_off_by_the_next_part(tmp_path):
    """A crash between the write to the file and that to the database, and one within the write."""
    row = append(tmp_path, recording(), b"first " * 100)
    append(tmp_path, row, b"lost, of the same length")
    assert read(tmp_path, row) == b"first " * 100
    with (tmp_path / row.id).open("ab") as file:
        file.write(b"torn")
    row = append(tmp_path, row, b"and then the second part")
    assert read(tmp_path, row) == b"first " * 100 + b"and then the second part"


def test_the_file_shows_nothing_and_no_nonce_comes_twice(tmp_path):
    row = append(tmp_path, recording(), b"canary" * 1000)
    again = append(tmp_path, msgspec.structs.replace(row, n_received=0, n_records=0), b"canary")
    data = (tmp_path / row.id).read_bytes()
    assert b"canary" not in data
    assert again.file_bytes > row.file_bytes
    nonces = {data[4:16], data[row.file_bytes + 4 : row.file_bytes + 16]}
    assert len(nonces) == 2


def test_altered_exchanged_and_missing_records_are_found(tmp_path):
    row = append(tmp_path, append(tmp_path, recording(), b"a" * 100), b"b" * 100)
    path = tmp_path / row.id
    good = path.read_bytes()
    half = len(good) // 2
    for bad in (
        good[:40] + bytes([good[40] ^ 1]) + good[41:],
        good[half:] + good[:half],
        good[:-1],
        good[:half],
        b"",
    ):
        path.write_bytes(bad)
        with pytest.raises(StoreDamaged, match="send it again"):
            read(tmp_path, row)
    path.write_bytes(good)
    other = msgspec.structs.replace(row, id="job_2")
    (tmp_path / "job_2").write_bytes(good)
    with pytest.raises(StoreDamaged):
        read(tmp_path, other)
    path.unlink()
    with pytest.raises(StoreDamaged):
        RecordingReader(tmp_path, row)
    with pytest.raises(StoreDamaged):
        append(tmp_path, row, b"more")


def test_files_without_rows_are_deleted(tmp_path):
    rows = [append(tmp_path, recording(f"job_{n}"), b"x") for n in range(3)]
    assert recording_files.tidy(tmp_path, {rows[1].id}) == 2
    assert [path.name for path in tmp_path.iterdir()] == [rows[1].id]
    recording_files.remove(tmp_path, rows[1].id)
    recording_files.remove(tmp_path, rows[1].id)
    assert not list(tmp_path.iterdir())
