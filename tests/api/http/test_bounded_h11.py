"""What BoundedH11 writes, byte for byte beside h11 itself."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.api.http.bounded_h11 import BoundedH11
from tests.conftest import n_examples

CHUNKED = [(b"transfer-encoding", b"chunked")]


def sent(connection: h11.Connection, version: bytes, headers: list, pieces: list[bytes]) -> bytes:
    connection.receive_data(b"GET / HTTP/" + version + b"\r\nHost: localhost\r\n\r\n")
    while type(connection.next_event()) is not h11.EndOfMessage:
        pass
    events = [h11.Response(status_code=200, headers=headers)]
    events += [h11.Data(data=piece) for piece in pieces]
    return b"".join(connection.send(event) for event in [*events, h11.EndOfMessage()])


@given(pieces=st.lists(st.binary(max_size=40), max_size=6))
@settings(max_examples=n_examples(40), deadline=None)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_pieces_are_framed_as_h11_does(version: bytes, pieces: list[bytes]):
    length = [(b"content-length", str(sum(map(len, pieces))).encode())]
    for headers in (CHUNKED, length):
        ours, theirs = BoundedH11(1 << 14), h11.Connection(h11.SERVER, 1 << 14)
        assert sent(ours, version, headers, pieces) == sent(theirs, version, headers, pieces)
        assert ours.our_state is theirs.our_state


def test_a_piece_before_the_head_or_behind_the_end_is_still_an_error():
    connection = BoundedH11(1 << 14)
    with pytest.raises(h11.LocalProtocolError):
        connection.send(h11.Data(data=b"early"))
    connection = BoundedH11(1 << 14)
    sent(connection, b"1.1", CHUNKED, [b"one"])
    with pytest.raises(h11.LocalProtocolError):
        connection.send(h11.Data(data=b"late"))
