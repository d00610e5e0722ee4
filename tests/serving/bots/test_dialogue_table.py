"""No bot's visitors end the dialogues of another bot."""

from dataclasses import dataclass

import pytest

from edgeagent.serving.bots.dialogue_table import IDLE_S, DialogueTable


@dataclass
class Visit:
    used_s: float = 0.0
    is_busy: bool = False


@pytest.fixture
def table() -> DialogueTable[Visit]:
    return DialogueTable(per_bot=4, in_all=6)


def names(table: DialogueTable[Visit], bot_id: str, prefix: str, n: int) -> list[int]:
    return [i for i in range(n) if table.get(bot_id, f"{prefix}{i}", 0.0) is not None]


def test_a_flood_at_one_bot_ends_its_own_dialogues_only(table: DialogueTable[Visit]) -> None:
    for i in range(2):
        table.add("quiet", f"q{i}", Visit(), 0.0)
    for i in range(50):
        table.add("flooded", f"f{i}", Visit(), 0.0)
    assert names(table, "quiet", "q", 2) == [0, 1]
    assert names(table, "flooded", "f", 50) == [46, 47, 48, 49]


def test_where_all_are_full_the_bot_that_has_most_loses_its_oldest(
    table: DialogueTable[Visit],
) -> None:
    for i in range(4):
        table.add("first", f"a{i}", Visit(), 0.0)
    for i in range(4):
        table.add("second", f"b{i}", Visit(), 0.0)
    assert len(table) == 6
    assert names(table, "first", "a", 4) == [1, 2, 3]
    assert names(table, "second", "b", 4) == [1, 2, 3]
    for n in range(9):  # more bots than dialogues: each still gets its own
        table.add(f"bot{n}", "x", Visit(), 0.0)
        assert table.get(f"bot{n}", "x", 0.0) is not None
        assert len(table) <= 6


def test_the_dialogue_used_last_stays_longest(table: DialogueTable[Visit]) -> None:
    for i in range(4):
        table.add("bot", f"n{i}", Visit(), 0.0)
    assert table.get("bot", "n0", 0.0) is not None
    table.add("bot", "n4", Visit(), 0.0)
    assert names(table, "bot", "n", 5) == [0, 2, 3, 4]


def test_one_that_is_being_answered_is_not_ended_for_a_new_one(
    table: DialogueTable[Visit],
) -> None:
    table.add("bot", "n0", Visit(is_busy=True), 0.0)
    for i in range(1, 9):
        table.add("bot", f"n{i}", Visit(), 0.0)
    assert names(table, "bot", "n", 9) == [0, 6, 7, 8]
    full: DialogueTable[Visit] = DialogueTable(per_bot=2, in_all=2)
    for i in range(5):  # nothing but busy ones: the bound holds all the same
        full.add("bot", f"n{i}", Visit(is_busy=True), 0.0)
    assert len(full) == 2


def test_one_without_a_message_for_an_hour_ends(table: DialogueTable[Visit]) -> None:
    table.add("bot", "n0", Visit(used_s=0.0), 0.0)
    table.add("bot", "n1", Visit(used_s=0.0, is_busy=True), 0.0)
    assert table.get("bot", "n0", IDLE_S) is not None
    assert table.get("bot", "n0", IDLE_S + 1) is not None  # behind the busy one since its last use
    assert table.get("other", "n0", IDLE_S + 1) is None
    idle: DialogueTable[Visit] = DialogueTable()
    idle.add("bot", "n0", Visit(used_s=0.0), 0.0)
    assert idle.get("bot", "n0", IDLE_S + 1) is None
    assert len(idle) == 0
