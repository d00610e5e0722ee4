"""When tokens that came at once go on to their reader."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.engine import stream_pacer
from edgeagent.engine.stream_pacer import LEAST_GAP_S, LONGEST_S, StreamPacer
from edgeagent.types.answer import CallDelta, TokenChunk
from tests.conftest import n_examples


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

    def step(self, at_ms: int, texts: dict[int, str], **last: object) -> None:
        """A step ends that has drawn a token for each character."""
        self._loop.until(at_ms / 1e3)
        chunks = [
            (request_id, TokenChunk(0, text)) for request_id in texts for text in texts[request_id]
        ]
        if last:
            number, chunk = chunks[-1]
            chunks[-1] = (number, TokenChunk(0, chunk.text, **last))  # type: ignore[arg-type]
        self.pacer.pass_on(chunks, at_ms / 1e3, lambda n: n in self._live)

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


def gaps(times: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise(times)]


def test_tokens_of_a_step_go_on_while_the_next_one_is_computed(loop: Loop):
    reader = Reader(loop, {1})
    reader.step(100, {1: "a"})
    for at_ms in range(150, 650, 50):
        reader.step(at_ms, {1: "bcdef"})
    reader.step(650, {1: "!"}, finish="stop")
    times = [at_ms for at_ms, _ in reader.at() if at_ms >= 200]
    assert len(times) > 40 and max(gaps(times)) <= 14  # in a steady flow one comes every 10 ms
    assert reader.text == "a" + "bcdef" * 10 + "!"


def test_answers_that_come_token_by_token_are_never_held(loop: Loop):
    reader = Reader(loop, {1, 2})
    came, at_ms = [], 0
    for took_ms in [5, 6, 5, 30, 5, 120, 6, 5, 9] * 5:
        at_ms += took_ms
        came.append(at_ms)
        reader.step(at_ms, {1: "a", 2: "b"})
    assert [at for at, _ in reader.at(1)] == [at for at, _ in reader.at(2)] == came


def test_pieces_have_a_least_distance(loop: Loop):
    reader = Reader(loop, {1})
    for at_ms in range(0, 200, 10):
        reader.step(at_ms, {1: "abcdefghijkl"})
    reader.step(200, {1: "!"}, finish="stop")
    assert reader.text == "abcdefghijkl" * 20 + "!"
    later = [at_ms for at_ms, _ in reader.at() if at_ms >= 50]
    assert min(gaps(later[:-2])) >= 1e3 * LEAST_GAP_S - 1


def test_what_is_held_bridges_long_steps(loop: Loop):
    """Steps with drafts take 40 ms and bring 4 tokens, others take 10 and bring one: no gap is 40 ms."""
    reader = Reader(loop, {1})
    at_ms, sent = 0, ""
    for _ in range(12):
        for took_ms, texts in [(40, "wxyz"), (10, "a"), (10, "b")]:
            at_ms += took_ms
            sent += texts
            reader.step(at_ms, {1: texts})
    reader.step(at_ms + 10, {1: "!"}, finish="stop")
    assert reader.text == sent + "!"
    times = [at_ms for at_ms, _ in reader.at() if at_ms >= 100]
    assert max(gaps(times)) <= 15
    assert reader.at()[-1][0] == at_ms + 10  # the end waits for nothing


def test_little_more_is_held_than_bridges_the_longest_step(loop: Loop):
    """However fast tokens come, none waits longer than readers notice."""
    reader = Reader(loop, {1})
    came: list[int] = []
    for at_ms in range(0, 3000, 60):
        came += [at_ms] * 6
        reader.step(at_ms, {1: "abcdef"})
    sent = [at_ms for at_ms, text in reader.at() for _ in text]
    assert max(b - a for a, b in zip(came, sent, strict=False)) <= 1e3 * LONGEST_S


def test_a_pause_for_a_prompt_changes_nothing_of_the_rate(loop: Loop):
    reader = Reader(loop, {1})
    for at_ms in range(0, 500, 50):
        reader.step(at_ms, {1: "abcde"})
    reader.step(1900, {1: "fghij"})
    loop.until(1.9 + LONGEST_S)
    assert reader.text == "abcde" * 10 + "fghij"


def test_many_streams_get_larger_pieces(loop: Loop):
    live = set(range(8))
    reader = Reader(loop, live)
    for at_ms in range(0, 1200, 100):
        reader.step(at_ms, dict.fromkeys(live, "abcdefghijkl"))
    loop.until(2)
    assert sorted(reader.text) == sorted("abcdefghijkl" * 8 * 12)
    for number in live:
        times = [at_ms for at_ms, _ in reader.at(number) if 300 <= at_ms < 1100]
        assert min(gaps(times)) >= 15 and max(gaps(times)) <= 34


@pytest.mark.parametrize("last", [{"finish": "length"}, {"calls": [CallDelta(0, "{}", "f")]}])
def test_what_is_not_text_brings_all_that_is_left(loop: Loop, last: dict[str, object]):
    reader = Reader(loop, {1})
    reader.step(20, {1: "a"})
    reader.step(100, {1: "bcde"})
    reader.step(110, {1: "f"}, **last)
    assert reader.at() == [(20, "a"), (100, "b"), (110, "cde"), (110, "f")]
    loop.until(1)
    assert reader.text == "abcdef"


def test_requests_that_nobody_reads_live_are_not_held(loop: Loop):
    reader = Reader(loop, {1})
    reader.step(20, {1: "x", 2: "y"})
    reader.step(100, {1: "ab", 2: "cd"})
    assert reader.got[2:] == [(100, 2, "cd"), (100, 1, "a")]


def test_who_leaves_is_passed_nothing_more_and_a_dead_engine_holds_nothing(loop: Loop):
    reader = Reader(loop, {1, 2})
    reader.step(0, {1: "a", 2: "d"})
    reader.step(60, {1: "abc", 2: "def"})
    reader.pacer.drop(1)
    reader.pacer.flush_all()
    loop.until(1.0)
    assert reader.at(1) == [(0, "a"), (60, "a")]
    assert reader.at(2) == [(0, "d"), (60, "d"), (60, "ef")]


def test_what_comes_for_nobody_leaves_nothing_behind(loop: Loop):
    reader = Reader(loop, {1})
    for number in range(2, 50):
        reader.step(number, {1: "a", number: "xy"})
    reader.step(60, {1: "b"}, finish="stop")
    assert not reader.pacer._streams


def test_answers_of_one_request_wait_apart(loop: Loop):
    reader = Reader(loop, {1})
    chunks = [
        (1, TokenChunk(index, text)) for index, text in [(0, "a"), (0, "b"), (1, "x"), (1, "y")]
    ]
    reader.pacer.pass_on(chunks, 0.0, lambda n: True)
    end = [(1, TokenChunk(0, "c", finish="stop"))]
    reader.pacer.pass_on(end, 0.0, lambda n: True)
    assert [text for _, _, text in reader.got] == ["a", "x", "b", "c"]
    loop.until(0.1)
    assert reader.got[-1][2] == "y"


STEPS = st.lists(
    st.tuples(
        st.integers(0, 300),  # milliseconds
        st.lists(  # answer, tokens, what the last of them is
            st.tuples(
                st.integers(0, 3),
                st.integers(1, 6),
                st.sampled_from(["text", "text", "call", "end"]),
            ),
            max_size=4,
        ),
    ),
    max_size=30,
)


@settings(max_examples=n_examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(0, 40), st.sets(st.integers(0, 1)))
def test_every_answer_comes_whole_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[int, list[tuple[int, int, str]]]],
    cancel_at: int,
    live: set[int],
):
    """Two requests with two answers each. The reader of one cancels it while it is given a piece."""
    loop = Loop()
    monkeypatch.setattr(stream_pacer, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    got: list[list[str]] = [[], [], [], []]
    sent = ["", "", "", ""]
    gone: set[int] = set()
    ended: set[int] = set()

    def take(request_id: int, chunk: TokenChunk) -> None:
        if request_id not in gone:
            got[2 * request_id + chunk.index].append(chunk.text)
        if sum(map(len, got)) == cancel_at:
            gone.add(request_id)
            pacer.drop(request_id)

    pacer = StreamPacer(take)
    number = itertools.count()
    for ms, answers in steps:
        loop.until(loop.now_s + ms / 1e3)
        chunks = []
        for answer, n_tokens, last in answers:
            if answer in ended:
                continue
            texts = [chr(0x4E00 + next(number)) for _ in range(n_tokens)]
            sent[answer] += "".join(texts)
            request_id, index = divmod(answer, 2)
            chunks += [(request_id, TokenChunk(index, text)) for text in texts]
            if last == "call":
                chunks[-1] = (request_id, TokenChunk(index, texts[-1], calls=[CallDelta(0, "{}")]))
            elif last == "end":
                chunks[-1] = (request_id, TokenChunk(index, texts[-1], finish="stop"))
                ended.add(answer)
        pacer.pass_on(chunks, loop.now_s, lambda n: n in live - gone)
        for answer in ended:
            if answer // 2 not in gone:
                assert "".join(got[answer]) == sent[answer]
    loop.until(loop.now_s + 5)  # however much is held, it comes
    for answer in range(4):
        text = "".join(got[answer])
        assert text == sent[answer] if answer // 2 not in gone else sent[answer].startswith(text)
    assert {2 * number + index for number, index in pacer._streams}.isdisjoint(ended)
    assert not gone & {number for number, _ in pacer._streams}
