"""The maps in the package's README name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import edgeagent

PACKAGE = Path(edgeagent.__file__).parent
TEXT = (PACKAGE / "README.md").read_text()
ROOMS = re.findall(r"^\| `(\w+)/` \| (.+) \|$", TEXT, re.MULTILINE)
WAYS = re.findall(r"^\| [^|`]+(?:`[^`]*`[^|`]*)*\| (`.+) \|$", TEXT, re.MULTILINE)


def test_both_maps_are_found():
    assert len(ROOMS) >= 12 and len(WAYS) >= 50


@pytest.mark.parametrize(("room", "text"), ROOMS, ids=[room for room, _ in ROOMS])
def test_a_room_has_the_modules_that_the_map_names(room: str, text: str):
    there = {path.stem for path in (PACKAGE / room).rglob("*") if path.suffix in (".py", "")}
    there |= {path.name for path in PACKAGE.iterdir()}  # what a room says of its neighbours
    named = re.findall(r"`(\w+)/?`", text)
    assert not set(named) - there


def test_where_is_what_names_files_that_exist():
    named = {name for way in WAYS for name in re.findall(r"`([\w/]+(?:\.py|/))`", way)}
    assert len(named) >= 50
    assert not [name for name in sorted(named) if not (PACKAGE / name).exists()]
