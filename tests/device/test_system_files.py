from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.device.system_files import MAX_READ_BYTES, SystemFiles, parse_cpulist, parse_fields


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3", {0, 1, 2, 3}),
        ("0", {0}),
        ("0-1,8,10-11\n", {0, 1, 8, 10, 11}),
        ("", None),
        (None, None),
        ("3-1", None),
        ("a-b", None),
        ("0-99999999999", None),
        ("-1", None),
    ],
)
def test_a_cpu_list_reads_as_the_kernel_means_it(text: str | None, cpus: set[int] | None) -> None:
    assert parse_cpulist(text) == (None if cpus is None else frozenset(cpus))


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_cpu_list_survives_being_written_and_read(cpus: set[int]) -> None:
    assert parse_cpulist(",".join(str(cpu) for cpu in cpus)) == cpus


@given(st.text(max_size=40))
def test_any_text_is_a_cpu_list_or_none(text: str) -> None:
    found = parse_cpulist(text)
    assert found is None or all(0 <= cpu <= 65_535 for cpu in found)


def test_the_first_of_a_repeated_key_stays() -> None:
    assert parse_fields(["a: 1", "a: 2", "no separator", ": 3"]) == {"a": "1"}


def test_what_is_not_there_is_none_and_never_an_exception(tmp_path: Path) -> None:
    tree = SystemFiles(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    for name in ("/missing", "/folder", "/empty", "/bad\0name", "/missing/below"):
        assert tree.text(name) is None
        assert tree.number(name) is None
        assert tree.lines(name) == []
        assert tree.link_target(name + "/x") is None
    assert tree.number("/binary") is None
    assert tree.names("/missing") == []
    assert not tree.exists("/bad\0name")


def test_device_tree_strings_become_lines(tmp_path: Path) -> None:
    (tmp_path / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    assert SystemFiles(tmp_path).lines("/compatible") == ["radxa,rock-5b", "rockchip,rk3588"]


def test_names_come_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"cpu{number}").mkdir()
    assert SystemFiles(tmp_path).names("/", "cpu*") == ["cpu1", "cpu2", "cpu10"]


def test_a_link_out_of_the_tree_leads_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to("/")
    (root / "up").symlink_to("../..")
    (root / "loop").symlink_to("loop")
    assert [SystemFiles(root).link_target(f"/{name}") for name in ("out", "up", "loop")] == [
        None
    ] * 3


def test_a_huge_file_is_read_up_to_the_bound(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_READ_BYTES * 4)
    blob = SystemFiles(tmp_path).blob("/huge")
    assert blob is not None
    assert len(blob) == MAX_READ_BYTES


@pytest.mark.skipif(not Path("/proc/sys/kernel/osrelease").exists(), reason="needs Linux's /proc")
def test_the_kernel_answers_reads_of_its_settings() -> None:
    # Asking /proc/sys for 4 MiB at once fails with ENOMEM, so this broke when reads were whole.
    assert SystemFiles(Path("/")).text("/proc/sys/kernel/osrelease")


def test_a_note_is_kept_once(tmp_path: Path) -> None:
    tree = SystemFiles(tmp_path)
    tree.note("same")
    tree.note("same")
    assert tree.notes == ["same"]
