"""Ctrl-C while a line is read, and while an answer comes."""

from __future__ import annotations

import signal
import sys

import pytest

from edgeagent.cli.shared.interrupts import Interrupts
from tests.cli.terminal import Terminal

# Signals go to another thread, so that none interrupts the wait of readline: what happens by chance when
# a key is pressed in the moment before the wait begins.
UNNOTICED = """
import readline, signal, threading
from edgeagent.cli.shared.interrupts import Interrupts

threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
with Interrupts() as interrupts:
    while True:
        try:
            print("read", repr(interrupts.read_line("> ")))
        except KeyboardInterrupt:
            print("interrupted")
"""


def test_ctrl_c_that_did_not_interrupt_the_wait_for_a_key_is_noticed_before_the_next_key():
    with Terminal([sys.executable, "-c", UNNOTICED]) as terminal:
        terminal.wait_for("> ")
        terminal.type("half a line\x03")
        terminal.wait_for("interrupted")
        terminal.wait_for("> ")
        terminal.type("a line\n")
        terminal.wait_for("read 'a line'")


def test_an_interrupt_that_a_finalizer_swallowed_is_raised_at_the_next_check(
    monkeypatch: pytest.MonkeyPatch,
):
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with Interrupts() as interrupts, interrupts.stoppable():
        interrupts.check()
        Finalized()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_between_two_things_to_stop_ctrl_c_does_nothing():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.stoppable():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with interrupts.stoppable():
            interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before
