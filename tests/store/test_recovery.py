"""Damage: found, set aside, kept, replaced by the newest sound backup, and said."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.errors import KeyUnusable, StoreDamaged
from edgeagent.store.recovery import earlier, prepare
from tests.conftest import n_examples
from tests.store.conftest import SCHEMA, insert, texts

PAGE = 4096


def filled(opened, n_rows=300):
    store = opened()
    for n in range(n_rows):
        store.write(insert(f"{n} {'x' * 400}"))
    store.checkpoint().result()
    return store


def overwrite(path, offset, content):
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(content)


@settings(
    max_examples=n_examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_and_the_backup_restored(place, bit, opened, folder):
    shutil.rmtree(folder, ignore_errors=True)
    store = filled(opened, 50)
    store.backups.take()
    store.close()
    database = store.files.database
    content = bytearray(database.read_bytes())
    content[int(len(content) * place)] ^= 1 << bit
    database.write_bytes(content)
    store = opened()
    assert [notice.code for notice in store.notices] == ["store_restored"]
    assert len(store.read(texts)) == 50
    store.close()


@pytest.mark.parametrize("page", [0, 1, 5, 20])
def test_a_page_of_noise_leads_to_quarantine_and_restore_in_plain_words(opened, page, caplog):
    store = filled(opened)
    taken = store.backups.take().taken
    store.write(insert("after the backup")).result()
    store.close()
    overwrite(store.files.database, page * PAGE, os.urandom(PAGE))
    damaged = store.files.database.read_bytes()
    store = opened()
    [notice] = store.notices
    assert f"the backup of {taken} was restored" in notice.message
    assert "data stored after it is missing" in notice.message
    assert notice.message in caplog.text
    [aside] = store.files.quarantine.iterdir()
    assert (aside / "edgeagent.db").read_bytes()[page * PAGE :] == damaged[page * PAGE :]
    assert len(store.read(texts)) == 300
    store.write(insert("life goes on")).result()
    store.close()
    store = opened()
    assert (store.notices, earlier(store.files)) == ([], [notice])


def test_without_a_backup_an_empty_database_is_begun_and_the_file_kept(opened):
    store = filled(opened)
    store.close()
    overwrite(store.files.database, 5 * PAGE, os.urandom(PAGE))
    store = opened()
    [notice] = store.notices
    assert (notice.code, store.read(texts)) == ("store_lost", [])
    assert "no sound backup" in notice.message


def test_an_unsound_backup_is_passed_over_for_an_older_one(opened):
    store = filled(opened)
    store.backups.take()
    newest = store.backups.take()
    store.close()
    overwrite(newest.path, 5 * PAGE, os.urandom(PAGE))
    overwrite(store.files.database, 5 * PAGE, os.urandom(PAGE))
    store = opened()
    assert len(store.read(texts)) == 300


def test_a_file_cut_short_is_found(opened):
    store = filled(opened)
    store.backups.take()
    store.close()
    size = store.files.database.stat().st_size
    for left in (size - 100, size - 3 * PAGE, 100):
        os.truncate(store.files.database, left)
        store = opened()
        assert [notice.code for notice in store.notices] == ["store_restored"]
        store.close()


def test_the_log_of_a_damaged_database_is_not_replayed_into_the_restored_one(opened, folder):
    store = filled(opened)
    store.backups.take()
    store.write(insert("only in the log")).result()
    copy = folder.with_name("cut")
    shutil.copytree(folder, copy)  # as after a power cut: the log is still there
    store.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    overwrite(store.files.database, 0, os.urandom(PAGE))
    os.truncate(store.files.database, 3 * PAGE)
    store = opened()
    assert "only in the log" not in store.read(texts)
    [aside] = store.files.quarantine.iterdir()
    assert (aside / "edgeagent.db-wal").stat().st_size > 0


@pytest.mark.parametrize("cut_after", range(4))
def test_a_restore_that_is_cut_short_is_finished_at_the_next_start(
    opened, folder, secret, monkeypatch, cut_after
):
    store = filled(opened)
    store.backups.take()
    store.close()
    overwrite(store.files.database, 5 * PAGE, os.urandom(PAGE))
    with monkeypatch.context() as patch:
        calls, renamed = iter(range(100)), type(folder).rename

        def rename(path, target):
            if next(calls) == cut_after:
                raise KeyboardInterrupt
            return renamed(path, target)

        patch.setattr(type(folder), "rename", rename)
        try:
            prepare(store.files, secret, store.backups, SCHEMA)
        except KeyboardInterrupt:
            assert store.files.restoring.exists()
        else:
            assert cut_after >= 2  # nothing but the database and restoring.db to rename
    store = opened()
    assert len(store.read(texts)) == 300


def test_damage_found_while_running_is_said_and_the_others_go_on(opened):
    store = filled(opened)
    size = store.files.database.stat().st_size
    begin = size // PAGE * 3 // 4 * PAGE  # behind the schema and the tables' roots
    overwrite(store.files.database, begin, os.urandom(size - begin))
    with pytest.raises(StoreDamaged, match="restart edgeagent"):
        store.read(texts)
    assert store.read(lambda db: db.execute("SELECT count(*) FROM properties").fetchone()[0]) == 1


def test_a_seal_that_cannot_be_read_is_an_error_and_no_quarantine(opened, folder):
    opened().close()
    (folder / "seal.json").write_text("{")
    with pytest.raises(KeyUnusable, match=r"seal\.json cannot be read"):
        opened()
    assert not list((folder / "quarantine").iterdir())
