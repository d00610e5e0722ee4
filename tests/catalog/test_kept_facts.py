"""Facts of model files are read once, and again where something has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.catalog import kept_facts
from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.kept_facts import KeptFacts
from edgeagent.daemon.instance_lock import InstanceLock
from edgeagent.errors import GGUFRefused


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in this process."""
    paths: list[Path] = []

    def inspect_here(path: Path) -> ModelFacts:
        paths.append(path)
        return inspect(path)

    monkeypatch.setattr(kept_facts, "inspect_apart", inspect_here)
    return paths


@pytest.fixture
def tale(stories: Path, tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return Path(shutil.copy(stories, tmp_path / "tale.gguf"))


def test_a_file_is_read_once_for_all_starts(tale: Path, tmp_path: Path, read: list[Path]):
    facts = KeptFacts(tmp_path / "state").of(tale)
    assert facts == inspect(tale)
    assert KeptFacts(tmp_path / "state").of(tale) == facts and read == [tale]


def swap(tale: Path) -> None:
    """Another file of the same size and time of change."""
    stat = tale.stat()
    shutil.copy(tale, tale.with_suffix(".new"))
    shutil.copystat(tale, tale.with_suffix(".new"))
    tale.with_suffix(".new").replace(tale)
    assert tale.stat().st_mtime_ns == stat.st_mtime_ns


@pytest.mark.parametrize(
    "change",
    [
        swap,
        lambda tale: tale.write_bytes(tale.read_bytes()),
        lambda tale: (tale.parent / "state" / "facts.json").write_text("{"),
        lambda tale: (tale.parent / "state" / "facts.json").write_bytes(b'{"files": {"\xff": 1}}'),
        lambda tale: (tale.parent / "state" / "facts.json").write_text('{"a":' + "[" * 5000),
        lambda tale: (tale.parent / "state" / "facts.json").unlink(),
    ],
)
def test_what_has_changed_is_read_again(
    tale: Path, tmp_path: Path, read: list[Path], change: Callable[[Path], object]
):
    KeptFacts(tmp_path / "state").of(tale)
    change(tale)
    facts = KeptFacts(tmp_path / "state")
    assert facts.of(tale) == facts.of(tale) and read == [tale, tale]


def test_a_file_is_known_in_the_state_in_which_it_was_read(
    tale: Path, tmp_path: Path, read: list[Path]
):
    facts, identity = KeptFacts(tmp_path / "state"), identity_of(tale.stat())
    assert not facts.knows(tale, identity)
    facts.of(tale)
    assert facts.knows(tale, identity) and KeptFacts(tmp_path / "state").knows(tale, identity)
    swap(tale)
    assert not facts.knows(tale, identity_of(tale.stat()))
    tale.write_bytes(b"GGUF")
    with pytest.raises(GGUFRefused):
        facts.of(tale)
    assert not facts.knows(tale, identity_of(tale.stat()))


def test_another_version_reads_again(
    tale: Path, tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
):
    KeptFacts(tmp_path / "state").of(tale)
    monkeypatch.setattr(kept_facts, "VERSION", "0.0.0")
    KeptFacts(tmp_path / "state").of(tale)
    assert read == [tale, tale]


def test_a_file_that_became_unsound_is_refused(tale: Path, tmp_path: Path, read: list[Path]):
    facts = KeptFacts(tmp_path / "state")
    facts.of(tale)
    tale.write_bytes(b"GGUF")
    with pytest.raises(GGUFRefused):
        facts.of(tale)
    tale.unlink()
    with pytest.raises(GGUFRefused):
        facts.of(tale)


def test_without_a_state_directory_nothing_is_kept(tale: Path, tmp_path: Path, read: list[Path]):
    KeptFacts(tmp_path / "none").of(tale)
    assert not (tmp_path / "none").exists() and read == [tale]


def test_two_that_keep_facts_lose_none_of_each_other(tale: Path, tmp_path: Path, read: list[Path]):
    files = [tale, *(Path(shutil.copy(tale, tmp_path / f"{n}.gguf")) for n in range(2))]
    one, other = KeptFacts(tmp_path / "state"), KeptFacts(tmp_path / "state")
    for facts, path in zip((one, other, one), files, strict=True):
        facts.of(path)
    later = KeptFacts(tmp_path / "state")
    assert all(later.of(path).name == "tales260K" for path in files) and read == files


def test_facts_are_kept_while_a_daemon_holds_its_directory(
    tale: Path, tmp_path: Path, read: list[Path]
):
    with closing(InstanceLock(tmp_path / "state")):
        for _ in range(2):
            KeptFacts(tmp_path / "state").of(tale)
    assert read == [tale]


def test_facts_of_many_bytes_are_not_kept(
    tale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    long = replace(inspect(tale), tokenizer="t" * kept_facts._MOST_BYTES_EACH)
    monkeypatch.setattr(kept_facts, "inspect_apart", lambda path: long)
    assert KeptFacts(tmp_path / "state").of(tale) == long
    assert not (tmp_path / "state" / "facts.json").exists()


def test_a_path_that_is_not_utf_8_is_read_each_time(tale: Path, tmp_path: Path, read: list[Path]):
    facts = KeptFacts(tmp_path / "state")
    odd = tale.rename(tmp_path / os.fsdecode(b"\xff.gguf"))
    assert facts.of(odd) == facts.of(odd) and read == [odd, odd]
    plain = Path(shutil.copy(odd, tale))
    assert facts.of(plain) == KeptFacts(tmp_path / "state").of(plain) and read[2:] == [plain]
