"""Rows of what was computed of system prompts: whose they are, how long they stay, and what deletes them."""

from __future__ import annotations

from array import array

import pytest

from edgeagent.errors import NotFound
from edgeagent.store import erasure, prefixes, row_deletion, warm_prefixes
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.ownership import Selector
from edgeagent.store.retention import STEPS
from edgeagent.store.warm_prefixes import WarmPrefix

NOW = 1_790_000_000_000


def prefix(owner: str = "ann", digest: bytes = b"d", **fields) -> WarmPrefix:
    given = {
        "id": prefixes.new_name(), "owner": owner, "scope": f"key_{owner}", "model": "m", "fits": "f",
        "digest": digest, "tokens": array("i", [1, 2, 3]).tobytes(), "key": prefixes.new_key(),
        "n_bytes": 100, "prefill_tok_s": 500.0, "made_ms": NOW, "used_ms": NOW,
    }  # fmt: skip
    return WarmPrefix(**(given | fields))


def owners(db) -> list[str]:
    return [entry.owner for entry in warm_prefixes.entries(db)]


def test_a_row_is_read_back_and_a_newer_one_for_the_same_text_takes_its_place(conn):
    old, new, other = prefix(), prefix(fits="g"), prefix(model="n")
    for each in (old, new, other):
        warm_prefixes.put(conn, each)
    assert warm_prefixes.find(conn, old.id) is None and warm_prefixes.find(conn, new.id) == new
    assert prefixes.known(conn) == {new.id, other.id} and prefixes.totals(conn) == (2, 200)
    first = warm_prefixes.entries(conn)[0]
    assert (first.id, first.n_tokens, first.prefill_tok_s) == (new.id, 3, 500.0)


def test_whoever_keeps_most_makes_room_by_what_was_not_used_for_longest(conn):
    warm_prefixes.put(conn, prefix("bob", used_ms=NOW - 9))
    for n in range(4):
        warm_prefixes.put(conn, prefix("ann", bytes([n]), used_ms=NOW - n))
    assert prefixes.shrink(conn, 300) == 2
    left = [(entry.owner, entry.used_ms) for entry in warm_prefixes.entries(conn)]
    assert left == [("bob", NOW - 9), ("ann", NOW), ("ann", NOW - 1)]


def test_a_revoked_key_leaves_nothing_behind(conn):
    for owner in ("ann", "bob"):
        conn.execute(
            "insert into key (id, name, owner, digest, hint, scopes, limits, created_ms) "
            "values (?, ?, ?, ?, '', '[]', '{}', 0)",
            (f"key_{owner}", owner, owner, owner.encode()),
        )
        warm_prefixes.put(conn, prefix(owner))
    conn.execute("update key set expires_ms = 1 where id = 'key_bob'")
    conn.execute("update key set revoked_ms = 1 where id = 'key_ann'")
    assert owners(conn) == ["bob"]


def test_retention_counts_from_the_last_use(conn):
    warm_prefixes.put(conn, prefix(digest=b"old", made_ms=NOW - 9, used_ms=NOW - 5))
    warm_prefixes.put(conn, prefix(digest=b"new", made_ms=NOW - 9, used_ms=NOW))
    (step,) = (step for step in STEPS["content"] if step.table == "warm_prefix")
    sql = f"select id from {step.table} where {step.where}"
    ids = [row[0] for row in conn.execute(sql, {"before": NOW - 1}).fetchall()]
    row_deletion.delete(conn, step.table, ids)
    assert [entry.digest for entry in warm_prefixes.entries(conn)] == [b"new"]


@pytest.mark.parametrize(
    ("selector", "left"),
    [
        ({"owner": "ann"}, ["bob"]),
        # A system prompt may be about anybody.
        ({"subject": "patient-17"}, []),
        ({"owner": "ann", "subject": "patient-17"}, []),
    ],
)
def test_an_erasure_takes_them_along_though_nothing_else_is_stored(opened, folder, selector, left):
    store = opened()
    for owner in ("ann", "bob"):
        store.write(lambda db, owner=owner: warm_prefixes.put(db, prefix(owner))).result()
    request = ErasureRequest(Selector(**selector), "test")
    places = ErasureScope(folder.parent)
    if selector == {"owner": "ann"}:
        assert erasure.erase(store, b"k" * 32, request, places).is_gone
    else:
        with pytest.raises(NotFound):
            erasure.erase(store, b"k" * 32, request, places)
    assert store.read(owners) == left
