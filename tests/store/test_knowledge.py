"""Documents, vector stores and chunks in the database: search, whose they are, and what takes them away."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest

from edgeagent.errors import InvalidParameter, RateLimited
from edgeagent.store import chunks, documents, row_deletion, vector_stores
from edgeagent.store.attribute_filter import AttributeFilter
from edgeagent.store.chunks import NewChunk, stored_vector
from edgeagent.store.documents import DocumentBounds, NewDocument
from edgeagent.store.ownership import TABLES, Selector, counts, set_hold
from edgeagent.store.retention import Sweeper
from edgeagent.store.row_queries import is_removable
from edgeagent.store.vector_stores import NewStore, NewStoreFile
from edgeagent.types.list_pages import Page
from tests.store.rows import DAY, NOW, n_rows
from tests.store.test_retention import FakeClock

BOUNDS = DocumentBounds(n_documents=20, n_bytes=10_000)
TEXTS = ("The ferry leaves at nine.", "Dogs travel free on the ferry.", "Bicycles cost five euros.")


@pytest.fixture
def store(opened):
    return opened()


def vector(n: int) -> bytes:
    made = random.Random(n)
    return array("f", [made.gauss(0, 1) for _ in range(64)]).tobytes()


def add_document(
    db: Any, n: int, *, owner: str = "ann", at: int = NOW, text: bytes = b"abc"
) -> str:
    document = NewDocument(
        id=f"file-{owner}{n}", owner=owner, name=f"{n}.md", purpose="assistants", digest=str(n),
        n_bytes=len(text),
    )  # fmt: skip
    documents.add(db, document, BOUNDS, now_ms=at)
    documents.add_parts(db, document.id, 0, [text])
    assert documents.complete(db, document.id)
    return document.id


def add_store(
    db: Any, n: int = 1, *, owner: str = "ann", at: int = NOW, metadata: dict[str, str] | None = None,
    attributes: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """A store with one indexed document of three chunks; gives its number."""
    store = NewStore(id=f"vs_{owner}{n}", owner=owner, name=f"store {n}", metadata=metadata or {})
    vector_stores.add(db, store, 10, now_ms=at)
    row = vector_stores.get(db, owner, store.id)
    assert row is not None
    file = NewStoreFile(
        id=f"vsf_{owner}{n}", document_id=add_document(db, n, owner=owner, at=at), sizes=(200, 0),
        attributes=attributes or {},
    )  # fmt: skip
    assert vector_stores.add_files(db, owner, row["n"], [file], 10, now_ms=at) == []
    (opened,) = vector_stores.open_files(db, models=[], last_owner=None, besides=[])
    assert opened.store_n == row["n"]
    new = [NewChunk(text=text, headings="", page=None, answer=None) for text in TEXTS]
    assert chunks.add(db, opened.n, 0, new)
    vector_stores.set_parsed(db, opened.n)
    waiting = chunks.without_vector(db, [opened.n], 10)
    made = [
        (number, file_n, stored_vector(vector(i))) for i, (number, file_n, _) in enumerate(waiting)
    ]
    chunks.add_vectors(db, row["n"], made)
    vector_stores.finish(db, [opened.n], is_embedded=True)
    return int(row["n"])


def found_texts(db: Any, hits: list[chunks.ChunkHit], owner: str = "ann") -> list[str]:
    rows = chunks.contents(db, owner, [hit.chunk for hit in hits])
    return [rows[hit.chunk]["body"] for hit in hits if hit.chunk in rows]


def test_words_and_vectors_find_chunks_of_their_stores_only(conn):
    mine, other = add_store(conn), add_store(conn, 2, owner="bob")
    hits = chunks.by_words(conn, [mine], "do dogs travel?", 10)
    assert found_texts(conn, hits) == [TEXTS[1]]
    near = chunks.by_vector(conn, [mine], stored_vector(vector(2)), 2)
    assert found_texts(conn, near)[0] == TEXTS[2] and near[0].value > 0.99
    # Numbers of another owner's chunks give nothing, even if a search named its store.
    foreign = chunks.by_words(conn, [other], "ferry", 10)
    assert len(foreign) == 2 and found_texts(conn, foreign) == []
    assert not {hit.chunk for hit in foreign} & {hit.chunk for hit in hits + near}


def test_the_order_by_words_does_not_depend_on_other_owners(conn):
    mine = add_store(conn)
    before = chunks.by_words(conn, [mine], "ferry dogs travel bicycles", 10)
    other = add_store(conn, 2, owner="bob")
    add_document(conn, 7, owner="bob")
    file = NewStoreFile(id="vsf_bob7", document_id="file-bob7", sizes=(200, 0), attributes={})
    assert vector_stores.add_files(conn, "bob", other, [file], 10, now_ms=NOW) == []
    (opened,) = vector_stores.open_files(conn, models=[], last_owner=None, besides=[])
    # Words that are rare here are common there, in chunks of the same length.
    new = [NewChunk(text="Dogs travel bicycles on deck.", headings="", page=None, answer=None)] * 60
    assert chunks.add(conn, opened.n, 0, new)
    after = chunks.by_words(conn, [mine], "ferry dogs travel bicycles", 10)
    assert [hit.chunk for hit in after] == [hit.chunk for hit in before]
    assert [hit.value for hit in after] == pytest.approx([hit.value for hit in before], rel=0.1)


def test_chunks_of_a_store_that_is_being_deleted_are_not_found(conn):
    mine, other = add_store(conn), add_store(conn, 2, owner="bob")
    conn.execute("update vector_store set is_deleting = 1 where n = ?", (other,))
    hits = chunks.by_words(conn, [mine], "ferry", 10)
    assert len(hits) == 2 and len(found_texts(conn, hits)) == 2


def test_similarities_are_those_of_the_stores_chunks_only(conn):
    mine, other = add_store(conn), add_store(conn, 2, owner="bob")
    wanted = stored_vector(vector(1))
    all_hits = {h.chunk: h.value for h in chunks.by_vector(conn, [mine, other], wanted, 10)}
    own = [hit.chunk for hit in chunks.by_vector(conn, [mine], wanted, 10)]
    assert len(all_hits) == 6 and len(own) == 3
    found = chunks.similarities(conn, [mine], wanted, [*all_hits, 999])
    assert {hit.chunk: hit.value for hit in found} == {one: all_hits[one] for one in own}
    assert chunks.similarities(conn, [mine], wanted, []) == []


@pytest.mark.parametrize(
    "text",
    ['"', "a* OR b*", "scope : s2", "NEAR(a b, 2)", "plain:x", "%_' --", "(", "^ferry", "{plain scope}: x",
     "\x00", "ferry" * 1000, "AND", "s1"],
)  # fmt: skip
def test_a_query_has_no_operators(conn, text):
    mine = add_store(conn)
    add_store(conn, 2, owner="bob")
    for hit in chunks.by_words(conn, [mine], text, 10):
        assert found_texts(conn, [hit])


def test_filters_compare_values_of_one_type(conn):
    number = add_store(conn, attributes={"year": 2024, "lang": "en", "is_open": True, "a.b": "x"})
    cases: list[tuple[Any, bool]] = [
        ({"type": "eq", "key": "year", "value": 2024}, True),
        ({"type": "gte", "key": "year", "value": 2024.0}, True),
        ({"type": "lt", "key": "year", "value": 2024}, False),
        ({"type": "gt", "key": "year", "value": "2000"}, False),
        ({"type": "eq", "key": "is_open", "value": True}, True),
        ({"type": "eq", "key": "is_open", "value": 1}, False),
        ({"type": "ne", "key": "lang", "value": "de"}, True),
        ({"type": "ne", "key": "absent", "value": "de"}, True),
        ({"type": "in", "key": "lang", "value": ["de", "en"]}, True),
        ({"type": "nin", "key": "lang", "value": ["de", "en"]}, False),
        ({"type": "eq", "key": "a.b", "value": "x"}, True),
        ({"type": "eq", "key": "' or 1=1 --", "value": "x"}, False),
        ({"type": "or", "filters": [
            {"type": "eq", "key": "lang", "value": "de"},
            {"type": "and", "filters": [{"type": "eq", "key": "lang", "value": "en"}]}]}, True),
    ]  # fmt: skip
    for given, is_found in cases:
        only = AttributeFilter(given)
        assert bool(chunks.by_words(conn, [number], "ferry", 10, only)) is is_found, given
        near = chunks.by_vector(conn, [number], stored_vector(vector(0)), 3, only)
        assert bool(near) is is_found, given


@pytest.mark.parametrize(
    "given",
    [
        [], {}, {"type": "like", "key": "a", "value": "b"}, {"type": "and", "filters": []},
        {"type": "gt", "key": "a", "value": True}, {"type": "eq", "key": "", "value": 1},
        {"type": "eq", "key": "a", "value": None}, {"type": "in", "key": "a", "value": "b"},
        {"type": "and", "filters": [{"type": "eq", "key": "a", "value": 1}] * 65},
    ],
)  # fmt: skip
def test_bad_filters_are_refused(given):
    with pytest.raises(InvalidParameter, match="`filters`"):
        AttributeFilter(given)


def test_a_document_belongs_to_its_owner(conn):
    add_document(conn, 1)
    number = add_store(conn, 2, owner="bob")
    assert documents.get(conn, "bob", "file-ann1") is None
    file = NewStoreFile(id="vsf_x", document_id="file-ann1", sizes=(200, 0))
    assert vector_stores.add_files(conn, "bob", number, [file], 10, now_ms=NOW) == ["file-ann1"]
    assert vector_stores.get(conn, "ann", "vs_bob2") is None
    assert vector_stores.file(conn, "ann", "vs_bob2", "file-bob2") is None
    page = documents.all_files(conn, "ann", Page())
    assert [row["id"] for row in page.rows] == ["file-ann1"]


def test_owners_have_bounds(conn):
    for n in range(3):
        add_document(conn, n, text=b"x" * 3000)
    with pytest.raises(RateLimited, match="3 documents with 9000 bytes"):
        add_document(conn, 4, text=b"x" * 3000)
    for n in range(10):
        vector_stores.add(conn, NewStore(id=f"vs_{n}", owner="ann", name=""), 10, now_ms=NOW)
    with pytest.raises(RateLimited, match="10 vector stores"):
        vector_stores.add(conn, NewStore(id="vs_x", owner="ann", name=""), 10, now_ms=NOW)


def test_the_same_document_again_keeps_its_chunks_unless_their_sizes_change(conn):
    number = add_store(conn)
    again = NewStoreFile(id="vsf_x", document_id="file-ann1", sizes=(200, 0), attributes={"a": 1})
    vector_stores.add_files(conn, "ann", number, [again], 10, now_ms=NOW)
    row = vector_stores.file(conn, "ann", "vs_ann1", "file-ann1")
    assert row is not None and (row["status"], row["n_chunks"]) == ("completed", 3)
    assert row["attributes"] == '{"a": 1}'
    other = NewStoreFile(id="vsf_y", document_id="file-ann1", sizes=(100, 0))
    vector_stores.add_files(conn, "ann", number, [other], 10, now_ms=NOW)
    row = vector_stores.file(conn, "ann", "vs_ann1", "file-ann1")
    assert row is not None and (row["status"], row["n_chunks"]) == ("in_progress", 0)
    assert chunks.by_words(conn, [number], "ferry", 10) == []


def test_owners_take_turns(conn):
    add_store(conn), add_store(conn, 2, owner="bob")
    for owner, number, n in (("ann", 1, 3), ("ann", 1, 4), ("bob", 2, 5)):
        file = NewStoreFile(
            id=f"vsf_{n}", document_id=add_document(conn, n, owner=owner), sizes=(9, 0)
        )
        vector_stores.add_files(conn, owner, number, [file], 10, now_ms=NOW)
    opened = vector_stores.open_files(conn, models=[], last_owner="ann", besides=[])
    assert [file.owner for file in opened] == ["bob"]
    opened = vector_stores.open_files(conn, models=[], last_owner="bob", besides=[])
    assert [file.owner for file in opened] == ["ann", "ann"]


def deleted(db: Any, selector: Selector) -> dict[str, int]:
    """Delete as an erasure does; gives what is left."""
    for table in TABLES:
        key = row_deletion.key_of(table)
        where, values = selector.where(table), selector.values()
        rows = db.execute(f"select {key} from {table} where {where}", values).fetchall()
        if rows:
            row_deletion.delete(db, table, [row[0] for row in rows])
    return n_rows(db)


ALL = {
    "document": 1, "document_part": 1, "vector_store": 1, "vector_store_file": 1, "chunk": 3,
    "chunk_bits": 3, "chunk_vector": 3, "chunk_fts": 3,
}  # fmt: skip


def test_everything_of_an_owner_is_found_and_deleted(conn):
    add_store(conn), add_store(conn, 2, owner="bob")
    assert counts(conn, Selector(owner="ann"))["chunk"] == 3
    assert deleted(conn, Selector(owner="ann")) == ALL
    assert deleted(conn, Selector(owner="bob")) == {}


def test_a_store_about_a_person_goes_with_its_documents(conn):
    add_store(conn, 1, metadata={"subject": "mr-17"}), add_store(conn, 2)
    assert deleted(conn, Selector(subject="mr-17")) == ALL
    assert deleted(conn, Selector(conversation="conv_1")) == ALL


def test_a_held_store_keeps_its_documents(conn):
    add_store(conn)
    set_hold(conn, Selector(owner="ann"), True)
    values = {"id": "file-ann1", "owner": "ann"}
    assert is_removable(conn, "document", "id = :id and owner = :owner", values) is None
    conn.execute("update document set is_held = 0")
    assert is_removable(conn, "document", "id = :id and owner = :owner", values) is None
    assert vector_stores.expired(conn, now_ms=NOW) == []
    vector_stores.begin_deletion(conn, "ann", "vs_ann1")
    assert vector_stores.get(conn, "ann", "vs_ann1") is not None


def test_retention_counts_from_the_last_use(store):
    def seed(db: Any) -> None:
        add_store(db, 1, at=NOW - 40 * DAY)
        add_store(db, 2, at=NOW - 40 * DAY)
        vector_stores.touch(db, [2], now_ms=NOW - DAY)
        add_document(db, 3, at=NOW - 40 * DAY)
        add_document(db, 4, at=NOW)

    clock = FakeClock()
    Sweeper(store, b"k" * 32, {}, clock).sweep()  # which knows the clock from then on
    store.write(seed).result()
    Sweeper(store, b"k" * 32, {"knowledge": 30}, clock).sweep()
    assert store.read(n_rows) == ALL | {"document": 2, "document_part": 2}
    left = store.read(lambda db: db.execute("select id from document order by id").fetchall())
    assert left == [("file-ann2",), ("file-ann4",)]
