"""`edgeagent chat`: talk to the daemon in the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import httpx

from edgeagent.cli.shared.answer_view import AnswerView
from edgeagent.cli.shared.daemon import authorization, explained, running_daemon
from edgeagent.cli.shared.interrupts import Interrupts
from edgeagent.cli.shared.options import configured, settings_options
from edgeagent.errors import EdgeAgentError
from edgeagent.serving.terminal_history import forget_history
from edgeagent.settings import Settings

HELP = """\
  /system TEXT   start over with TEXT as the system prompt
  /clear         forget the conversation
  /history       show the conversation
  /help          show this list
  /quit          leave (so does Ctrl-D)
  Ctrl-C         stop the answer"""


@click.command()
@click.argument("message", required=False)
@click.option(
    "--model", default="default", show_default=True, help="Which installed model answers."
)
@click.option(
    "--domain",
    metavar="NAME",
    help="Part of an assistant model to use, such as `skills`. Default: all parts.",
)
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    help="0 always picks the most probable token. Default: the model's.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    help="Limit of the answer in tokens. Default: the daemon's.",
)
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@click.option("--host", metavar="ADDRESS", help="Address of the daemon. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8484.")
@settings_options
def chat(
    config: Path | None, message: str | None, model: str, domain: str | None, system: str | None,
    temperature: float | None, max_tokens: int | None, seed: int | None, **flags: Any,
) -> None:  # fmt: skip
    """Chat with a model. With MESSAGE, print one answer and end.

    Uses the running daemon, or starts one that ends with the chat.
    """
    settings = configured(config, **flags).settings
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options: dict[str, Any] = {"model": model} | {
        key: value for key, value in sampling.items() if value is not None
    }
    # Show tool calls as calls, whichever model makes them.
    options["metadata"] = {"calls": "true"} | ({"domain": domain} if domain is not None else {})
    with (
        running_daemon(settings, _serve_arguments(config, settings)) as url,
        Interrupts() as interrupts,
        closing(Conversation(url, options, system, interrupts)) as conversation,
    ):
        if message is None:
            _converse(conversation, interrupts, settings)
        elif not conversation.ask(message):
            raise click.exceptions.Exit(130)


def _serve_arguments(config: Path | None, settings: Settings) -> list[str]:
    arguments = [
        "--host",
        settings.http.host,
        "--port",
        str(settings.http.port),
        "--state-dir",
        str(settings.state_dir),
    ]
    arguments += ["--models-dir", str(settings.effective_models_dir)]
    return arguments + (["--config", str(config)] if config is not None else [])


def _converse(conversation: Conversation, interrupts: Interrupts, settings: Settings) -> None:
    click.echo("Type a message; /help shows the commands, Ctrl-D leaves.")
    forget_history(settings.state_dir)
    _line_history()
    while True:
        try:
            line = interrupts.read_line("> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if line in ("/quit", "/exit"):
            return
        try:
            _obey(conversation, line)
        except EdgeAgentError as exc:
            click.echo(f"edgeagent: {exc.message}", err=True)


def _obey(conversation: Conversation, line: str) -> None:
    command, _, rest = line.partition(" ")
    if not line:
        return
    if command == "/help":
        click.echo(HELP)
    elif command == "/clear":
        conversation.begin_again(None)
    elif command == "/system":
        conversation.begin_again(rest or None)
    elif command == "/history":
        for message in conversation.messages:
            click.echo(f"{message['role']}: {message['content']}")
    elif command.startswith("/"):
        click.echo(f"Unknown command {command}; /help shows the commands.")
    else:
        conversation.ask(line)


class Conversation:
    """The messages so far; `ask` adds a question and its answer, `close` ends the connection."""

    def __init__(
        self, url: str, options: dict[str, Any], system: str | None, interrupts: Interrupts
    ) -> None:
        self._http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(300, connect=5),
            trust_env=False,
            headers=authorization(),
        )
        self._interrupts = interrupts
        self._options = options
        self._system = system
        self.messages: list[dict[str, str]] = []
        self.begin_again(None)

    def close(self) -> None:
        self._http.close()

    def begin_again(self, system: str | None) -> None:
        self._system = system or self._system
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def ask(self, text: str) -> bool:
        """Print the answer as it streams, then its confidence and speed; returns whether it is complete.

        Ctrl-C stops the answer and keeps its text. Raises: EdgeAgentError with the daemon's message.
        """
        self.messages.append({"role": "user", "content": text})
        answer = AnswerView()
        is_whole = False
        try:
            with self._interrupts.stoppable():
                for event in self._events():
                    self._interrupts.check()
                    answer.read(event)
                is_whole = True
            click.echo()
        except KeyboardInterrupt:
            click.echo(" [stopped]")
        except EdgeAgentError:
            self.messages.pop()
            raise
        self.messages.append({"role": "assistant", "content": answer.text})
        if footnote := answer.footnote():
            click.echo(click.style(footnote, dim=True), err=True)
        return is_whole

    def _events(self) -> Iterator[dict[str, Any]]:
        body = self._options | {
            "messages": self.messages, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise EdgeAgentError(explained(response.status_code, _message(response.text)))
                for line in response.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        event = json.loads(line[6:])
                        if "error" in event:
                            raise EdgeAgentError(event["error"]["message"])
                        yield event
        except httpx.TransportError as exc:
            raise EdgeAgentError(
                f"The daemon stopped answering ({type(exc).__name__}): see its log, or start it with "
                "`edgeagent serve`."
            ) from exc


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:300]


def _line_history() -> None:
    """On a terminal, let arrow keys recall earlier lines of this chat. Nothing is written to disk."""
    if sys.stdin.isatty():
        import readline

        readline.clear_history()
        readline.set_history_length(500)
