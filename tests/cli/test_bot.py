"""A bot in one file: what it says without a daemon, and which files are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeagent.cli.shared.bot_dialogues import Turn, differences, read_dialogues
from edgeagent.cli.shared.bot_file import BotFile, Domain, Handover, Hours, Knowledge, read_bot
from edgeagent.cli.shared.bot_turn import BotAnswer, BotDialogue
from edgeagent.errors import InvalidParameter

BOT = BotFile(
    name="Ferries",
    persona="You are brief.",
    languages=["en", "de"],
    knowledge=Knowledge(bases=["ferries"]),
    domain=Domain("own", answers={"greet": "Hello {who}!"}, tools=["greet", "book"]),
    handover=Handover(phrases=["a person"], text="Call us.", closed_text="Write to us."),
    hours=Hours("Europe/London", {"mon": "08:00-17:00", "sat": "closed"}),
)
MONDAY = datetime(2026, 6, 1, 7, 30, tzinfo=UTC)  # half past eight in London


class FakeDaemon:
    def __init__(
        self, call: tuple[str, dict[str, Any], float] | None, told: dict[str, Any]
    ) -> None:
        self.call, self.told = call, told
        self.bodies: list[dict[str, Any]] = []

    def intent(self, bot: BotFile, text: str) -> tuple[str, dict[str, Any], float] | None:
        return self.call

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        notes = [{"type": "file_citation", "filename": "a.md", "index": 3}] * 2
        part = {"type": "output_text", "text": "Yes.", "annotations": notes}
        output = [{"type": "file_search_call"}, {"type": "message", "content": [part]}]
        return {
            "id": f"resp_{len(self.bodies)}",
            "output": output,
            "edgeagent": {"knowledge": self.told},
        }


def dialogue(
    call: tuple[str, dict[str, Any], float] | None = None, basis: str = "passages",
    handover: str | None = None, now: datetime = MONDAY,
) -> tuple[BotDialogue, FakeDaemon]:  # fmt: skip
    daemon = FakeDaemon(call, {"basis": basis, "handover": handover})
    return BotDialogue(BOT, ["vs_1"], daemon, lambda: now), daemon


def test_an_answer_from_documents_cites_them_and_continues_the_dialogue() -> None:
    made, daemon = dialogue()
    assert made.say("May I?") == BotAnswer(text="Yes.", basis="passages", citations=["a.md"])
    made.say("And a dog?")
    first, second = daemon.bodies
    assert first["tools"][0]["vector_store_ids"] == ["vs_1"] and "previous_response_id" not in first
    assert second["previous_response_id"] == "resp_1" and "en, de" in first["instructions"]


@pytest.mark.parametrize(
    ("call", "basis", "text"),
    [
        (("greet", {"who": "Ann"}, 0.9), "intent", "Hello Ann!"),
        (("book", {"n": 2}, 0.9), "call", ""),
        (("greet", {"who": "Ann"}, 0.4), "passages", "Yes."),  # not sure enough
        (("sing", {}, 0.9), "passages", "Yes."),  # not one of the bot's
        (None, "passages", "Yes."),
    ],
)
def test_intents_come_before_documents_where_they_are_sure(
    call: tuple[str, dict[str, Any], float] | None, basis: str, text: str
) -> None:
    answer = dialogue(call)[0].say("Hello")
    assert (answer.basis, answer.text) == (basis, text)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (MONDAY, "Call us."),
        (MONDAY.replace(hour=6), "Write to us."),
        (MONDAY.replace(hour=16), "Write to us."),
        (MONDAY.replace(day=6), "Write to us."),
        (MONDAY.replace(day=2), "Write to us."),
    ],
)
def test_a_hand_over_depends_on_the_opening_hours(now: datetime, text: str) -> None:
    made, daemon = dialogue(now=now)
    assert made.say("I want to talk to A PERSON, please!").text == text and not daemon.bodies
    thin, _ = dialogue(basis="nothing", handover="human", now=now)
    answer = thin.say("Who painted the ceiling?")
    assert (answer.text, answer.handover) == (text, "human")
    assert dialogue()[0].say("Is there a personal locker?").basis == "passages"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("persona = 'x'", "name"),
        ("name = 1", "str"),
        ("name = 'x'\nnaem = 'y'", "naem"),
        ("name = 'x'\n[hours]\ntimezone = 'Mars/Base'", "timezone"),
        ("name = 'x'\n[hours]\ntimezone = '../../etc/passwd'", "timezone"),
        ("name = 'x'\n[hours.days]\nmon = '17:00-08:00'", "mon"),
        ("name = 'x'\n[hours.days]\nmonday = '08:00-17:00'", "monday"),
        ("name = 'x'\n[knowledge]\ndocuments = ['none.md']", "bases"),
        ("name = 'x'\n[knowledge]\nbases = ['a']\ndocuments = ['none.md']", "none.md"),
        ("name = 'x'\n[thresholds]\nintent = 2.0", "intent"),
        ("name = 'x'\n[handover]\non_thin_evidence = 'guess'", "guess"),
        ("name = ", "bot.toml"),
        ("a" * 300_000, "bytes"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "bot.toml").write_text(text)
    with pytest.raises(InvalidParameter, match=part):
        read_bot(tmp_path / "bot.toml")


@pytest.mark.parametrize(
    "text",
    [
        "- a: b",
        "[]",
        "- name: x\n  turns: []",
        "x: [",
        "!!python/object:os.system x",
        "- name: x\n  turns: 1",
    ],
)
def test_bad_dialogues_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InvalidParameter, match=r"t\.yaml"):
        read_dialogues(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("turn", "wrong"),
    [
        ({}, []),
        ({"cites": ["a.md"], "contains": "YES", "basis": "passages", "handover": "none"}, []),
        ({"cites": ["b.md"]}, ["b.md is not cited"]),
        ({"contains": "no"}, ["does not have 'no'"]),
        ({"handover": "human", "intent": "book"}, ["intent is None", "handover is none"]),
        ({"slots": {"n": 2}}, ["slot n is None"]),
    ],
)
def test_an_answer_is_compared_with_what_is_expected(
    turn: dict[str, Any], wrong: list[str]
) -> None:
    answer = BotAnswer(text="Yes.", basis="passages", citations=["a.md"])
    found = differences(msgspec.convert({"say": "x"} | turn, Turn), answer)
    assert len(found) == len(wrong) and all(w in f for w, f in zip(wrong, found, strict=True))
