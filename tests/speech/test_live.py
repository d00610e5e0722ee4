"""Live sessions by a hearing that says what it is told to, and the real voice detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeagent.speech.live import MAX_ENDED, LiveSession, interval_s
from edgeagent.speech.live_options import LiveOptions, TurnDetection
from edgeagent.speech.live_protocol import (
    Consumed,
    ItemDropped,
    ItemHeard,
    TurnBegan,
    TurnHeard,
    TurnOver,
    TurnText,
)
from edgeagent.speech.turn_transcriber import HeardTurn
from edgeagent.speech.turns import Turn
from tests.speech.recordings import TURNS, dialogue

SOUND = dialogue().mean(axis=0)
BYTES = (SOUND * 32767).astype("<i2").tobytes()
PER_S = 32_000


class Script:
    """Hears a word for every half second of a turn."""

    def __init__(self) -> None:
        self.drafts: list[float] = []
        self.finals: list[float] = []
        self.kept: list[str] = []
        self.is_doubtful = False

    def text(self, turn: Turn) -> str:
        return "".join(f" w{i}" for i in range(round(turn.speech_s / 0.5)))

    def draft(self, turn: Turn) -> str | None:
        self.drafts.append(turn.end / 16_000)
        return None if self.is_doubtful else self.text(turn)

    def final(self, turn: Turn) -> HeardTurn:
        self.finals.append(turn.end / 16_000)
        return HeardTurn(self.text(turn), "en")

    def keep(self, turn: Turn, text: str) -> None:
        self.kept.append(text)


class Listener:
    """A session with all that it said. Every reading of the clock takes 0.1 s."""

    def __init__(self, turns: TurnDetection | None = None, rate_hz: int = 16_000) -> None:
        self.script = Script()
        self._now_s = 0.0
        options = LiveOptions(rate_hz=rate_hz, turns=turns)
        self.session = LiveSession(1, options, lambda options: self.script, self._clock)
        self.said: list[Any] = []
        self.n_finals_at_end = 0  # when the turn that ended last was known to be over

    def _clock(self) -> float:
        self._now_s += 0.1
        return self._now_s

    def feed(self, data: bytes, size: int = 3200) -> None:
        for at in range(0, len(data), size):
            self.session.add(data[at : at + size])
            self.work()

    def command(self, command: Any) -> None:
        self.session.command(command)
        self.work()

    def work(self) -> None:
        while self.session.urgency(1) is not None:
            for reply in self.session.step(1):
                self.said.append(reply)
                if isinstance(reply, TurnOver):
                    self.n_finals_at_end = len(self.script.finals)

    def kinds(self) -> list[type]:
        return [type(reply) for reply in self.said if not isinstance(reply, Consumed)]

    @property
    def text(self) -> str:
        texts = [reply for reply in self.said if isinstance(reply, TurnText | TurnHeard)]
        return "".join(reply.text for reply in texts)


def test_words_come_while_a_turn_goes_on_and_its_end_brings_the_rest():
    listener = Listener(TurnDetection(silence_duration_ms=300))
    listener.feed(BYTES + bytes(PER_S))
    kinds = listener.kinds()
    assert kinds[0] is TurnBegan
    assert TurnText in kinds
    assert kinds.count(TurnBegan) == kinds.count(TurnOver) == kinds.count(TurnHeard)
    heard = [reply for reply in listener.said if isinstance(reply, TurnHeard)]
    assert len(heard) >= len(TURNS)
    assert listener.text == "".join(listener.script.kept)
    assert sum(reply.n_bytes for reply in listener.said if isinstance(reply, Consumed)) <= len(
        BYTES + bytes(PER_S)
    )


def test_a_turn_that_seems_to_end_is_heard_before_it_is_sure():
    listener = Listener(TurnDetection(silence_duration_ms=600))
    first = round((TURNS[0]["end_s"] + 0.1) * PER_S) // 2 * 2
    listener.feed(BYTES[:first] + bytes(2 * PER_S))
    assert listener.kinds()[-2:] == [TurnOver, TurnHeard]
    assert listener.n_finals_at_end == len(listener.script.finals)


def test_doubtful_drafts_say_nothing():
    listener = Listener(TurnDetection())
    listener.script.is_doubtful = True
    first = round((TURNS[0]["end_s"] - 0.4) * PER_S) // 2 * 2
    listener.feed(BYTES[:first])
    assert listener.script.drafts
    assert TurnText not in listener.kinds()


def test_without_turns_the_caller_ends_an_item():
    listener = Listener(None)
    listener.feed(BYTES)
    listener.command("end")
    assert listener.kinds()[-1] is ItemHeard
    assert listener.text == "".join(listener.script.kept)
    listener.command("end")
    assert listener.kinds()[-2:] == [ItemHeard, ItemHeard]


def test_what_is_dropped_is_not_heard():
    listener = Listener(None)
    first = round((TURNS[0]["start_s"] + 0.5) * PER_S) // 2 * 2
    listener.feed(BYTES[:first])
    listener.command("drop")
    assert listener.kinds()[-1] is ItemDropped
    listener.command("end")
    assert listener.kinds()[-1] is ItemHeard
    assert TurnHeard not in listener.kinds()


def test_dropping_drops_the_turns_of_the_item_and_none_before():
    listener = Listener(None)
    listener.session.add(BYTES)
    listener.session.command("end")
    listener.session.add(BYTES)
    listener.session.command("drop")
    listener.work()
    kinds = listener.kinds()
    assert ItemDropped in kinds
    assert kinds[-2:] == [TurnHeard, ItemHeard]
    n_heard = kinds.count(TurnHeard)
    listener.command("end")
    assert listener.kinds().count(TurnHeard) == n_heard


def test_bytes_wait_while_turns_that_ended_are_not_heard():
    listener = Listener(TurnDetection(silence_duration_ms=200))
    listener.session.add(BYTES * 6)
    steps = 0
    while listener.session.urgency(1) == 0:
        listener.said += listener.session.step(1)
        waiting = sum(isinstance(r, TurnOver) for r in listener.said) - sum(
            isinstance(r, TurnHeard) for r in listener.said
        )
        assert waiting <= MAX_ENDED + 4  # a block of a second may have several
        steps += 1
    assert steps > 6


@pytest.mark.parametrize("size", [2, 333, 100_000])
def test_the_pieces_make_no_difference_to_the_turns(size):
    data = BYTES[: 4 * PER_S] + bytes(PER_S)
    whole, pieces = Listener(TurnDetection()), Listener(TurnDetection())
    whole.feed(data, len(data))
    pieces.feed(data, size)
    ends = [
        [reply for reply in listener.said if isinstance(reply, TurnOver)]
        for listener in (whole, pieces)
    ]
    assert ends[0] == ends[1]


def test_other_options_hold_from_where_they_come():
    listener = Listener(TurnDetection())
    first = round((TURNS[0]["start_s"] + 1) * PER_S) // 2 * 2
    listener.feed(BYTES[:first])
    listener.command(LiveOptions(rate_hz=8_000, format="pcmu", turns=None))
    assert listener.kinds()[-2:] == [TurnOver, TurnHeard]
    at_s = next(r.at_s for r in listener.said if isinstance(r, TurnOver))
    quiet = np.full(8_000, 0xFF, dtype=np.uint8).tobytes()
    listener.feed(quiet)
    assert listener.session._finder.n_samples / 16_000 > at_s + 0.9


def test_hearings_are_as_far_apart_as_all_can_keep_up_with():
    assert interval_s(0.1, 1) == interval_s(0.1, 2)
    assert interval_s(0.5, 4) >= 2 * interval_s(0.5, 2) > interval_s(0.5, 1)
