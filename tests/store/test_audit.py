"""The audit chain over a real SQLCipher file: whatever is done to its rows behind its back shows."""

from __future__ import annotations

import json
import random
from functools import partial

import pytest

from edgeagent.errors import BadRequest
from edgeagent.store import audit, audit_anchor
from edgeagent.store.audit import AuditHead
from tests.store.audit_cases import CASES, MAC_KEY, fill, is_found

N_CASES = 200
N_ROWS = 40


def test_an_untouched_chain_is_sound_and_counts_its_rows(conn):
    heads = fill(conn, N_ROWS)
    result = audit.verify(conn, MAC_KEY, [heads[3], heads[-1]])
    assert result.is_sound
    assert (result.n_rows, result.head) == (N_ROWS, heads[-1])
    assert audit.head(conn, MAC_KEY) == heads[-1]


def test_an_empty_chain_is_sound(conn):
    assert audit.verify(conn, MAC_KEY).is_sound


@pytest.mark.parametrize("kind", CASES)
def test_every_case_is_found(conn, kind):
    fill(conn, N_ROWS)
    rng = random.Random(1)
    for _ in range(N_CASES):
        statements = CASES[kind](rng, N_ROWS)
        assert is_found(conn, statements), statements
    assert audit.verify(conn, MAC_KEY).is_sound  # and what was done was undone


def test_every_cut_tail_is_found_by_an_anchor_where_an_older_head_was_put_back(conn):
    heads, records = [], []
    for i in range(N_ROWS):
        heads += fill(conn, 1, i)
        records.append(conn.execute("select * from checkpoint where name='audit_head'").fetchone())
    rng = random.Random(5)
    for _ in range(N_CASES):
        left = rng.randint(1, N_ROWS - 1)
        kept_outside = heads[rng.randint(left, N_ROWS - 1)]
        conn.execute("begin")
        conn.execute("delete from audit where seq > ?", (left,))
        conn.execute("insert or replace into checkpoint values (?, ?)", records[left - 1])
        assert audit.verify(conn, MAC_KEY).is_sound  # the copy of an old state is a sound old state
        found = audit.verify(conn, MAC_KEY, [kept_outside])
        conn.execute("rollback")
        assert [problem.kind for problem in found.problems] == ["cut"]


def test_rows_added_after_a_cut_do_not_hide_it(conn):
    fill(conn, N_ROWS)
    conn.execute("delete from audit where seq > 30")
    fill(conn, 15, 100)
    found = audit.verify(conn, MAC_KEY)
    assert found.problems[0].message == "Rows 31-40 are missing before row 41."


def test_a_head_that_was_taken_away_stays_missing(conn):
    fill(conn, N_ROWS)
    conn.execute("delete from audit where seq > 30")
    conn.execute("delete from checkpoint where name = 'audit_head'")
    fill(conn, 3, 100)
    assert [problem.kind for problem in audit.verify(conn, MAC_KEY).problems] == ["head"]


def test_a_chain_written_anew_with_another_key_is_found(conn):
    heads = fill(conn, N_ROWS)
    conn.execute("delete from audit")
    conn.execute("delete from checkpoint")
    for _ in range(N_ROWS):
        audit.append(conn, b"other" * 8, actor="a", action="b", object="c")
    assert not audit.verify(conn, MAC_KEY).is_sound
    # Even one who has the key cannot meet the anchor.
    conn.execute("delete from audit")
    conn.execute("delete from checkpoint")
    for _ in range(N_ROWS):
        audit.append(conn, MAC_KEY, actor="a", action="b", object="c")
    assert audit.verify(conn, MAC_KEY).is_sound
    assert not audit.verify(conn, MAC_KEY, [heads[10]]).is_sound


def test_what_retention_cuts_off_is_accepted_and_any_other_beginning_is_not(conn):
    heads = fill(conn, N_ROWS)
    assert audit.purge(conn, MAC_KEY, before_ms=1010, limit=4) == 4
    assert audit.purge(conn, MAC_KEY, before_ms=1010, limit=100) == 6
    result = audit.verify(conn, MAC_KEY, [heads[2], heads[9], heads[-1]])
    assert result.is_sound
    assert result.first_seq == 11
    last = audit.page(conn, 40, 10)
    assert [(row.action, row.object) for row in last] == [
        ("audit.purge", "audit:1-4"),
        ("audit.purge", "audit:5-10"),
    ]
    conn.execute("delete from audit where seq = 11")
    assert not audit.verify(conn, MAC_KEY).is_sound
    conn.execute("delete from checkpoint where name = 'audit_base'")
    assert not audit.verify(conn, MAC_KEY).is_sound


def test_the_newest_row_is_never_purged(conn):
    fill(conn, N_ROWS)
    assert audit.purge(conn, MAC_KEY, before_ms=10**12, limit=1000) == N_ROWS - 1
    assert audit.verify(conn, MAC_KEY).is_sound


def test_a_row_and_its_change_are_one_transaction(conn):
    conn.execute("begin")
    audit.append(conn, MAC_KEY, actor="a", action="b", object="c")
    conn.execute("rollback")
    assert audit.page(conn, 0, 10) == []
    assert audit.append(conn, MAC_KEY, actor="a", action="b", object="c").seq == 1


def test_names_of_people_become_pseudonyms_that_need_the_key():
    one = audit.pseudonym(MAC_KEY, "subject", "patient-17")
    assert one == audit.pseudonym(MAC_KEY, "subject", "patient-17")
    assert one != audit.pseudonym(MAC_KEY, "owner", "patient-17").replace("owner", "subject")
    assert one != audit.pseudonym(b"x" * 32, "subject", "patient-17")
    assert "patient" not in one


def test_the_anchor_file_only_goes_forward_unless_a_backup_was_restored(opened, tmp_path, caplog):
    path, key = tmp_path / "elsewhere" / "anchor", b"k" * 32
    assert audit_anchor.read(path) is None and audit_anchor.recall(path, key) is None
    store = opened()

    for action in ("one", "two"):
        store.write(
            partial(audit.append, key=key, actor="test", action=action, object="x")
        ).result()
    with caplog.at_level("INFO"):
        newest = audit_anchor.publish_head(store, key, path)
    assert f"audit_head seq=2 mac={newest.mac.hex()}" in caplog.text
    store.write(lambda db: db.execute("delete from audit where seq = 2")).result()
    store.write(lambda db: db.execute("delete from checkpoint where name = 'audit_head'")).result()
    older = audit_anchor.publish_head(store, key, path)
    assert older.seq == 1 and audit_anchor.read(path) == newest
    audit_anchor.publish_head(store, key, path, is_restored=True)
    assert audit_anchor.read(path) == older


def test_an_anchor_that_was_edited_is_not_believed(opened, tmp_path):
    path, key = tmp_path / "anchor", b"k" * 32
    store = opened()
    audit_anchor.publish_head(store, key, path)
    kept = audit_anchor.recall(path, key)
    assert kept is not None and kept.journal == store.journal.read().head and not kept.is_forged
    body = json.loads(path.read_text())
    for field, value in (("seq", 9), ("time_ms", 7), ("journal", None), ("tag", "00")):
        path.write_text(json.dumps(body | {field: value}))
        assert audit_anchor.recall(path, key).is_forged, field
    assert audit_anchor.recall(path, b"x" * 32).is_forged


@pytest.mark.parametrize("text", ["", "7", "7:", "x:" + "0" * 64, "7:00", "-1:" + "0" * 64])
def test_what_is_no_anchor_is_refused(text):
    with pytest.raises(BadRequest, match="is not SEQ:MAC"):
        audit_anchor.parse(text)


def test_an_anchor_reads_as_it_was_shown():
    head = AuditHead(12, b"m" * 32)
    assert audit_anchor.parse(audit_anchor.shown(head)) == head
