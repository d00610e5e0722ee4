"""A bot in one file: what it says without a daemon, and which files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

from edgeagent.cli.bot import MAX_LINE
from edgeagent.cli.knowledge import put_files
from edgeagent.cli.main import cli
from edgeagent.cli.shared.bot_client import BotClient, documents_of
from edgeagent.cli.shared.bot_dialogues import (
    Turn,
    differences,
    proposals,
    read_dialogues,
)
from edgeagent.cli.shared.daemon import refusal_of
from edgeagent.cli.shared.knowledge_client import KnowledgeClient, LocalFile
from edgeagent.errors import EdgeAgentError, InvalidParameter, PreviousNotFound
from edgeagent.serving.bots.bot_file import BotFile, Domain, Handover, Hours, Knowledge, read_bot
from edgeagent.serving.bots.bot_turn import (
    Basis,
    BotAnswer,
    BotDialogue,
    call_of,
    intent_question,
)
from edgeagent.serving.bots.slots import SlotRule, slots_of

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
        self.forgets, self.stores = False, True

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/chat/completions":
            return self._chat()
        if self.forgets and "previous_response_id" in body:
            raise PreviousNotFound("It is gone: leave it out.")
        self.bodies.append(body)
        notes = [{"type": "file_citation", "filename": "a.md", "index": 3}] * 2
        part = {"type": "output_text", "text": "Yes.", "annotations": notes}
        output = [{"type": "file_search_call"}, {"type": "message", "content": [part]}]
        return {
            "id": f"resp_{len(self.bodies)}",
            "store": self.stores,
            "output": output,
            "edgeagent": {"knowledge": self.told},
        }

    def _chat(self) -> dict[str, Any]:
        if self.call is None:
            return {"choices": [{"message": {"content": "It does not know."}}]}
        name, slots, confidence = self.call
        call = {"function": {"name": name, "arguments": json.dumps(slots)}}
        return {
            "choices": [{"message": {"tool_calls": [call]}}],
            "edgeagent": {"confidence": {"probability": confidence}},
        }


class Talk(NamedTuple):
    """A dialogue with a daemon."""

    bot: BotDialogue
    daemon: FakeDaemon

    def say(self, text: str) -> BotAnswer:
        return self.bot.say(text, self.daemon.post)


def dialogue(
    call: tuple[str, dict[str, Any], float] | None = None, basis: str = "passages",
    handover: str | None = None, now: datetime = MONDAY, bot: BotFile = BOT,
) -> Talk:  # fmt: skip
    daemon = FakeDaemon(call, {"basis": basis, "handover": handover})
    return Talk(BotDialogue(bot, ["vs_1"], lambda: now), daemon)


def test_an_answer_from_documents_cites_them_and_continues_the_dialogue() -> None:
    made = dialogue()
    daemon = made.daemon
    assert made.say("May I?") == BotAnswer(text="Yes.", basis="passages", citations=["a.md"])
    made.say("And a dog?")
    first, second = daemon.bodies
    assert first["tools"][0]["vector_store_ids"] == ["vs_1"] and "previous_response_id" not in first
    assert second["previous_response_id"] == "resp_1" and "en, de" in first["instructions"]


@pytest.mark.parametrize("stores", [True, False])
def test_a_dialogue_goes_on_where_the_daemon_keeps_nothing_of_it(stores: bool) -> None:
    made = dialogue()
    daemon = made.daemon
    daemon.forgets, daemon.stores = stores, stores
    assert [made.say("May I?").text, made.say("And a dog?").text] == ["Yes.", "Yes."]
    assert not any("previous_response_id" in body for body in daemon.bodies)
    body = b'{"error": {"message": "gone", "code": "previous_response_not_found"}}'
    assert isinstance(refusal_of(400, body), PreviousNotFound)


@pytest.mark.parametrize(
    ("call", "basis", "text"),
    [
        (("greet", {"who": "Ann"}, 0.9), "intent", "Hello Ann!"),
        (("greet", {"who": "{n}", "n": 2}, 0.9), "intent", "Hello {n}!"),
        (("greet", {}, 0.9), "intent", "Hello {who}!"),
        (("book", {"n": 2}, 0.9), "call", ""),
        (("greet", {"who": "Ann"}, 0.4), "passages", "Yes."),  # not sure enough
        (("sing", {}, 0.9), "passages", "Yes."),  # not one of the bot's
        (None, "passages", "Yes."),
    ],
)
def test_intents_come_before_documents_where_they_are_sure(
    call: tuple[str, dict[str, Any], float] | None, basis: str, text: str
) -> None:
    answer = dialogue(call).say("Hello")
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
    made = dialogue(now=now)
    assert made.say("I want to talk to A PERSON, please!").text == text and not made.daemon.bodies
    thin = dialogue(basis="nothing", handover="human", now=now)
    answer = thin.say("Who painted the ceiling?")
    assert (answer.text, answer.handover) == (text, "human")
    assert dialogue().say("Is there a personal locker?").basis == "passages"


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
        ("name = 'x'\n[hours.days]\nmon = '08:00Z-17:00'", "mon"),
        ("name = 'x'\n[hours.days]\nmon = '08:00Z-17:00Z'", "mon"),
        ("name = 'x'\n[knowledge]\nbases = ['a']\ndocuments = ['../..']", "not beside it"),
        ("name = 'x'\n[knowledge]\nbases = ['a']\ndocuments = ['/etc']", "not beside it"),
        ("name = 'x'\n[knowledge]\ndocuments = ['none.md']", "bases"),
        ("name = 'x'\n[knowledge]\nbases = ['a']\ndocuments = ['none.md']", "none.md"),
        ("name = 'x'\n[knowledge]\nbases = ['a']\ndocuments = ['out']", "'out', a link to a place"),
        ("name = 'x'\n[thresholds]\nintent = 2.0", "intent"),
        ("name = 'x'\n[thresholds]\nsure = -1.0", "thresholds.sure"),
        ("name = 'x'\n[handover]\non_thin_evidence = 'guess'", "guess"),
        ("name = 'x'\n[slots.a]\nintents = ['b']", "neither values nor shapes"),
        ("name = 'x'\n[slots.a]\nshapes = ['abc']", "'abc'"),
        ("name = 'x'\n[web]\norigins = ['example.org']", "example.org"),
        ("name = 'x'\n[web]\norigins = ['https://a.example/page']", "web.origins"),
        ("name = ", "bot.toml"),
        ("a" * 300_000, "bytes"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "bot.toml").write_text(text)
    (tmp_path / "out").symlink_to(tmp_path.parent)
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


SLOTS = {
    "port": SlotRule(values={"Skerry": ["northhaven"], "Skerry Point": [], "Hollow Bay": []}),
    "number": SlotRule(shapes=["SK######"], intents=["cancel"]),
    "phone": SlotRule(shapes=["##### ### ###"]),
}


@pytest.mark.parametrize(
    ("intent", "text", "found"),
    [
        ("book", "To NORTHHAVEN, please", {"port": "Skerry"}),
        ("book", "from skerry point to Hollow-Bay", {"port": "Skerry Point"}),
        ("book", "to Skerryvore", {}),
        ("cancel", "cancel sk123456 now", {"number": "SK123456"}),
        ("cancel", "cancel SK1234567 or XSK123456", {}),
        ("book", "SK123456", {}),
        ("book", "ring 01632 960 555.", {"phone": "01632 960 555"}),
    ],
)
def test_slots_of_the_file_are_found_as_whole_words(
    intent: str, text: str, found: dict[str, str]
) -> None:
    assert slots_of(SLOTS, intent, text) == found


def test_of_several_answers_the_first_is_given_whose_slots_are_known() -> None:
    domain = Domain("own", answers={"cancel": ["Cancelled {number}.", "Which number?"]})
    bot = msgspec.structs.replace(BOT, domain=domain, slots=SLOTS)
    told = [dialogue(("cancel", {}, 0.9), bot=bot).say(text) for text in ("SK000001", "it")]
    assert [answer.text for answer in told] == ["Cancelled SK000001.", "Which number?"]
    assert told[0].slots == {"number": "SK000001"}


def test_times_dates_and_no_are_texts_in_dialogues(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "- name: a\n  at: 2026-06-06T12:00\n  turns:\n"
        "  - {say: no, contains: 17:00, slots: {at: 17:00, n: 12, day: 2026-06-01, is: true}}"
    )
    (made,) = read_dialogues(tmp_path / "t.yaml")
    (turn,) = made.turns
    assert (turn.say, turn.contains) == ("no", "17:00")
    assert turn.slots == {"at": "17:00", "n": 12, "day": "2026-06-01", "is": True}
    assert made.clock("Europe/London")() == datetime(2026, 6, 6, 11, tzinfo=UTC)


@pytest.mark.parametrize("arguments", ['{"n": ', "[1]", "null"])
def test_arguments_that_are_no_object_are_an_error(arguments: str) -> None:
    call = {"function": {"name": "book", "arguments": arguments}}
    got = {"choices": [{"message": {"tool_calls": [call]}}]}
    with pytest.raises(EdgeAgentError, match="no JSON object"):
        call_of(got)


class FakeStore(KnowledgeClient):
    """The documents of a store by id, without a daemon."""

    def __init__(self, paths: dict[str, str | None]) -> None:
        self.rows = {
            path: {"id": path, "status": "completed", "attributes": {"path": path, "bot": bot}}
            for path, bot in paths.items()
        }

    def files(self, store: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.rows.values())

    def upload(self, file: LocalFile) -> str:
        return file.name

    def attach(
        self, store_id: str, sent: Sequence[tuple[str, LocalFile]], bot: str | None = None
    ) -> None:
        for one, file in sent:
            told = {"path": file.name, "sha256": file.digest, "bot": bot}
            self.rows[one] = {"id": one, "status": "completed", "attributes": told}

    def delete_document(self, document_id: str) -> None:
        del self.rows[document_id]

    def wait_until_indexed(self, store_id: str, tell: Callable[[int, int], object]) -> None:
        tell(0, 0)


def test_a_bot_replaces_its_own_documents_and_keeps_those_of_others(tmp_path: Path) -> None:
    for name in ("docs/a.md", "faq/a.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    knowledge = Knowledge(bases=["b"], documents=["docs", "faq", "docs/a.md"])
    documents = documents_of(msgspec.structs.replace(BOT, knowledge=knowledge, folder=tmp_path))
    assert [file.name for file in documents] == ["docs/a.md", "faq/a.md"]
    store = FakeStore({"old.md": "Ferries", "manual.md": None, "other.md": "Trains"})
    put_files(store, {"id": "vs"}, documents, removes=True, bot="Ferries")
    assert sorted(store.rows) == ["docs/a.md", "faq/a.md", "manual.md", "other.md"]
    put_files(store, {"id": "vs"}, documents, removes=True)
    assert sorted(store.rows) == ["docs/a.md", "faq/a.md"]


def test_each_line_has_one_answer_however_long_or_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bot.toml").write_text("name = 'Ferries'")
    answer = {"id": "r", "store": False, "output": []}
    monkeypatch.setattr(BotClient, "post", lambda self, path, body: answer)
    good = b'{"conversation": "a", "text": "Hello"}\n'
    sent = good + b'{"text": "\xff"}\n' + b"x" * (3 * MAX_LINE) + b"\n" + good
    done = CliRunner().invoke(cli, ["bot", "run", str(tmp_path / "bot.toml")], input=sent)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["error" in row for row in rows] == [False, True, True, False]


@pytest.mark.parametrize(
    ("basis", "is_sure", "wanted", "is_met"),
    [
        ("quotes", True, True, True),
        ("quotes", False, True, False),
        ("quotes", False, False, True),
        ("quotes", True, False, False),
        ("nothing", True, False, True),
        ("nothing", True, True, False),
    ],
)
def test_what_documents_do_not_tell_is_uncertain_or_not_answered(
    basis: Basis, is_sure: bool, wanted: bool, is_met: bool
) -> None:
    answer = BotAnswer(text="x", basis=basis, is_sure=is_sure)
    assert (differences(Turn(say="x", sure=wanted), answer) == []) is is_met


def test_dialogues_propose_what_is_told_as_uncertain() -> None:
    def held(evidence: float | None, **turn: Any) -> tuple[Turn, BotAnswer]:
        basis: Basis = "quotes" if evidence is not None else "nothing"
        return Turn(say="x", **turn), BotAnswer(text="x", basis=basis, evidence=evidence)

    doubtful = [held(value, sure=False) for value in (None, 0.3, 0.4, 0.55, 0.7)]
    answered = [held(value, cites=["a.md"]) for value in (None, 0.5, 0.71, 0.8)]
    others = [held(0.1), (Turn(say="x", cites=["a.md"]), BotAnswer(text="x", basis="passages"))]
    assert proposals([*doubtful, *answered, *others]) == []
    turns = [*doubtful, *answered, *others, held(0.9, cites=["a.md"])]
    [found] = proposals(turns)
    assert found == ("sure", 0.71, 5, 5, 2, 5)
    assert str(found).startswith("thresholds.sure = 0.71 would tell 5 of 5 questions")
    judged = [
        (
            turn,
            msgspec.structs.replace(a, answerability=a.evidence, evidence=None),
        )
        for turn, a in turns
    ]
    sure, other = proposals(judged)
    assert (sure, other) == (("sure_answerable", *found[1:]), ("answerable", *found[1:]))
    assert str(sure).startswith("thresholds.sure_answerable = 0.71 would tell 5 of 5 questions")
    assert str(other).startswith("thresholds.answerable = 0.71 would decline 5 of 5 questions")


def test_what_is_said_is_stored_only_where_the_bot_learns() -> None:
    for learns in (False, True):
        bot = BotFile("x", domain=Domain("own", learns=learns))
        assert intent_question(bot, "hello").body.get("store", False) is learns
