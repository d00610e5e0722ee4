"""Help that a person can act on."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from edgeagent.cli.main import cli

COMMANDS = [
    [], ["serve"], ["chat"], ["doctor"], ["models"], ["models", "list"], ["models", "catalog"],
    ["models", "install"], ["models", "verify"], ["models", "remove"], ["data"], ["data", "stats"],
    ["data", "export"], ["data", "erase"], ["data", "backup"], ["data", "restore"], ["data", "hold"],
    ["data", "release"], ["audit"], ["audit", "show"], ["audit", "verify"], ["audit", "export"],
    ["keys"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"], ["keys", "rotate"],
    ["keys", "forget"], ["bundle", "keys"], ["bundle", "keys", "show"], ["data", "tables"],
    ["data", "rows"], ["data", "query"], ["data", "schema"], ["data", "copy"],
    ["service"], ["service", "install"], ["service", "uninstall"], ["service", "status"],
    ["route"], ["route", "check"], ["route", "explain"], ["route", "stats"], ["route", "evaluate"],
    ["route", "train"], ["route", "calibrate"],
    ["service", "run"], ["service", "make-key"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_explained(command):
    done = CliRunner().invoke(cli, [*command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "Usage:" in done.stdout
    lines = done.stdout.partition("Options:")[2].splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("--"):
            explained = len(line.split("  ")) > 2 or (
                number + 1 < len(lines) and lines[number + 1].startswith("   ")
            )
            assert explained, f"{line!r} has no explanation"


def test_the_first_help_names_every_command_and_the_first_steps(edgeagent):
    text = edgeagent("--help").stdout
    for command in ("serve", "chat", "models", "doctor"):
        assert command in text
    assert "edgeagent models install" in text


def test_short_help_and_version_work(edgeagent):
    assert edgeagent("-h").returncode == 0
    assert "edgeagent" in edgeagent("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["serve", "--prot", "1"], ["models", "remove"], ["serve", "--port", "x"]],
)
def test_a_wrong_command_line_is_status_2_with_a_hint(edgeagent, arguments):
    done = edgeagent(*arguments)
    assert done.returncode == 2
    assert "Usage" in done.stderr or "--help" in done.stderr or "help" in done.stderr.lower()
