"""A recording that another thread hands over part by part."""

from __future__ import annotations

import io
import random
import threading

import pytest

from edgeagent.errors import EngineFailed
from edgeagent.speech.remote_recording import MAX_PARTS, RemoteRecording


def remote(data: bytes, part_bytes: int = 1000) -> tuple[RemoteRecording, list[int]]:
    """A recording whose parts come at once from another thread, and the offsets that were asked for."""
    asked: list[int] = []

    def fetch(offset: int, n_bytes: int) -> None:
        asked.append(offset)
        part = data[offset : offset + min(n_bytes, part_bytes)]
        threading.Thread(target=lambda: found.receive(offset, part)).start()

    found = RemoteRecording(len(data), fetch, timeout_s=60)
    return found, asked


def test_it_reads_and_seeks_as_a_file_does():
    draw = random.Random(3)
    data = draw.randbytes(20_000)
    found, _ = remote(data)
    file = io.BytesIO(data)
    for _ in range(60):
        if draw.random() < 0.5:
            at, whence = draw.choice(((draw.randrange(25_000), 0), (-draw.randrange(9000), 2)))
            assert found.seek(at, whence) == file.seek(at, whence)
        n_bytes = draw.randrange(1, 3000)
        part = found.read(n_bytes)
        assert part == file.read(len(part))
        assert part or file.read(1) == b""
        assert found.tell() == file.tell()


def test_few_parts_are_kept_and_none_is_asked_for_twice_in_a_row():
    data = bytes(range(256)) * 40
    found, asked = remote(data)
    assert found.head(2500) == data[:2500]
    assert asked == [0, 1000, 2000]
    assert found.tell() == 0
    assert found.read(500) == data[:500]
    assert asked == [0, 1000, 2000], "the first part is still there"
    while found.read(700):
        pass
    assert len(found._parts) <= MAX_PARTS
    assert len(asked) <= 12


def test_who_waits_fails_when_the_recording_is_abandoned():
    started = threading.Event()
    found = RemoteRecording(100, lambda offset, n_bytes: started.set(), timeout_s=60)

    def abandon() -> None:
        started.wait(10)
        found.abandon()

    other = threading.Thread(target=abandon)
    other.start()
    with pytest.raises(EngineFailed, match="byte 0"):
        found.read(10)
    other.join()


def test_a_part_that_does_not_come_and_one_that_is_empty_are_errors():
    found = RemoteRecording(100, lambda offset, n_bytes: None, timeout_s=0.01)
    with pytest.raises(EngineFailed):
        found.read(10)
    found = RemoteRecording(100, lambda offset, n_bytes: found.receive(offset, b""), timeout_s=60)
    with pytest.raises(EngineFailed):
        found.read(10)
