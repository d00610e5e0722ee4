"""`edgeagent`: one command, a subcommand for each noun."""

from __future__ import annotations

import os
import sys

import click

from edgeagent import __version__
from edgeagent.errors import EdgeAgentError
from edgeagent.worker.privacy import keep_private

COMMANDS = {
    "serve": "edgeagent.cli.serve",
    "chat": "edgeagent.cli.chat",
    "models": "edgeagent.cli.models",
    "bundle": "edgeagent.cli.bundle",
    "keys": "edgeagent.cli.keys",
    "data": "edgeagent.cli.data",
    "audit": "edgeagent.cli.audit",
    "forge": "edgeagent.cli.forge",
    "doctor": "edgeagent.cli.doctor",
}


class LazyGroup(click.Group):
    """Loads a subcommand's module when it is asked for: `serve` keeps no terminal libraries in memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = __import__(COMMANDS[cmd_name], fromlist=[cmd_name])
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeagent")
def cli() -> None:
    """Application server for small language models on edge devices.

    Start with `edgeagent models install smollm2-135m-instruct`, then `edgeagent serve` in one
    terminal and `edgeagent chat` in another.
    """


def main() -> None:
    """The console script: errors of ours are one line on standard error, exit status 2.

    The daemon holds the store's key, and so do commands that open the store, so that no other process of
    the same user is to read their memory.
    """
    keep_private()
    try:
        status = cli.main(prog_name="edgeagent", standalone_mode=False)
    except EdgeAgentError as exc:
        click.echo(f"edgeagent: {exc.message}", err=True)
        sys.exit(2)
    except click.ClickException as exc:
        click.echo(f"edgeagent: {one_line(exc)}", err=True)
        sys.exit(exc.exit_code)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as exc:
        what = f"{exc.filename}: " if exc.filename else ""
        click.echo(
            f"edgeagent: {what}{exc.strerror or exc}. Check that path and its disk.", err=True
        )
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def one_line(exc: click.ClickException) -> str:
    """A mistake in the command, and where its help is."""
    message = " ".join(exc.format_message().split())
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    if context is None:
        return message
    end = "" if message.endswith((".", "?", "!")) else "."
    return f"{message}{end} `{context.command_path} --help` shows what there is."
