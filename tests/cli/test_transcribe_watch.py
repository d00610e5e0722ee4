"""Which files of a watched folder are complete: those that two looks in a row find unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeagent.cli.transcribe_watch import FolderWatch, is_recording


def put(path: Path, data: bytes, at_ns: int) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(at_ns, at_ns))


@pytest.fixture
def watch(tmp_path: Path) -> FolderWatch:
    return FolderWatch(tmp_path, lambda path: path.with_suffix(".txt").exists())


def test_a_file_is_given_once_when_it_stops_growing(watch, tmp_path):
    path = tmp_path / "a.wav"
    put(path, b"one", 1)
    assert watch.look() == []
    put(path, b"one two", 2)
    assert watch.look() == [], "it has grown"
    assert watch.look() == [path]
    assert watch.look() == []


def test_a_file_that_is_replaced_is_given_again(watch, tmp_path):
    path = tmp_path / "a.wav"
    put(path, b"one", 1)
    watch.look()
    assert watch.look() == [path]
    put(path, b"two", 9)
    watch.look()
    assert watch.look() == [path]
    path.unlink()
    assert watch.look() == []
    put(path, b"two", 9)
    watch.look()
    assert watch.look() == [path]


def test_the_oldest_comes_first_and_what_has_a_transcript_does_not_come(watch, tmp_path):
    for name, at in (("c.ogg", 5), ("a.mp3", 7), ("b.flac", 6)):
        put(tmp_path / name, b"x", at)
    (tmp_path / "b.txt").write_text("done")
    watch.look()
    assert [path.name for path in watch.look()] == ["c.ogg", "a.mp3"]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.wav", True), ("A.WAV", True), ("a b.m4a", True), (".a.wav", False), ("a.wav.part", False),
        ("a.txt", False), ("wav", False), ("a.tmp", False),
    ],
)  # fmt: skip
def test_recordings_are_known_by_their_names(name, is_one):
    assert is_recording(name) == is_one


def test_empty_files_and_folders_wait(watch, tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").mkdir()
    (tmp_path / "c.wav").symlink_to("nowhere")
    watch.look()
    assert watch.look() == []
