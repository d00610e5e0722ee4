"""Files of JSON that others may have damaged."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from edgeagent.durable import read_json


def test_json_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}')
    assert read_json(path, 100, dict[str, int]) == {"a": 1}


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": "x"}', b'{"\xff": 1}', b'{"a": "\xff"}', b"[" * 50_000]
)
def test_damaged_content_is_one_kind_of_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(msgspec.MsgspecError):
        read_json(path, 100_000, dict[str, int])


def test_what_is_no_file_of_that_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}')
    os.mkfifo(tmp_path / "pipe")
    for wrong, most in ((path, 7), (tmp_path / "pipe", 100), (tmp_path, 100), (tmp_path / "b", 9)):
        with pytest.raises(OSError, match=r"limit|regular|No such"):
            read_json(wrong, most, dict[str, int])
