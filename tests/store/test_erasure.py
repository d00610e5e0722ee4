"""Erased is gone: from the tables, the search, the free pages, the log, and backups taken afterwards."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from edgeagent.errors import BadRequest, Forbidden, LegalHold, NotFound, StoreDamaged
from edgeagent.store import audit, erasure, export, ownership, residue_scan, row_deletion
from edgeagent.store.clock import BUILD_MS, DeviceClock
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.database_files import beside
from edgeagent.store.database_pages import decrypted
from edgeagent.store.erasure_request import ErasureRequest, ErasureScope
from edgeagent.store.ownership import Selector
from edgeagent.store.retention import Sweeper
from tests.store.rows import conversation, feedback, item, n_rows, request, transcript

KEY = b"k" * 32
# One for each column that holds content; the last words are what the search keeps.
CANARIES = {
    "item": "wiretap canary of the item ünïcödé qzitemword4711",
    "response": "wiretap canary of the response",
    "segment": "wiretap canary of the segment kvsegmentword4712",
    "feedback": "wiretap canary of the feedback",
    "metadata": "wiretap canary of the metadata",
}
NEEDLES = [*CANARIES.values(), "qzitemword4711", "kvsegmentword4712", "wiretap"]


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def places(folder):
    return ErasureScope(folder.parent)


def seed(db):
    """The canaries, among rows of others."""
    for n in range(30):
        conversation(db, f"other{n}", owner="bob", text=f"harmless words of number {n} and more")
        transcript(db, f"other{n}", owner="bob", text=f"harmless speech of number {n}")
    conversation(db, "c", subject="patient-17", text=CANARIES["item"])
    metadata = json.dumps({"note": CANARIES["metadata"]})
    db.execute("update conversation set metadata = ? where id = 'conv_c'", (metadata,))
    body = json.dumps({"instructions": CANARIES["response"]})
    db.execute("update response_content set body = ? where response_id = 'resp_c'", (body,))
    transcript(db, "c", subject="patient-17", text=CANARIES["segment"])
    feedback(db, "msg_c_0", text=CANARIES["feedback"])
    request(db, "c")
    request(db, "other", owner="bob")


def raw_hits(folder):
    """Needles in the bytes of the files as they lie there."""
    found = Counter()
    for path in folder.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found.update(needle for needle in NEEDLES if needle.encode() in content)
    return dict(found)


def page_hits(store, *paths):
    """Needles in the decrypted pages, those of the search with the beginning of their word."""
    found = Counter()
    for path in paths or sorted(store.files.folder.glob("edgeagent.db*")):
        if path.name.endswith("-shm") or not path.stat().st_size:
            continue
        for page in decrypted(path, store.secret.raw):
            # The longest words' other ends: the search leaves out beginnings that words share.
            ends = (*NEEDLES, "emword4711", "mentword4712")
            found.update(needle for needle in ends if needle.encode() in page)
    return dict(found)


def erase(store, places, selector, **options):
    return erasure.erase(store, KEY, ErasureRequest(selector, "cli:test", **options), places)


@pytest.mark.parametrize(
    "selectors",
    [
        [Selector(owner="ann")],
        [Selector(subject="patient-17")],
        [Selector(conversation="conv_c"), Selector(owner="ann", subject="patient-17")],
    ],
)
def test_canaries_are_never_in_the_raw_bytes_and_after_erasure_nowhere(
    store, folder, places, selectors
):
    store.write(seed).result()
    assert raw_hits(folder) == {}
    store.checkpoint().result()
    assert raw_hits(folder) == {}
    assert set(NEEDLES) <= set(page_hits(store)) | {"qzitemword4711", "kvsegmentword4712"}
    before = store.read(lambda db: n_rows(db))
    old_backup = store.backups.take()
    for selector in selectors:
        receipt = erase(store, places, selector)
        assert receipt.is_gone, receipt.shown()
        assert not receipt.is_vacuumed
    assert page_hits(store) == {}
    assert raw_hits(folder) == {}
    assert page_hits(store, store.backups.take().path) == {}
    assert page_hits(store, old_backup.path)  # the scan can find: a copy from before has them
    left = store.read(n_rows)
    assert left["conversation"] == before["conversation"] - 1
    assert left["item_fts"] == left["item_content"] == left["item"] == 60
    assert left["segment_fts"] == left["segment"] == 60
    assert "feedback" not in left
    assert left["request"] == (1 if selectors[0].is_whole_owner else 2)
    assert store.read(row_deletion.marked) is None


def test_a_receipt_says_what_went_and_what_still_holds_it(store, places):
    store.write(seed).result()
    first, second = store.backups.take(), store.backups.take()
    receipt = erase(store, places, Selector(subject="patient-17"))
    shown = json.loads(json.dumps(receipt.shown()))
    assert shown["what"] == {"subject": "patient-17"}
    assert shown["erased"] == {
        "conversation": 1, "response": 1, "response_content": 1, "item": 2, "item_content": 2,
        "item_fts": 2, "transcript": 1, "segment": 2, "segment_content": 2, "segment_fts": 2,
        "feedback": 1, "feedback_content": 1,
    }  # fmt: skip
    assert shown["is_gone"] is True
    assert shown["proof"]["n_probes"] > 10
    assert [entry["file"] for entry in shown["backups_holding"]] == [
        first.path.name,
        second.path.name,
    ]
    assert shown["backups_holding"][0]["texts_found"] > 10
    assert [entry["dropped_after"] for entry in shown["backups_holding"]] == [
        "2 more backups",
        "3 more backups",
    ]
    rows = store.read(lambda db: audit.page(db, 0, 10))
    assert [row.action for row in rows] == ["data.erase.begin", "data.erase"]
    assert (rows[1].seq, rows[1].digest) == (shown["audit_seq"], shown["digest"])
    assert "patient" not in rows[0].object + rows[1].object


def test_backups_from_before_go_where_that_is_wanted(store, folder, places):
    store.write(seed).result()
    old = store.backups.take()
    (store.files.quarantine / "damaged.db").write_bytes(b"noise" * 2000)
    receipt = erase(store, places, Selector(owner="ann"), drop_backups=True)
    assert receipt.backups_removed == [old.path.name, "damaged.db"]
    assert receipt.backups_holding == []
    (new,) = store.backups.listed()
    assert new.number == old.number + 1
    assert page_hits(store, new.path) == {}


def test_a_damaged_copy_that_was_set_aside_is_named_and_hinders_nothing(store, places):
    store.write(seed).result()
    (store.files.quarantine / "damaged.db").write_bytes(b"noise" * 2000)
    receipt = erase(store, places, Selector(owner="ann"))
    assert receipt.is_gone
    assert [name.rpartition("/")[2] for name in receipt.proof.unreadable] == ["damaged.db"]


def test_a_text_that_a_file_outside_the_database_still_has_is_found(store, folder, places):
    store.write(seed).result()
    (folder.parent / "debug.log").write_text("x" * 5000 + CANARIES["item"] + " 0" + "y" * 5000)
    receipt = erase(store, places, Selector(owner="ann"))
    assert not receipt.is_gone
    assert [name.rpartition("/")[2] for name in receipt.proof.residue] == ["debug.log"]
    assert not receipt.is_vacuumed


def test_a_text_left_in_a_free_page_is_found_and_vacuumed_away(store, places):
    store.write(seed).result()

    def leak(db):
        db.execute("pragma secure_delete = off")
        db.execute("create table leak (body text)")
        for _ in range(400):
            db.execute("insert into leak values (?)", (CANARIES["item"] + " 0",))
        return

    store.write(leak).result()
    store.write(lambda db: db.execute("drop table leak") and None).result()
    store.write(lambda db: db.execute("pragma secure_delete = on") and None).result()
    store.checkpoint().result()
    receipt = erase(store, places, Selector(owner="ann"))
    assert receipt.is_vacuumed
    assert receipt.is_gone
    assert page_hits(store) == {}


def test_what_others_wrote_alike_is_no_trace(store, places):
    def fill(db):
        conversation(db, 1, text="You are a helpful assistant for everyone here")
        conversation(db, 2, owner="bob", text="You are a helpful assistant for everyone here")

    store.write(fill).result()
    receipt = erase(store, places, Selector(owner="ann"))
    assert receipt.is_gone
    assert receipt.proof.shared, receipt.proof


def test_held_rows_refuse_with_reason_and_count(store, places):
    store.write(seed).result()
    store.write(lambda db: ownership.set_hold(db, Selector(conversation="conv_c"), True)).result()
    before = store.read(n_rows)
    with pytest.raises(LegalHold, match=r"under legal hold \(1 of feedback, 2 of item"):
        erase(store, places, Selector(owner="ann"))
    assert store.read(n_rows) == before
    assert store.read(lambda db: audit.page(db, 0, 10)) == []
    receipt = erase(store, places, Selector(owner="ann"), except_held=True)
    assert receipt.held_back == {"feedback": 1, "item": 2, "response": 1, "conversation": 1}
    left = store.read(lambda db: ownership.counts(db, Selector(owner="ann")))
    assert {table: n for table, n in left.items() if n} == receipt.held_back
    store.write(lambda db: ownership.set_hold(db, Selector(owner="ann"), False)).result()
    assert erase(store, places, Selector(owner="ann")).is_gone


def test_more_than_a_batch_is_erased(store, places):
    n = 2 * row_deletion.BATCH + 3

    def fill(db):
        for i in range(n):
            item(db, i, text=f"lonely item number {i} of many more")

    store.write(fill).result()
    receipt = erase(store, places, Selector(owner="ann"))
    assert receipt.erased["item"] == receipt.erased["item_fts"] == n
    assert receipt.proof.n_probes == residue_scan.MOST_PROBES
    assert receipt.is_gone


def test_caches_elsewhere_are_told_to_forget(store, folder):
    store.write(seed).result()
    told = []

    def forget(selector):
        told.append(selector)
        return ["prefix caches"]

    places = ErasureScope(folder.parent, forget=forget)
    receipt = erase(store, places, Selector(conversation="conv_c"))
    assert told == [Selector(conversation="conv_c")]
    assert receipt.forgotten == ["prefix caches"]
    with pytest.raises(NotFound):
        erase(store, places, Selector(owner="nobody"))
    assert told[1:] == [Selector(owner="nobody")]  # what was never stored may be cached


def test_nothing_to_erase_and_nothing_meant_are_errors(store, places):
    with pytest.raises(NotFound, match="Nothing is stored for owner 'nobody'"):
        erase(store, places, Selector(owner="nobody"))
    with pytest.raises(BadRequest, match="is given"):
        Selector()
    with pytest.raises(Forbidden, match="is not the owner of this key"):
        Selector(owner="bob").within("ann")
    assert Selector(subject="s").within("ann") == Selector(owner="ann", subject="s")


def test_the_same_digest_for_the_same_data_and_another_for_other(opened, places, folder):
    digests = []
    store = opened()
    for text in ("one text", "one text", "another text"):
        store.write(lambda db, text=text: conversation(db, 1, text=text)).result()
        digests.append(erase(store, places, Selector(owner="ann")).digest)
    assert digests[0] == digests[1] != digests[2]


def test_an_export_has_everything_and_is_json(store):
    store.write(seed).result()
    pieces: list[bytes] = []
    selector = Selector(owner="ann")
    n = store.read(lambda db: export.write(db, selector, BUILD_MS, pieces.append))
    document = json.loads(b"".join(pieces))
    assert document["what"] == {"owner": "ann"}
    assert list(document)[3:] == list(export.SECTIONS)
    assert {name: len(document[name]) for name in export.SECTIONS} == {
        "conversation": 1, "response": 1, "item": 2, "transcript": 1, "segment": 2, "audio_job": 0,
        "feedback": 1, "request": 1, "decision": 0, "batch_file": 0, "batch_line": 0, "batch": 0, "key": 0,
        "vector_store": 0, "vector_store_file": 0, "document": 0, "document_part": 0, "chunk": 0,
    }  # fmt: skip
    assert n == 9
    text = json.dumps(document, ensure_ascii=False)
    assert all(canary in text for canary in CANARIES.values())
    assert document["item"][0]["body"]["content"][0]["text"] == CANARIES["item"] + " 0"
    assert document["request"][0]["total_ms"] == 12.5
    assert "bob" not in text


@pytest.mark.parametrize("limit", [1, 2, 3, 60, 1000])
def test_an_export_in_pages_of_any_size_is_the_same(store, limit):
    store.write(seed).result()
    selector = Selector(owner="bob")

    def read(start):
        return store.read(lambda db: export.page(db, selector, start, limit))

    document = json.loads(b"".join(export.document(selector, 1, read)))
    whole = json.loads(
        b"".join(
            export.document(
                selector, 1, lambda at: store.read(lambda db: export.page(db, selector, at))
            )
        )
    )
    assert document == whole
    assert len(document["item"]) == 60


def test_an_erased_owner_exports_nothing(store, places):
    store.write(seed).result()
    erase(store, places, Selector(owner="ann"))
    pieces: list[bytes] = []
    assert store.read(lambda db: export.write(db, Selector(owner="ann"), 1, pieces.append)) == 0
    assert all(json.loads(b"".join(pieces))[name] == [] for name in export.SECTIONS)


def test_an_erasure_that_was_cut_short_is_cleaned_up_by_the_next_sweep(store, places):
    store.write(seed).result()
    store.checkpoint().result()

    def delete_all(db):
        for table in ownership.TABLES:
            erasure._erase_batch(db, table=table, selector=Selector(owner="ann"))

    store.write(delete_all).result()  # and here the power went
    assert page_hits(store)
    assert store.read(row_deletion.marked) is not None
    Sweeper(store, KEY, {}, DeviceClock()).sweep()
    assert page_hits(store) == {}
    assert store.read(row_deletion.marked) is None


def test_a_store_in_plain_text_is_searched_as_well(folder):
    with Database(folder, None, StoreOptions(0.0, 0)) as store:
        store.write(seed).result()
        store.checkpoint().result()
        assert raw_hits(folder)
        receipt = erase(store, ErasureScope(folder.parent), Selector(owner="ann"))
        assert receipt.is_gone
        assert raw_hits(folder) == {}


def test_pages_do_not_open_with_another_key(store):
    store.write(seed).result()
    store.checkpoint().result()
    with pytest.raises(StoreDamaged, match="does not decrypt"):
        list(decrypted(store.files.database, b"x" * 32))


def test_the_log_is_looked_into_before_it_is_emptied(store):
    store.write(seed).result()
    log, _ = beside(store.files.database)
    pages = b"".join(decrypted(log, store.secret.raw))
    assert all(canary.encode() in pages for canary in CANARIES.values())
