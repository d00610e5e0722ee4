"""The example that `edgeagent bot new` writes. `scripts/bot --test` holds its dialogues on a daemon."""

from __future__ import annotations

import csv
from pathlib import Path

from edgeagent.cli.bot import EXAMPLE
from edgeagent.cli.shared.bot_client import documents_of
from edgeagent.cli.shared.bot_dialogues import read_dialogues
from edgeagent.knowledge.questions import question_key
from edgeagent.serving.bots.bot_file import read_bot
from tests.commands import run_here


def test_a_new_bot_is_the_whole_example_and_replaces_nothing(tmp_path: Path) -> None:
    made = run_here("bot", "new", tmp_path / "mine")
    assert made.returncode == 0 and "bot test" in made.stdout
    bot = read_bot(tmp_path / "mine" / "bot.toml")
    documents = [file for file in documents_of(bot) if file.path.suffix == ".md"]
    assert len(documents) == 40
    assert all(90 <= len(file.path.read_text().split()) <= 400 for file in documents)
    again = run_here("bot", "new", tmp_path / "mine")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_its_dialogues_use_what_there_is_and_no_text_of_the_training() -> None:
    bot = read_bot(EXAMPLE / "bot.toml")
    with (EXAMPLE / "intents.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    intents = {row["intent"] for row in rows} - {"oos"}
    assert len(intents) == 15 and bot.domain is not None and set(bot.domain.answers) <= intents
    assert {name for rule in bot.slots.values() for name in rule.intents} <= intents
    known = {question_key(row["text"]) for row in rows}
    names = {file.path.name for file in documents_of(bot)}
    turns = [turn for one in read_dialogues(EXAMPLE / "dialogues.yaml") for turn in one.turns]
    assert not {question_key(turn.say) for turn in turns} & known
    assert {name for turn in turns for name in turn.cites} <= names
    assert {turn.intent for turn in turns} - {None} == intents
    tested = {turn.basis for turn in turns} | {turn.handover for turn in turns}
    assert {"call", "verbatim", "quotes", "nothing", "human"} <= tested
