"""What a log line looks like, whatever is in it."""

from __future__ import annotations

import io
import logging

import pytest

from edgeagent.worker.log_format import LineFormatter, escaped

NASTY = [
    "a\nb", "a\r\nb", "\x1b[2J", "\x1b]0;owned\x07", "a\x00b", "a\x7fb", "\x85", "\u2028", "\u2029",
    "\x0b\x0c",
    "\u202egnp.exe", "\u2066x\u2069", "\u200b", "\ufeff", "\ud800", "\x9b2J", "\U000e0041", "\ue000",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_what_could_forge_or_hide_is_shown_by_its_number(text):
    shown = escaped(text)
    assert shown.isprintable() and len(shown.splitlines()) == 1
    assert "\\" in shown


@pytest.mark.parametrize("text", ["", "plain text", "Grüße, 日本語 🙂", "a=b 'c' \"d\" [e]"])
def test_what_is_plain_stays_as_it_is(text):
    assert escaped(text) == text


def logged(log: logging.Logger) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    log.handlers, log.propagate = [handler], False
    return stream


def test_a_record_is_one_line_and_a_traceback_says_where_and_not_what():
    log = logging.getLogger("tests.logs")
    stream = logged(log)
    content = "CANARY"[::-1] + "\nWARNING forged \x1b[2J"
    log.warning("request model=%s", "x\n2026-11-28 WARNING forged\x1b[2J")
    try:
        try:
            raise KeyError(content)
        except KeyError as exc:
            raise ValueError(content) from exc
    except ValueError:
        log.exception("unforeseen")
    log.warning("x" * 100_000)
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line.startswith("WARNING forged")] == []
    assert lines[0].startswith("WARNING request model=x\\x0a2026")
    assert content[:6] not in stream.getvalue() and "\x1b" not in stream.getvalue()
    assert "test_log_format.py" in stream.getvalue() and "KeyError" in stream.getvalue()
    assert all(line.startswith(("WARNING ", "ERROR ", "    | ")) for line in lines)
    assert max(map(len, lines)) < 5000
