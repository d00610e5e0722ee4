"""`edgeagent bot`: a bot that is one file, on the running daemon."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from edgeagent.cli.bot_publish import publish, unpublish
from edgeagent.cli.knowledge import daemon_options
from edgeagent.cli.shared.bot_client import BotClient, stores_of_bot
from edgeagent.cli.shared.bot_dialogues import Turn, differences, proposals, read_dialogues
from edgeagent.cli.shared.options import configured
from edgeagent.cli.shared.printable import printable
from edgeagent.errors import EdgeAgentError, InvalidParameter
from edgeagent.serving.bots.bot_file import BotFile, read_bot
from edgeagent.serving.bots.bot_turn import BotAnswer, BotDialogue

MAX_LINE = 64 << 10  # bytes

EXAMPLE = Path(__file__).parent / "example_bot"

bot_file = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.group()
def bot() -> None:
    """A service bot in one file: persona, intents, documents, hand-over, opening hours.

    \b
    name = "Skerry Ferries"
    persona = "You are the assistant of Skerry Ferries. Be brief and friendly."
    [knowledge]
    bases = ["ferries"]
    documents = ["docs"]                  # files and folders beside this file
    [handover]
    on_thin_evidence = "human"            # or "router", "decline"
    phrases = ["speak to a person"]
    text = "Please call us: 01234 567."
    closed_text = "We are closed. Please write to help@example.org."
    [hours]
    timezone = "Europe/London"
    days = { mon = "08:00-17:00", tue = "08:00-17:00", sat = "closed" }

    `[domain]` (model, domain, answers, tools) names a model that knows intents, `[thresholds]` how sure it
    must be, `languages` those of the answers. A daemon must run: `edgeagent serve`.
    """


bot.add_command(publish)
bot.add_command(unpublish)


@bot.command()
@click.argument("directory", type=click.Path(path_type=Path))
def new(directory: Path) -> None:
    """Write a whole example into DIRECTORY: bot, intents, documents, test dialogues.

    It is the bot of a ferry line, to be changed into your own. The files say what they are for.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidParameter(
            f"{directory} is there already: name a directory that is empty or new.", param="bot"
        )
    shutil.copytree(EXAMPLE, directory, dirs_exist_ok=True)
    name = shlex.quote(str(directory))
    click.echo(
        f"{name} is written. With a daemon (`edgeagent serve`) in another terminal:\n"
        f"    edgeagent models install all-minilm-l6-v2          # finds passages by their meaning\n"
        f"    edgeagent forge new skerry-bot --from {name}/intents.csv\n"
        f"    edgeagent bot test {name}/bot.toml {name}/dialogues.yaml\n"
        f"    edgeagent bot chat {name}/bot.toml"
    )


@bot.command()
@bot_file
@daemon_options
def chat(file: Path, config: Path | None, **flags: Any) -> None:
    """Talk to the bot in FILE in the terminal. Ctrl-D leaves."""
    made = read_bot(file)
    with BotClient(configured(config, **flags).settings) as client:
        dialogue = BotDialogue(made, stores_of_bot(made, client))
        if made.greeting:
            click.echo(made.greeting)
        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                click.echo()
                return
            if line:
                _show(dialogue.say(line, client.post))


@bot.command()
@bot_file
@daemon_options
def run(file: Path, config: Path | None, **flags: Any) -> None:
    """Answer messages as JSON lines, for a program that connects the bot in FILE to a channel.

    A line of standard input is {"conversation": ID, "text": TEXT}; a line of standard output is the answer:
    text, basis, intent, slots, citations, handover, and the conversation. A line that cannot be answered
    gives {"error": ...}. Each conversation has its own memory; the 1,000 latest are kept.
    """
    made = read_bot(file)
    with BotClient(configured(config, **flags).settings) as client:
        stores = stores_of_bot(made, client)
        dialogues: dict[str, BotDialogue] = {}
        for line in lines_of(sys.stdin.buffer):
            click.echo(_answered(line, made, stores, client, dialogues))


@bot.command()
@bot_file
@click.argument("tests", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@daemon_options
def test(file: Path, tests: Path, config: Path | None, **flags: Any) -> None:
    """Hold the test dialogues in TESTS (YAML) with the bot in FILE. The status is 1 where one fails.

    \b
    - name: a dog on the ferry
      turns:
        - say: May I bring my dog?
          cites: [animals.md]
          contains: lead
        - say: I want to talk to a person
          handover: human

    `intent`, `slots`, `basis` and `sure` are compared, too. `sure: false` is for what the documents do not
    tell; with five such turns the value of `thresholds.sure` that suits these dialogues is shown.
    """
    made, dialogues = read_bot(file), read_dialogues(tests)
    n_failed = 0
    held: list[tuple[Turn, BotAnswer]] = []
    with BotClient(configured(config, **flags).settings) as client:
        stores = stores_of_bot(made, client)
        for dialogue in dialogues:
            conversation = BotDialogue(made, stores, dialogue.clock(made.hours.timezone))
            for turn in dialogue.turns:
                answer = conversation.say(turn.say, client.post)
                held.append((turn, answer))
                wrong = differences(turn, answer)
                n_failed += bool(wrong)
                mark = "failed" if wrong else "passed"
                click.echo(f"{mark}  {printable(dialogue.name)}: {printable(turn.say)}")
                for one in wrong:
                    click.echo(f"        {printable(one)}; it said: {printable(answer.text[:200])}")
    n_turns = sum(len(dialogue.turns) for dialogue in dialogues)
    click.echo(f"{n_turns - n_failed} of {n_turns} turns passed.")
    for proposal in proposals(held):
        click.echo(str(proposal))
    if n_failed:
        raise SystemExit(1)


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    conversation: str = ""


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """The lines; of one with more than `MAX_LINE` bytes, the beginning."""
    while line := stream.readline(MAX_LINE + 1):
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE + 1)
        yield line


def _answered(
    line: bytes,
    made: BotFile,
    stores: list[str],
    client: BotClient,
    dialogues: dict[str, BotDialogue],
) -> str:
    """The line of the answer."""
    try:
        if len(line) > MAX_LINE:
            raise InvalidParameter(
                f"A line has more than {MAX_LINE} bytes: send less.", param="text"
            )
        message = msgspec.json.decode(line, type=_Message)
        dialogue = dialogues.pop(message.conversation, None) or BotDialogue(made, stores)
        dialogues[message.conversation] = dialogue
        for oldest in list(dialogues)[:-1000]:
            del dialogues[oldest]
        answer = dialogue.say(message.text, client.post)
    except (msgspec.MsgspecError, UnicodeDecodeError, EdgeAgentError) as exc:
        told = (
            exc.message
            if isinstance(exc, EdgeAgentError)
            else f"The line is not a message ({exc})."
        )
        return msgspec.json.encode({"error": told}).decode()
    own = {"conversation": message.conversation}
    return msgspec.json.encode(own | msgspec.to_builtins(answer)).decode()


def _show(answer: BotAnswer) -> None:
    if answer.basis == "call":
        click.echo(f"(call) {printable(answer.intent or '')} {printable(str(answer.slots))}")
        return
    click.echo(printable(answer.text))
    notes = [f"from {', '.join(answer.citations)}"] if answer.citations else []
    notes += [f"hand-over: {answer.handover}"] if answer.handover else []
    if notes:
        click.echo(f"    ({printable('; '.join(notes))})")
