"""Views for SQL: every table of the store is either readable or hidden, and each has every row it should."""

from __future__ import annotations

import pytest

from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.ownership import TABLES, Selector, counts
from edgeagent.store.query_views import HIDDEN, READABLE, open_views
from edgeagent.store.sql import scalar
from tests.store.rows import conversation, feedback, request, transcript


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Database(tmp_path_factory.mktemp("store"), None, StoreOptions(reserve_bytes=0)) as store:

        def fill(db):
            conversation(db, "c", subject="p")
            conversation(db, "o'brien", owner="o'brien", subject="p")
            transcript(db, "t", subject="p")
            feedback(db, "msg_c_0")
            request(db, "r")

        store.write(fill).result()
        yield store


def test_a_new_table_is_either_readable_or_hidden(store):
    """Whoever adds a table decides: nothing is shown because nobody thought of it."""
    names = store.read(lambda db: db.execute("select name, sql from sqlite_master where type = 'table'")
                       .fetchall())  # fmt: skip
    shadows = tuple(f"{name}_" for name in HIDDEN)
    known = {table.name for table in READABLE} | HIDDEN
    assert {name for name, _ in names if not name.startswith((*shadows, "sqlite_"))} == known


@pytest.mark.parametrize(
    "selector",
    [
        None, Selector(owner="ann"), Selector(owner="o'brien"), Selector(subject="p"),
        Selector(conversation="conv_c"), Selector(owner="ann", subject="p"),
        Selector(owner="o'brien", conversation="conv_c"),
    ],
)  # fmt: skip
def test_a_view_has_the_rows_that_an_export_has(store, selector):
    views = open_views(store.files.database, None, selector)
    try:
        for table in TABLES:
            n_rows = scalar(views.db, f"select count(*) from {table}")
            if selector is None:
                assert n_rows == store.read(
                    lambda db, t=table: scalar(db, f"select count(*) from {t}")
                )
            else:
                assert n_rows == store.read(lambda db: counts(db, selector))[table]
        for content, row in (("item_content", "item"), ("segment_content", "segment")):
            assert scalar(views.db, f"select count(*) from {content}") == scalar(
                views.db, f"select count(*) from {row}"
            )
    finally:
        views.close()


def test_a_reader_sees_one_state_however_much_is_written(store):
    views = open_views(store.files.database, None, None)
    try:
        before = scalar(views.db, "select count(*) from request")
        store.write(lambda db: request(db, "later")).result()
        assert scalar(views.db, "select count(*) from request") == before
    finally:
        views.close()
    views.close()
