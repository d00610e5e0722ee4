"""Readers: one state per read, no more connections than promised."""

from __future__ import annotations

import threading

import pytest

from edgeagent.errors import StoreBusy
from tests.store.conftest import insert, texts


def test_one_read_sees_one_state_though_writes_go_on(opened):
    store = opened()
    store.write(insert("before")).result()

    def twice(db):
        first = texts(db)
        store.write(insert("meanwhile")).result()
        return first, texts(db)

    assert store.read(twice) == (["before"], ["before"])
    assert store.read(texts) == ["before", "meanwhile"]


def test_a_failed_read_gives_its_connection_back(opened):
    store = opened(n_readers=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            store.read(lambda db: 1 // 0)
    assert store.read(texts) == []


def test_readers_that_are_all_busy_say_so_in_time(opened):
    store = opened(n_readers=1)
    begun, gate = threading.Event(), threading.Event()
    thread = threading.Thread(target=store.read, args=[lambda db: begun.set() or gate.wait()])
    thread.start()
    begun.wait()
    with pytest.raises(StoreBusy, match="All 1 readers"):
        store._readers.read(texts, timeout_s=0.01)
    gate.set()
    thread.join()
    assert store.read(texts) == []


def test_many_threads_share_the_readers(opened):
    store = opened(n_readers=2)
    store.write(insert("x")).result()
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.read(texts))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["x"]] * 20
