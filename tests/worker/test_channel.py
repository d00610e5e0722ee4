"""How a worker waits for messages."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeagent.worker import frames
from edgeagent.worker.channel import Channel

N_TOKENS = 200


class Said(msgspec.Struct, tag=True):
    text: str


def n_sleeps(thread: threading.Thread) -> int:
    """How often a thread has given up its core to wait."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    channel = Channel(ours.detach(), msgspec.msgpack.Decoder(Said).decode)
    with theirs, channel._socket:
        yield channel, theirs


def test_messages_come_whole_and_the_end_is_told(ends):
    channel, daemon = ends
    daemon.sendall(frames.encode(Said("a")) + frames.encode(Said("b"))[:3])
    assert channel.receive() == [Said("a")]
    daemon.sendall(frames.encode(Said("b"))[3:])
    daemon.close()
    assert channel.receive() == [Said("b")]
    with pytest.raises(EOFError):
        channel.receive()


def test_a_thread_that_waits_is_not_woken_when_the_daemon_reads_what_was_sent(ends):
    channel, daemon = ends
    got: list[Any] = []
    receiver = threading.Thread(target=lambda: got.extend(channel.receive()))
    receiver.start()
    while n_sleeps(receiver) == 0:
        time.sleep(0.001)
    before = n_sleeps(receiver)
    for n in range(N_TOKENS):
        channel.send(Said(str(n)))
        assert daemon.recv(1 << 16)
        time.sleep(0.0002)  # in which a thread that is woken sleeps again
    woken = n_sleeps(receiver) - before
    daemon.sendall(frames.encode(Said("end")))
    receiver.join()
    assert got == [Said("end")]
    assert woken < N_TOKENS / 10
