"""What was computed of dialogues: it goes with whatever is deleted of them, and its files with it."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec
import pytest

from edgeagent.errors import StoreDamaged
from edgeagent.store import conversations, items, prefix_files, prefixes, responses, row_deletion
from edgeagent.store.items import Item
from edgeagent.store.prefixes import PrefixPiece
from edgeagent.store.responses import StoredResponse

NOW = 1_790_000_000_000


def tokens(*numbers: int) -> bytes:
    return array("i", numbers).tobytes()


def piece(response_id: str, **fields) -> PrefixPiece:
    given = {
        "id": prefixes.new_name(), "owner": "ann", "scope": "key_1", "thread": response_id,
        "response_id": response_id, "fits": "f", "base_id": None, "first": 0,
        "tokens": tokens(1, 2, 3), "key": prefixes.new_key(), "n_bytes": 0, "used_ms": NOW,
    }  # fmt: skip
    return PrefixPiece(**(given | fields))


def answer(db, name: str, **fields) -> str:
    said = [
        Item(kind="message", role=role, body={"type": "message"}, is_input=role == "user")
        for role in ("user", "assistant")
    ]
    response = StoredResponse(
        id=name, owner="ann", model="m", status="completed", body={}, items=said, **fields
    )
    responses.put(db, response, now_ms=NOW, is_searchable=True)
    return name


def in_conversation(db) -> tuple[str, str]:
    made = conversations.create(db, "ann", metadata={}, now_ms=NOW)["id"]
    return made, answer(db, "resp_c", conversation_id=made)


@pytest.mark.parametrize(
    "delete",
    [
        lambda db: responses.delete(db, "ann", "resp_1"),
        lambda db: responses.delete(db, "ann", "resp_2"),
        lambda db: row_deletion.delete(db, "response", ["resp_1"]),
        lambda db: row_deletion.delete_content(db, "item", [db.execute(
            "select rowid from item where response_id = 'resp_1'").fetchone()[0]]),
        lambda db: row_deletion.delete(db, "item", [db.execute(
            "select rowid from item where response_id = 'resp_2'").fetchone()[0]]),
    ],
)  # fmt: skip
def test_whatever_of_a_chain_is_deleted_takes_what_was_computed_of_it(conn, delete):
    answer(conn, "resp_1")
    answer(conn, "resp_2", previous_id="resp_1", thread="resp_1")
    answer(conn, "resp_3")
    for name, thread in (("resp_1", "resp_1"), ("resp_2", "resp_1"), ("resp_3", "resp_3")):
        assert prefixes.insert(conn, piece(name, thread=thread))
    delete(conn)
    kept = conn.execute("select response_id from prefix").fetchall()
    assert kept == [("resp_3",)]


def test_so_does_whatever_of_a_conversation_is_deleted(conn):
    for delete in (
        lambda name, item: items.delete(conn, "ann", "conversation_id", name, item),
        lambda name, item: conversations.delete(conn, "ann", name),
        lambda name, item: responses.delete(conn, "ann", "resp_c"),
    ):
        name, response_id = in_conversation(conn)
        item = items.made(conn, "ann", response_id)
        assert item, "it consists of something"
        item_id = conn.execute("select id from item").fetchone()[0]
        assert prefixes.insert(conn, piece(response_id, thread=name))
        delete(name, item_id)
        assert prefixes.totals(conn) == (0, 0)
        conversations.delete(conn, "ann", name)


def test_nothing_is_kept_of_a_response_that_is_not_there_or_another_s(conn):
    answer(conn, "resp_1")
    assert not prefixes.insert(conn, piece("resp_2"))
    assert not prefixes.insert(conn, piece("resp_1", owner="ben"))
    assert prefixes.insert(conn, piece("resp_1"))
    for owner, scope, fits in (("ben", "key_1", "f"), ("ann", "key_2", "f"), ("ann", "key_1", "g")):
        assert prefixes.of_thread(conn, owner, scope, "resp_1", fits) == []
    assert len(prefixes.of_thread(conn, "ann", "key_1", "resp_1", "f")) == 1


def test_pieces_make_chains_and_a_branch_leaves_what_it_does_not_share():
    one = piece("r", tokens=tokens(1, 2, 3, 4))
    two = piece("r", tokens=tokens(5, 6), base_id=one.id, first=4)
    aside = piece("r", tokens=tokens(7, 8, 9), base_id=two.id, first=3)
    lost = piece("r", base_id="pfx_gone", first=3)
    found = prefixes.chains([one, two, aside, lost])
    assert {name: list(chain.tokens) for name, chain in found.items()} == {
        one.id: [1, 2, 3, 4], two.id: [1, 2, 3, 4, 5, 6], aside.id: [1, 2, 3, 7, 8, 9],
    }  # fmt: skip
    assert found[aside.id].ends() == [4, 3, 6]
    for wanted, base, n in (
        ([1, 2, 3, 4, 5, 6, 7], two, 6), ([1, 2, 3, 7, 1], aside, 4), ([1, 2], aside, 2),
        ([9], None, 0),
    ):  # fmt: skip
        assert prefixes.best(found, array("i", wanted)) == (base, n)


def test_the_threads_that_were_not_used_for_longest_make_room(conn):
    for n in range(4):
        answer(conn, f"resp_{n}")
        prefixes.insert(conn, piece(f"resp_{n}", n_bytes=100, used_ms=NOW + n))
    prefixes.touch(conn, "resp_0", NOW + 9)
    assert prefixes.shrink(conn, 250) == 2
    left = conn.execute("select thread from prefix order by thread").fetchall()
    assert left == [("resp_0",), ("resp_3",)] and prefixes.totals(conn) == (2, 200)
    assert prefixes.shrink(conn, 0) == 2


def written(folder: Path, data: list[bytes], **fields) -> PrefixPiece:
    """A piece of records with one token each."""
    made = piece("r", tokens=tokens(*range(len(data))), **fields)
    size = sum(prefix_files.append(folder, made, n, n, n + 1, each) for n, each in enumerate(data))
    return msgspec.structs.replace(made, n_bytes=size)


def chain(made: PrefixPiece) -> prefixes.PrefixChain:
    return prefixes.chains([made])[made.id]


def test_records_are_read_back_from_where_they_are_wanted(tmp_path: Path):
    data = [bytes([n]) * 1000 for n in range(5)]
    made = written(tmp_path, data)
    assert b"\1" * 16 not in (tmp_path / made.id).read_bytes()
    for n_cached in range(5):
        found = prefix_files.records(tmp_path, chain(made), n_cached)
        assert [record.read() for record in found] == data[n_cached:]
        assert [(r.first, len(r.tokens)) for r in found] == [(n, n + 1) for n in range(n_cached, 5)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: raw + b"x",
        lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:],
        lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
        lambda raw: raw[:7] + bytes([raw[7] ^ 1]) + raw[8:],
        lambda raw: raw[len(raw) // 2 :] + raw[: len(raw) // 2],
    ],
)
def test_a_file_that_is_not_what_was_written_is_noticed(tmp_path: Path, spoil):
    made = written(tmp_path, [b"a" * 500, b"b" * 500])
    path = tmp_path / made.id
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(StoreDamaged):
        for record in prefix_files.records(tmp_path, chain(made), 0):
            record.read()


def test_another_s_key_or_name_opens_nothing(tmp_path: Path):
    made = written(tmp_path, [b"a" * 500])
    wrong = msgspec.structs.replace(made, key=prefixes.new_key())
    renamed = msgspec.structs.replace(made, id=prefixes.new_name())
    (tmp_path / renamed.id).write_bytes((tmp_path / made.id).read_bytes())
    for other in (wrong, renamed):
        (record,) = prefix_files.records(tmp_path, chain(other), 0)
        with pytest.raises(StoreDamaged):
            record.read()


def test_files_that_no_row_knows_are_removed(opened):
    store = opened()
    folder = store.files.prefixes
    store.write(lambda db: answer(db, "resp_1")).result()
    kept = msgspec.structs.replace(written(folder, [b"x"]), response_id="resp_1", thread="resp_1")
    store.write(lambda db: prefixes.insert(db, kept)).result()
    orphan, busy = written(folder, [b"x"]), written(folder, [b"x"])
    assert prefix_files.tidy(folder, store, frozenset({busy.id})) == 1
    assert {path.name for path in folder.iterdir()} == {kept.id, busy.id}
    assert not (folder / orphan.id).exists()
    store.write(lambda db: responses.delete(db, "ann", "resp_1")).result()
    assert prefix_files.tidy(folder, store) == 2 and list(folder.iterdir()) == []
