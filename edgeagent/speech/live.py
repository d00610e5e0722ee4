"""Live sessions in a speech worker: samples in, turns and words that will not change out. One thread.

A step of a session does one of these, the first that there is to do:

    1. looks at what has arrived: where turns begin and end
    2. hears a turn that has ended, with all care
    3. hears the open turn as far as it has come, quickly: words that two hearings agree on are final

The session whose step is most urgent is first, and among equals each in its turn. How often open turns are
heard depends on what that costs here and on how many people speak, so that all keep up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

from edgeagent.speech.live_options import LiveOptions
from edgeagent.speech.live_protocol import (
    Consumed,
    ItemDropped,
    ItemHeard,
    LiveReply,
    TurnBegan,
    TurnHeard,
    TurnOver,
    TurnText,
)
from edgeagent.speech.local_agreement import Agreement
from edgeagent.speech.pcm import PcmDecoder
from edgeagent.speech.turn_transcriber import HeardTurn
from edgeagent.speech.turns import Turn, TurnFinder, TurnStart
from edgeagent.speech.vad import RATE_HZ

# Samples are looked at in blocks: smaller ones wait a moment, larger ones are divided.
MIN_BLOCK_S, MAX_BLOCK_S = 0.064, 1.0
# Turns that have ended and are not heard yet: with more of them, what arrives must wait.
MAX_ENDED = 3
# An open turn is heard again after this much more audio, and has at least this much speech.
MIN_INTERVAL_S, MIN_SPEECH_S = 0.8, 0.6
# The part of one processor's time that hearings of open turns may take.
DRAFT_SHARE = 0.6
# So much silence may be the end of a turn: it is heard as if it were, to have its text at once.
EARLY_S = 0.25

Command = Literal["end", "drop"]
Clock = Callable[[], float]


class Hearing(Protocol):
    """Hears the turns of one session (`turn_transcriber.py`)."""

    def draft(self, turn: Turn) -> str | None:
        """The text of an open turn; None where the model doubts it."""

    def final(self, turn: Turn) -> HeardTurn:
        """The text of a turn that has ended."""

    def keep(self, turn: Turn, text: str) -> None:
        """Remember what was said, for the turns to come."""


def interval_s(cost_s: float, n_talking: int) -> float:
    """After how much audio an open turn is heard again, given what a hearing costs and how many speak."""
    return max(MIN_INTERVAL_S, cost_s * n_talking / DRAFT_SHARE)


class LiveSession:
    """One stream. `hearing` is made anew for options that change."""

    def __init__(
        self,
        request_id: int,
        options: LiveOptions,
        hearing: Callable[[LiveOptions], Hearing],
        clock: Clock = time.monotonic,
    ) -> None:
        self.request_id = request_id
        self._options = options
        self._new_hearing = hearing
        self._hearing = hearing(options)
        self._clock = clock
        self._decoder = PcmDecoder(options.format, options.rate_hz)
        self._finder = TurnFinder(options.turns)
        self._inputs: deque[bytes | Command | LiveOptions] = deque()
        self._n_waiting = 0  # bytes among them
        self._n_commands = 0  # and other inputs
        self._ended: deque[Turn | None] = deque()  # None: the end of an item
        self._agreement = Agreement()
        self._early: tuple[int, HeardTurn] | None = None  # by the end of its speech
        self._heard_at = 0  # the sample up to which the open turn was heard
        self._cost_s = 0.0

    # --- what arrives

    def add(self, data: bytes) -> None:
        """The next bytes. They wait in blocks of at most `MAX_BLOCK_S`."""
        size = max(2, round(MAX_BLOCK_S * self._options.bytes_per_s) // 2 * 2)
        last = self._inputs[-1] if self._inputs else None
        if isinstance(last, bytes) and len(last) + len(data) <= size:
            self._inputs[-1] = last + data
        else:
            self._inputs += [data[at : at + size] for at in range(0, len(data), size)]
        self._n_waiting += len(data)

    def command(self, command: Command | LiveOptions) -> None:
        """What is to be done behind the bytes so far: with options, go on by them."""
        self._inputs.append(command)
        self._n_commands += 1

    # --- what there is to do

    @property
    def is_talking(self) -> bool:
        return self._finder.open_speech() is not None

    def urgency(self, n_talking: int) -> int | None:
        """0 for what cannot wait, 1 for an open turn; None: nothing to do."""
        if self._can_look or self._ended:
            return 0
        return 1 if self._is_due(n_talking) else None

    @property
    def _can_look(self) -> bool:
        if not self._inputs or len(self._ended) >= MAX_ENDED:
            return False
        is_block = self._n_waiting >= MIN_BLOCK_S * self._options.bytes_per_s
        return is_block or self._n_commands > 0

    def _is_due(self, n_talking: int) -> bool:
        speech = self._finder.open_speech()
        if speech is None or speech[1] - speech[0] < MIN_SPEECH_S * RATE_HZ:
            return False
        if self._finder.quiet_s >= EARLY_S:
            return self._early is None or self._early[0] != speech[1]
        new_s = (self._finder.n_samples - max(self._heard_at, speech[0])) / RATE_HZ
        return new_s >= interval_s(self._cost_s, n_talking)

    def step(self, n_talking: int) -> Iterator[LiveReply]:
        """Do what is most urgent."""
        if self._can_look:
            while self._can_look:
                yield from self._look(self._inputs.popleft())
        elif self._ended:
            yield from self._hear_ended(self._ended.popleft())
        elif self._is_due(n_talking):
            yield from self._hear_open()

    # --- looking

    def _look(self, given: bytes | Command | LiveOptions) -> Iterator[LiveReply]:
        if isinstance(given, bytes):
            self._n_waiting -= len(given)
            yield from self._found(self._finder.feed(self._decoder.feed(given)))
            yield Consumed(self.request_id, len(given))
            return
        self._n_commands -= 1
        if given == "end":
            yield from self._found(self._finder.flush())
            self._ended.append(None)
        elif given == "drop":
            self._drop()
            yield ItemDropped(self.request_id)
        elif isinstance(given, LiveOptions):
            yield from self._changed(given)

    def _found(self, events: Iterator[TurnStart | Turn]) -> Iterator[LiveReply]:
        for event in events:
            if isinstance(event, TurnStart):
                yield TurnBegan(self.request_id, event.at / RATE_HZ)
            else:
                self._ended.append(event)
                yield TurnOver(self.request_id, event.end / RATE_HZ)

    def _drop(self) -> None:
        is_open = self.is_talking
        self._finder.drop()
        if self._options.turns is None:  # turns are but parts of an item
            while self._ended and self._ended[-1] is not None:
                self._ended.pop()
                is_open = True
        if is_open and not any(self._ended):
            self._agreement = Agreement()
            self._early = None

    def _changed(self, options: LiveOptions) -> Iterator[LiveReply]:
        """From here on by other options. An open turn ends."""
        before, self._options = self._options, options
        yield from self._found(self._finder.flush())
        if options.turns != before.turns:
            self._finder.change(options.turns)
        if (options.format, options.rate_hz) != (before.format, before.rate_hz):
            self._decoder = PcmDecoder(options.format, options.rate_hz)
        self._hearing = self._new_hearing(options)

    # --- hearing

    def _hear_ended(self, turn: Turn | None) -> Iterator[LiveReply]:
        if turn is None:
            yield ItemHeard(self.request_id)
            return
        early, self._early = self._early, None
        is_heard = early is not None and early[0] == turn.speech_end
        heard = early[1] if early is not None and is_heard else self._hearing.final(turn)
        rest = self._agreement.finish(heard.text)
        told, self._agreement = self._agreement.text, Agreement()
        self._hearing.keep(turn, told)
        yield TurnHeard(
            self.request_id,
            rest,
            turn.start / RATE_HZ,
            turn.end / RATE_HZ,
            heard.language,
            heard.logprobs,
        )

    def _hear_open(self) -> Iterator[LiveReply]:
        turn = self._finder.open_turn()
        assert turn is not None, "it is due"
        started_s = self._clock()
        if self._finder.quiet_s >= EARLY_S:
            heard = self._hearing.final(turn)
            self._early = (turn.speech_end, heard)
            text: str | None = heard.text
        else:
            text = self._hearing.draft(turn)
            self._cost_s = self._clock() - started_s
        self._heard_at = self._finder.n_samples
        if text and (final := self._agreement.add(text)):
            yield TurnText(self.request_id, final)
