"""The registry of places that hold content: each is told, in order, whatever happens to another."""

from __future__ import annotations

import asyncio

import pytest

from edgeagent.serving.terminal_history import forget_history
from edgeagent.store.erasure_hub import DeletedContent, ErasureHub
from edgeagent.store.ownership import Selector


def place(told, name, error=None):
    async def forget(gone):
        told.append((name, gone.cause))
        if error is not None:
            raise error

    return name, f"what {name} holds", forget


async def test_a_place_that_fails_keeps_no_other_from_forgetting(caplog):
    told: list[tuple[str, str]] = []
    hub = ErasureHub()
    for each in (place(told, "a"), place(told, "b", RuntimeError("no")), place(told, "c")):
        hub.register(*each)
    assert await hub.forget(DeletedContent("delete", "ann")) == ["a", "c"]
    assert told == [("a", "delete"), ("b", "delete"), ("c", "delete")]
    assert "not_forgotten place='b'" in caplog.text


async def test_a_name_is_registered_once():
    hub = ErasureHub()
    hub.register(*place([], "a"))
    with pytest.raises(AssertionError, match="registered twice"):
        hub.register(*place([], "a"))


async def test_a_thread_waits_until_every_place_has_forgotten():
    told: list[tuple[str, str]] = []
    hub = ErasureHub()
    hub.register(*place(told, "a"))
    gone = DeletedContent.erased(Selector(owner="ann"))
    assert await asyncio.to_thread(hub.forget_from_thread, gone) == [], "nothing is held yet"
    hub.start()
    assert await asyncio.to_thread(hub.forget_from_thread, gone) == ["a"]
    assert told == [("a", "erase")]


@pytest.mark.parametrize(
    ("selector", "is_whole"),
    [
        (Selector(owner="ann"), True),
        (Selector(owner="ann", subject="s"), False),
        (Selector(owner="ann", conversation="c"), False),
    ],
)
def test_only_an_erasure_of_everything_takes_rows_without_content(selector, is_whole):
    assert DeletedContent.erased(selector).is_whole_owner == is_whole
    assert not DeletedContent("delete", selector.owner).is_whole_owner


def test_the_input_history_of_an_earlier_version_is_removed_and_a_link_is_left(tmp_path):
    path = tmp_path / "chat_history"
    path.write_text("what somebody typed")
    forget_history(tmp_path)
    forget_history(tmp_path)
    assert not path.exists()
    other = tmp_path / "other"
    other.write_text("not ours")
    path.symlink_to(other)
    forget_history(tmp_path)
    assert other.read_text() == "not ours"
