"""What is printed for a person: stored text is shown and not obeyed."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.terminal import PlainConsole, show_table


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("[red]key[/red]", "[red]key[/red]"),
        ("[/nothing]", "[/nothing]"),
        ("[link=https://example.org]x[/link]", "[link=https://example.org]x[/link]"),
        (":warning:", ":warning:"),
        ("\\[red]", "\\[red]"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb", "a\\nb"),
        ("abc\u202edef", "abc\\u202edef"),
    ],
)
def test_a_cell_is_shown_as_it_is_stored(
    capsys: pytest.CaptureFixture[str], stored: str, shown: str
):
    table = Table("name", stored, box=None, pad_edge=False)
    table.add_row(stored, "end")
    show_table(table)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split(maxsplit=1)[1].rstrip() == shown
    assert row.rstrip().removesuffix("end").rstrip() == shown


def test_a_line_is_printed_as_it_is_and_our_own_style_still_counts(
    capsys: pytest.CaptureFixture[str],
):
    PlainConsole(width=80).print("[red]a :smile:")
    PlainConsole(width=80, force_terminal=True, color_system="standard").print(
        Text.assemble(("!", "yellow"), printable(" [b]\x1b"))
    )
    plain, styled = capsys.readouterr().out.splitlines()
    assert plain == "[red]a :smile:"
    assert styled.startswith("\x1b[33m!") and "[b]\\x1b" in styled
