"""`edgeagent`: the command line, with one subcommand per noun."""

from __future__ import annotations

import os
import sys

import click

from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.standard_streams import open_missing
from edgeagent.errors import EdgeAgentError
from edgeagent.types.version import VERSION
from edgeagent.worker.non_dumpable import keep_private

COMMANDS = {
    "serve": "edgeagent.cli.serve",
    "chat": "edgeagent.cli.chat",
    "transcribe": "edgeagent.cli.transcribe",
    "listen": "edgeagent.cli.listen",
    "models": "edgeagent.cli.models",
    "bundle": "edgeagent.cli.bundle",
    "keys": "edgeagent.cli.keys",
    "knowledge": "edgeagent.cli.knowledge",
    "bot": "edgeagent.cli.bot",
    "data": "edgeagent.cli.data",
    "audit": "edgeagent.cli.audit",
    "evaluate": "edgeagent.cli.evaluate",
    "optimize": "edgeagent.cli.optimize",
    "tune": "edgeagent.cli.tune",
    "prune": "edgeagent.cli.prune",
    "imatrix": "edgeagent.cli.imatrix",
    "quantize": "edgeagent.cli.quantize",
    "forge": "edgeagent.cli.forge",
    "route": "edgeagent.cli.route",
    "doctor": "edgeagent.cli.doctor",
    "service": "edgeagent.cli.service",
    "top": "edgeagent.cli.top",
}


class LazyGroup(click.Group):
    """Imports the module of a subcommand when it is used, so that `serve` loads no terminal libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = __import__(COMMANDS[cmd_name], fromlist=[cmd_name])
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edgeagent")
def cli() -> None:
    """Application server for small language models on edge devices.

    Start with `edgeagent models install smollm2-135m-instruct`, then `edgeagent serve` in one
    terminal and `edgeagent chat` in another.
    """


def main() -> None:
    """The console script: our own errors are one line on standard error, with exit status 2.

    The daemon and the commands that open the store hold its key in memory, so their memory is closed to other
    processes of the same user.
    """
    keep_private()
    open_missing()
    try:
        status = cli.main(prog_name="edgeagent", standalone_mode=False)
    except EdgeAgentError as exc:
        click.echo(f"edgeagent: {_shown(exc.message)}", err=True)
        sys.exit(2)
    except click.ClickException as exc:
        click.echo(f"edgeagent: {one_line(exc)}", err=True)
        sys.exit(exc.exit_code)
    except BrokenPipeError:  # the reader of our output has closed it
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


def _shown(message: str) -> str:
    """With control characters as escapes: a file that was read may have put them there."""
    return "\n".join(map(printable, message.split("\n")))


def one_line(exc: click.ClickException) -> str:
    """An error in the command line, with a hint to its help."""
    message = " ".join(exc.format_message().split())
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    if context is None:
        return message
    end = "" if message.endswith((".", "?", "!")) else "."
    return f"{message}{end} See `{context.command_path} --help`."
