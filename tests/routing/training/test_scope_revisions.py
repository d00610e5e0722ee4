"""Earlier revisions of a scope gate, and a damaged one, which must not stand in the way of a new one."""

from __future__ import annotations

from pathlib import Path

from edgeagent.routing.scope_gate import read_scope
from edgeagent.routing.training.scope_revisions import replace_scope, roll_back_scope
from tests.routing.scopes import scope_file


def test_revisions_are_taken_back_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "m.scope"
    written = [replace_scope(path, scope_file("aa")).revision for _ in range(3)]
    assert written == [1, 2, 3]
    assert [found.revision if (found := roll_back_scope(path)) else None for _ in range(3)] == [
        2, 1, None,
    ]  # fmt: skip
    assert not path.exists()


def test_a_damaged_gate_is_replaced_and_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "m.scope"
    for _ in range(2):
        replace_scope(path, scope_file("aa"))
    path.write_bytes(b"torn")
    made = replace_scope(path, scope_file("aa"))
    assert read_scope(path).revision == made.revision
    assert (tmp_path / "m.scope.damaged").read_bytes() == b"torn"
    assert (tmp_path / "m.scope.1").is_file()
    assert replace_scope(path, scope_file("aa")).revision == made.revision + 1
