"""When tokens that came at once go on to their reader."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from edgeagent.engine import stream_pacer
from edgeagent.engine.stream_pacer import LEAST_GAP_S, LONGEST_S, StreamPacer
from edgeagent.types.answer import CallDelta, TokenChunk


class Timer:
    def __init__(self, at_s: float) -> None:
        self._at_s = at_s
        self.is_cancelled = False

    def when(self) -> float:
        return self._at_s

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """An event loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[tuple[float, int, Timer, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(at_s)
        heapq.heappush(self._timers, (at_s, id(timer), timer, call))
        return timer

    def until(self, end_s: float) -> None:
        while self._timers and self._timers[0][0] <= end_s:
            at_s, _, timer, call = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                self.now_s = at_s
                call()
        self.now_s = end_s


class Reader:
    """A pacer and what it has passed on: (milliseconds, request, text)."""

    def __init__(self, loop: Loop, live: set[int]) -> None:
        self._loop = loop
        self._live = live
        self.got: list[tuple[int, int, str]] = []
        self.pacer = StreamPacer(self._take)

    def _take(self, request_id: int, chunk: TokenChunk) -> None:
        self.got.append((round(1e3 * self._loop.now_s), request_id, chunk.text))

    def step(self, at_ms: int, texts: dict[int, str], next_ms: float = 0, **last: object) -> None:
        """A step ends that has drawn a token for each character."""
        self._loop.until(at_ms / 1e3)
        chunks = [
            (request_id, TokenChunk(0, text)) for request_id in texts for text in texts[request_id]
        ]
        if last:
            number, chunk = chunks[-1]
            chunks[-1] = (number, TokenChunk(0, chunk.text, **last))  # type: ignore[arg-type]
        self.pacer.count(at_ms / 1e3)
        self.pacer.pass_on(
            chunks, at_ms / 1e3, next_ms / 1e3, lambda n: n in self._live, len(texts)
        )

    def at(self, request_id: int = 1) -> list[tuple[int, str]]:
        return [(at_ms, text) for at_ms, number, text in self.got if number == request_id]

    @property
    def text(self) -> str:
        return "".join(text for _, _, text in self.got)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    asyncio = SimpleNamespace(get_running_loop=lambda: loop, TimerHandle=Timer)
    monkeypatch.setattr(stream_pacer, "asyncio", asyncio)
    return loop


def test_tokens_of_a_step_go_on_while_the_next_one_is_computed(loop: Loop):
    reader = Reader(loop, {1})
    reader.step(100, {1: "abcde"}, next_ms=50)
    loop.until(0.150)
    assert reader.at() == [(100, "a"), (110, "b"), (120, "c"), (130, "d"), (140, "e")]
    assert not reader.pacer.is_holding


def test_pieces_have_a_least_distance(loop: Loop):
    reader = Reader(loop, {1})
    reader.step(100, {1: "abcdefghijk"}, next_ms=33)
    loop.until(0.200)
    assert reader.text == "abcdefghijk"
    assert reader.at()[0] == (100, "a")
    assert reader.at()[-1][0] <= 133
    times = [at_ms for at_ms, _ in reader.at()]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 1e3 * LEAST_GAP_S


def test_tokens_of_steps_that_follow_go_on_behind_those_that_wait(loop: Loop):
    """Steps with drafts take 40 ms and bring 4 tokens, others take 10 and bring one: no gap is 40 ms."""
    reader = Reader(loop, {1})
    at_ms, sent = 0, ""
    for n_round in range(12):
        for took_ms, texts in [(40, "wxyz"), (10, "a"), (10, "b")]:
            at_ms += took_ms
            sent += texts
            reader.step(at_ms, {1: texts}, next_ms=10 if n_round else 0)
    reader.step(at_ms + 10, {1: "!"}, finish="stop")
    assert reader.text == sent + "!"
    times = [at_ms for at_ms, _ in reader.at() if at_ms >= 100]
    assert max(b - a for a, b in itertools.pairwise(times)) <= 20
    assert reader.at()[-1] == (at_ms + 10, "!")  # the end waits for nothing


def test_nothing_waits_much_longer_than_readers_notice(loop: Loop):
    reader = Reader(loop, {1})
    reader.step(0, {1: "a"})
    reader.step(900, {1: "bcd"})  # after a pause for a prompt
    loop.until(0.900 + LONGEST_S)
    assert reader.text == "abcd"


@pytest.mark.parametrize("last", [{"finish": "length"}, {"calls": [CallDelta(0, "{}", "f")]}])
def test_what_is_not_text_brings_all_that_is_left(loop: Loop, last: dict[str, object]):
    reader = Reader(loop, {1})
    reader.step(100, {1: "abcd"}, next_ms=80)
    reader.step(110, {1: "e"}, **last)
    assert reader.at() == [(100, "a"), (110, "bcd"), (110, "e")]
    assert not reader.pacer.is_holding


def test_requests_that_nobody_reads_live_are_not_held(loop: Loop):
    reader = Reader(loop, {1})
    reader.step(100, {1: "ab", 2: "cd"}, next_ms=40)
    assert reader.got == [(100, 1, "a"), (100, 2, "cd")]


def test_many_streams_get_larger_pieces(loop: Loop):
    live = set(range(8))
    reader = Reader(loop, live)
    reader.step(0, dict.fromkeys(live, "abcdefghijkl"), next_ms=200)
    loop.until(0.2)
    assert sorted(reader.text) == sorted("abcdefghijkl" * 8)
    assert all(reader.at(number)[0] == (0, "a") for number in live)
    assert all(len(reader.at(number)) == 4 for number in live)  # 64 ms and more between two


def test_who_leaves_is_passed_nothing_more_and_a_dead_engine_holds_nothing(loop: Loop):
    reader = Reader(loop, {1, 2})
    reader.step(0, {1: "abc", 2: "def"}, next_ms=60)
    reader.pacer.drop(1)
    reader.pacer.flush_all()
    loop.until(1.0)
    assert (reader.at(1), reader.at(2)) == ([(0, "a")], [(0, "d"), (0, "ef")])


def test_answers_of_one_request_wait_apart(loop: Loop):
    reader = Reader(loop, {1})
    chunks = [
        (1, TokenChunk(index, text)) for index, text in [(0, "a"), (0, "b"), (1, "x"), (1, "y")]
    ]
    reader.pacer.pass_on(chunks, 0.0, 0.04, lambda n: True, 1)
    end = [(1, TokenChunk(0, "c", finish="stop"))]
    reader.pacer.pass_on(end, 0.0, 0.04, lambda n: True, 1)
    assert [text for _, _, text in reader.got] == ["a", "x", "b", "c"]
    loop.until(0.1)
    assert reader.got[-1][2] == "y"
