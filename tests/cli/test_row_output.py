"""Rows as text: exact for programs, harmless for terminals, never held as a whole."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys

import pytest

from edgeagent.cli.shared.printable import printable
from edgeagent.cli.shared.row_output import MOST_CELL, TABLE_ROWS, write_rows
from edgeagent.types.spreadsheet_cell import as_text_cell, text_of_cell

EVIL = "\x1b]0;title\x07 \r\x9b31m \u202egnp.exe \u2028 \ufeff[red]x[/red] \U000e0041 \x7f"
PLAIN = "für 患者 👩‍⚕️ naïve"


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def written(request, monkeypatch):
    """`written(rows, shape)`: what standard output got, and whether it was a terminal."""

    def written(rows, shape):
        kind = Terminal if request.param else io.TextIOWrapper
        monkeypatch.setattr(sys, "stdout", kind(io.BytesIO(), encoding="ascii"))
        write_rows(iter(rows), shape)
        return sys.stdout.buffer.getvalue().decode(), request.param

    return written


@pytest.mark.parametrize("shape", ["table", "csv", "json", "nl"])
def test_a_terminal_gets_no_control_character(written, shape):
    text, is_terminal = written([{EVIL: EVIL, "b": PLAIN}] * 3, shape)
    if is_terminal or shape != "csv":
        assert all(c == "\n" or c.isprintable() or c == "\u200d" for c in text)
        assert "[red]x[/red]" in text
    assert PLAIN.split()[0] in text


@pytest.mark.parametrize("shape", ["json", "nl", "csv"])
def test_what_is_read_back_is_what_was_written(written, shape):
    row = {"a": EVIL, "b": PLAIN, "c": '","\n', "d": ""}
    text, is_terminal = written([row, row], shape)
    if shape == "csv" and is_terminal:
        return  # for eyes
    if shape == "csv":
        assert list(csv.DictReader(io.StringIO(text, newline=""))) == [row, row]
    elif shape == "json":
        assert json.loads(text) == [row, row]
    else:
        assert [json.loads(line) for line in text.split("\n")[:-1]] == [row, row]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "'=1", "''=1", "\n=1"]
)
def test_a_text_in_csv_is_nothing_that_a_spreadsheet_computes(written, text):
    shown, is_terminal = written([{text: text, "n": -1, "x": -0.5}], "csv")
    if is_terminal:
        assert shown.count("'" + printable(text)[:1]) >= 2
        return
    (row,) = csv.DictReader(io.StringIO(shown, newline=""))
    assert row == {"'" + text: "'" + text, "n": "-1", "x": "-0.5"}
    assert text_of_cell(row["'" + text]) == text
    as_json, _ = written([{text: text}], "json")
    assert json.loads(as_json) == [{text: text}], "for programs"


@pytest.mark.parametrize("text", ["", "'", "it's", "'quoted' text", "1-1", "a=b", "''", "don't -"])
def test_other_texts_in_csv_are_as_they_are(text):
    assert as_text_cell(text) == text == text_of_cell(text)


@pytest.mark.parametrize("shape", ["table", "csv", "json", "nl"])
def test_rows_are_written_while_others_are_to_come(monkeypatch, shape):
    class Closed(Exception):
        pass

    class Sink(io.BytesIO):
        def write(self, data):
            raise Closed

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Sink()))
    n_taken = itertools.count()
    rows = ({"n": next(n_taken)} for _ in itertools.repeat(None))
    with pytest.raises(Closed):
        write_rows(rows, shape)
    assert next(n_taken) <= TABLE_ROWS + 1
    monkeypatch.undo()


def test_a_table_has_its_names_once_and_cuts_what_is_long(written):
    rows = [{"name": f"row {n}", "text": None} for n in range(TABLE_ROWS * 2)]
    rows.append({"name": "last", "text": "x" * 10_000})
    rows.append({"name": "bytes", "text": bytes(7)})
    text, _ = written(rows, "table")
    assert text.count("name") == 1
    assert "<7 bytes>" in text
    assert f"... ({10_000} characters)" in text.replace("\n", "") or "10000" in text
    assert text.count("x") < MOST_CELL + 10


def test_a_break_is_shown_as_one():
    assert printable("a\nb\tc\rd\0e") == "a\\nb\\tc\\rd\\x00e"
