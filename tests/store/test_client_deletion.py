"""What a client deletes stays deleted, whichever copy of the database is put back."""

from __future__ import annotations

import shutil

import pytest

from edgeagent.errors import StorageFailed, StorageFull
from edgeagent.store import audit, client_deletion, journal_progress, ownership
from edgeagent.store.client_deletion import DeletionTarget
from edgeagent.store.journal_replay import selector_entry
from edgeagent.store.ownership import Selector
from tests.store.rows import conversation, item, n_rows, transcript


class Stop(BaseException):
    """In the place of a kill."""


def fill(db):
    for name in ("gone", "left"):
        conversation(db, name)
        conversation(db, f"{name}_item", response=False)
        transcript(db, name)
        db.execute(
            "insert into response (id, owner, model, status, created_ms) "
            f"values ('resp_alone_{name}', 'ann', 'm', 'completed', 1)"
        )
        item(db, f"alone_{name}", response=f"resp_alone_{name}")


GONE = [
    DeletionTarget("conversation", "conv_gone", "ann"),
    DeletionTarget("item", "msg_gone_item_0", "ann", "conv_gone_item"),
    DeletionTarget("transcript", "trans_gone", "ann"),
    DeletionTarget("response", "resp_alone_gone", "ann"),
]
FEWER = {
    "conversation": 1, "response": 2, "response_content": 1, "item": 4, "item_content": 4,
    "item_fts": 4, "transcript": 1, "segment": 2, "segment_content": 2, "segment_fts": 2,
}  # fmt: skip


def put_back(store, copy):
    """An older copy in the place of the database, as after a restore by hand."""
    store.close()
    for end in ("-wal", "-shm"):
        store.files.database.with_name(store.files.database.name + end).unlink(missing_ok=True)
    shutil.copy(copy, store.files.database)


def actions(store):
    return store.read(
        lambda db: [(r.action, r.object) for r in audit.rows(db) if r.action.startswith("replay")]
    )


@pytest.fixture
def store(opened):
    made = opened()
    made.write(fill).result()
    return made


def test_an_older_copy_loses_again_what_clients_deleted_and_says_so(store, opened):
    older = store.backups.take().path
    before = store.read(n_rows)
    for target in GONE:
        assert client_deletion.delete(store, target) is True
    after = store.read(n_rows)
    put_back(store, older)
    store = opened()
    assert store.read(n_rows) == after
    assert {name: n - after.get(name, 0) for name, n in before.items() if n != after.get(name)} == {
        name: n for name, n in FEWER.items() if name in before
    }
    [notice] = store.notices
    assert notice.code == "store_replayed" and "4 deletions of single rows" in notice.message
    assert actions(store) == [("replay.delete", "journal:1-4 rows:4")]
    store.close()
    assert opened().notices == [], "once"


def test_ids_that_are_not_there_another_owners_or_held_enter_nothing(store):
    store.write(
        lambda db: ownership.set_hold(db, Selector(conversation="conv_gone"), True)
    ).result()
    for target, said in (
        (DeletionTarget("conversation", "conv_gone", "ann"), None),
        (DeletionTarget("conversation", "conv_left", "bob"), False),
        (DeletionTarget("response", "resp_none", "ann"), False),
        (DeletionTarget("item", "msg_gone_item_0", "ann", "conv_left"), False),
    ):
        assert client_deletion.delete(store, target) is said
    assert store.journal.read().entries == []


def test_the_journal_does_not_show_the_ids(store):
    client_deletion.delete(store, GONE[0])
    assert "conv_gone" not in str(store.journal.read())


def test_a_deletion_that_fails_is_withdrawn_and_one_cut_short_is_made_good(
    store, opened, monkeypatch
):
    def fails(*_args):
        raise StorageFailed("a broken disk")

    def ends(*_args, **_named):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("edgeagent.store.client_deletion.row_queries.remove", fails)
        with pytest.raises(StorageFailed):
            client_deletion.delete(store, GONE[0])
    store.close()
    store = opened()
    assert store.notices == [] and store.read(lambda db: has(db, "conv_gone"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", ends)
        with pytest.raises(Stop):
            client_deletion.delete(store, GONE[0])
    store.close()
    store = opened()
    assert "1 deletions" in store.notices[0].message
    assert not store.read(lambda db: has(db, "conv_gone"))
    assert store.read(lambda db: has(db, "conv_left"))


def has(db, name):
    return db.execute("select 1 from conversation where id = ?", (name,)).fetchone() is not None


def test_holds_and_deletions_are_replayed_in_their_order(store, opened):
    """Held when the backup was made, released, deleted; another one held after its neighbour went."""
    mine = Selector(owner="ann")
    older = None
    for kind in ("hold", "release"):
        entered = store.journal.append(kind, selector_entry(store.journal, mine))
        store.write(
            lambda db, kind=kind, entered=entered: (
                ownership.set_hold(db, mine, kind == "hold"),
                journal_progress.mark_applied(db, entered, entered.head.n),
            )
        ).result()
        older = older or store.backups.take().path
    assert client_deletion.delete(store, GONE[0]) is True
    put_back(store, older)
    store = opened()
    assert not store.read(lambda db: has(db, "conv_gone"))
    assert (
        store.read(lambda db: db.execute("select max(is_held) from conversation").fetchone()[0])
        == 0
    )


def test_many_deletions_are_replayed_in_few_transactions(store, opened):
    def many(db):
        for n in range(250):
            conversation(db, f"many_{n}", response=False, n_items=1)

    store.write(many).result()
    older = store.backups.take().path
    for n in range(250):
        assert client_deletion.delete(
            store, DeletionTarget("conversation", f"conv_many_{n}", "ann")
        )
    assert store.journal.read().head.n == 250
    put_back(store, older)
    store = opened()
    assert "250 deletions" in store.notices[0].message
    assert [said for said, _ in actions(store)] == ["replay.delete"] * 3


def test_a_client_may_delete_while_only_the_reserve_of_the_disk_is_left(store, opened):
    store.close()
    store = opened(reserve_bytes=1 << 60)
    with pytest.raises(StorageFull):
        store.write(lambda db: conversation(db, "new")).result()
    for target in GONE:
        assert client_deletion.delete(store, target) is True
