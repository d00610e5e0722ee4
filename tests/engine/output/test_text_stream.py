"""Text that leaves the engine: whole code points, and nothing of a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.engine.output.text_stream import TextStream


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    return [*pieces, data[start:]]


def run(pieces: list[bytes], stop: list[str]) -> tuple[list[str], bool]:
    stream = TextStream(stop)
    out = []
    for piece in pieces:
        out.append(stream.push(piece))
        if stream.is_stopped:
            return out, True
    return [*out, stream.finish()], False


@given(text=st.text(), sizes=st.lists(st.integers(0, 3), max_size=60))
def test_any_cut_of_the_bytes_gives_the_same_text(text, sizes):
    out, _ = run(cut(text.encode(), sizes), [])
    assert "".join(out) == text


@given(text=st.text(min_size=1), sizes=st.lists(st.integers(1, 2), max_size=60))
def test_no_piece_has_a_broken_code_point(text, sizes):
    for piece in run(cut(text.encode(), sizes), [])[0]:
        assert "�" not in piece or "�" in text


@given(
    text=st.text(alphabet="abc", max_size=60),
    stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=st.lists(st.integers(0, 4), max_size=40),
)
def test_a_stop_string_cuts_where_it_first_appears_however_the_tokens_fall(text, stop, sizes):
    pieces = cut(text.encode(), sizes)
    out, is_stopped = run(pieces, stop)
    ends = [text.find(s) + len(s) for s in stop if s in text]
    assert is_stopped == bool(ends)
    if not ends:
        assert "".join(out) == text
        return
    # What was seen when the stream stopped ends with the token that completed a stop string.
    seen = ""
    for piece in pieces:
        seen += piece.decode()
        if any(s in seen for s in stop):
            break
    assert "".join(out) == seen[: min(seen.find(s) for s in stop if s in seen)]


@pytest.mark.parametrize(
    ("pieces", "emitted"),
    [
        (["Hello", " wor", "ld"], ["Hello", " wor", "ld", ""]),
        (["a", "E", "N"], ["a", "", "", "EN"]),  # held back, then given at the end
        (["aE", "Nx"], ["a", "ENx", ""]),  # held back until it cannot be the stop any more
    ],
)
def test_only_a_possible_beginning_of_the_stop_is_held_back(pieces, emitted):
    out, is_stopped = run([piece.encode() for piece in pieces], ["END"])
    assert (out, is_stopped) == (emitted, False)


def test_an_unfinished_code_point_is_dropped_at_the_end():
    out, _ = run([b"caf", "é".encode()[:1]], [])
    assert "".join(out) == "caf"


def test_bytes_that_are_no_utf8_become_replacement_characters():
    out, _ = run([b"a\xff\xfeb"], [])
    assert "".join(out) == "a��b"
