"""The engine's loop on a model without weights, whose text any mistake in the cache would change."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.batching.engine import Engine
from edgeagent.engine.batching.scheduler import MIN_WORTH_WAITING
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.speculation import Speculation
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.decoder import Decoder
from edgeagent.engine.output.logprobs import Logprobs
from edgeagent.engine.output.plain_decoder import PlainDecoder
from edgeagent.engine.output.prompt_scores import PromptScores
from edgeagent.engine.structured.structured_decoder import StructuredDecoder
from edgeagent.errors import DeadlineExceeded, QueueFull
from edgeagent.types.answer import TokenChunk, TokenLogprob
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.priority import BATCH
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from tests.conftest import n_examples
from tests.engine.fakes import N_VOCAB, FakeRunner, next_token, reference, salt


class Harness:
    """An engine, a clock that stands still unless each look at it takes `tick_s`, and what came out."""

    def __init__(
        self,
        n_cells: int = 256,
        *,
        can_trim: bool = True,
        drafting: Speculation | None = None,
        **config: Any,
    ) -> None:
        options = {"n_seq": 4, "n_prefixes": 6, "n_batch": 32, "n_ctx": n_cells}
        self.config = EngineConfig(model_id="fake", path="", **(options | config))
        self.runner = self.make_runner(n_cells, can_trim=can_trim)
        self.runner.max_outputs = min(
            self.config.n_batch, self.config.n_seq + 2
        )  # as llama.py has it
        self.now = self.tick_s = 0.0
        self.texts: dict[tuple[int, int], str] = defaultdict(str)
        self.n_chunks: dict[tuple[int, int], int] = defaultdict(int)
        self.ends: dict[tuple[int, int], TokenChunk] = {}
        self.refused: dict[int, Exception] = {}
        self.forgotten: list[int] = []
        self.scored: dict[tuple[int, int], list[TokenLogprob]] = {}
        self.logprobs: dict[tuple[int, int], list[TokenLogprob]] = defaultdict(list)
        self.engine = Engine(
            self.config,
            self.runner,
            n_cells,
            emit=self._emit,
            refuse=lambda request_id, error: self.refused.__setitem__(request_id, error),
            forget=self.forgotten.append,
            clock=self._clock,
            speculation=drafting,
        )

    def make_runner(self, n_cells: int, *, can_trim: bool) -> FakeRunner:
        return FakeRunner(n_cells, can_trim=can_trim)

    def _clock(self) -> float:
        self.now += self.tick_s
        return self.now

    def _emit(self, chunks: list[tuple[int, TokenChunk]]) -> None:
        for request_id, chunk in chunks:
            key = (request_id, chunk.index)
            assert key not in self.ends, "nothing comes after the end"
            self.texts[key] += chunk.text
            self.n_chunks[key] += 1
            self.logprobs[key] += chunk.logprobs
            if chunk.scored:
                assert key not in self.scored, "they come once"
                self.scored[key] = chunk.scored
            if chunk.finish is not None:
                self.ends[key] = chunk

    def submit(
        self,
        request_id: int,
        prompt: list[int],
        max_new: int = 8,
        *,
        n: int = 1,
        scope: str = "",
        is_scored: bool = False,
        **spec: Any,
    ) -> Request:
        spec = {"sampling": Sampling(temperature=0)} | spec
        request = Request(
            request_id,
            GenerateSpec(prompts=[Prompt(tokens=prompt)], n=n, scope=scope, **spec),
            self.now,
        )
        scores = PromptScores(array("i", prompt), 1) if is_scored else None

        def decoder(request: Request, index: int) -> Decoder:
            spec, tokens = request.spec, array("i", prompt)
            sampler = Sampler(spec.sampling, N_VOCAB, [], index)
            if scores is None:
                return PlainDecoder(
                    tokens, len(prompt), max_new, sampler, spec.stop, ignore_eos=spec.ignore_eos
                )
            return StructuredDecoder(
                tokens, len(prompt), max_new, sampler, spec.stop, index=index,
                logprobs=Logprobs(0), scores=scores,
            )  # fmt: skip

        self.engine.submit(
            [Sequence(request, index, decoder(request, index), scores) for index in range(n)]
        )
        return request

    def finish(self, bound: int = 2000) -> None:
        for _ in range(bound):
            self.engine.step()
            if self.engine.is_idle:
                return
        raise AssertionError(f"not idle after {bound} steps")

    def tokens(self, request_id: int, index: int = 0) -> list[int]:
        return [int(word) for word in self.texts[request_id, index].split()]


def test_one_request_is_answered_as_the_model_alone_would():
    harness = Harness()
    harness.submit(1, [5, 6, 7], max_new=20)
    harness.finish()
    assert harness.tokens(1) == reference([5, 6, 7], 20)
    end = harness.ends[1, 0]
    assert end.finish == ("length" if len(reference([5, 6, 7], 20)) == 20 else "stop")
    assert (end.usage.n_prompt, end.usage.n_cached) == (3, 0)
    assert harness.forgotten == [1]


prompts = st.lists(
    st.tuples(
        st.sampled_from([[], [1] * 40, [1] * 40 + [2] * 40, [3] * 10]),
        st.lists(st.integers(1, N_VOCAB - 1), min_size=1, max_size=30),
        st.integers(1, 30),
        st.integers(1, 3),
        st.booleans(),
        st.sampled_from([None, None, "formal", "short"]),
    ).map(lambda t: (t[0] + t[1], *t[2:])),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=n_examples(150))
@given(
    work=prompts,
    aborts=st.sets(st.integers(0, 30), max_size=4),
    can_trim=st.booleans(),
    n_cells=st.sampled_from([140, 200, 600]),
    n_prefixes=st.sampled_from([0, 1, 6]),
)
def test_sharing_preemption_and_aborts_never_change_a_text(
    work, aborts, can_trim, n_cells, n_prefixes
):
    harness = Harness(n_cells, can_trim=can_trim, n_prefixes=n_prefixes)

    def maybe_abort(rows: list[Any]) -> None:
        if len(harness.runner.steps) in aborts:
            harness.runner.abort()

    harness.runner.before_step = maybe_abort
    for request_id, (prompt, max_new, n, is_scored, adapter) in enumerate(work):
        harness.submit(request_id, prompt, max_new, n=n, is_scored=is_scored, adapter=adapter)
        if request_id % 3 == 2:
            harness.engine.step()
    harness.finish()
    for request_id, (prompt, max_new, n, is_scored, adapter) in enumerate(work):
        for index in range(n):
            assert harness.tokens(request_id, index) == reference(prompt, max_new, adapter)
            if is_scored:
                assert_scored(harness.scored[request_id, index], prompt, harness.runner, adapter)
    assert len(harness.scored) == sum(n for _, _, n, is_scored, _ in work if is_scored)
    assert sorted(harness.forgotten) == list(range(len(work)))


def assert_scored(
    told: list[TokenLogprob], prompt: list[int], runner: FakeRunner, adapter: str | None = None
) -> None:
    """Each token after those before it: the model is sure of one, and of that it is wrong or right."""
    assert [one.piece for one in told] == [runner.piece(token) for token in prompt]
    assert told[0].logprob is None and not told[0].top
    for number in range(1, len(prompt)):
        sure = next_token([token + salt(adapter) for token in prompt[:number]])
        assert told[number].logprob == pytest.approx(0 if prompt[number] == sure else -20, abs=1e-4)
        assert [top.piece for top in told[number].top] == [runner.piece(sure)]


def test_a_prompt_can_be_scored_without_an_answer():
    harness = Harness(n_cells=1024, n_batch=256)
    prompt = [1 + i % 9 for i in range(150)]
    harness.submit(1, prompt, max_new=4)
    harness.finish()
    harness.submit(2, prompt, max_new=0, is_scored=True)
    harness.finish()
    assert_scored(harness.scored[2, 0], prompt, harness.runner)
    assert harness.tokens(2) == []
    end = harness.ends[2, 0]
    assert (end.finish, end.usage.n_generated, end.usage.n_cached) == ("length", 0, 0)
    # As many tokens in each step as it may have outputs.
    assert len(harness.runner.steps) <= 4 + 1 + -(-len(prompt) // harness.runner.max_outputs)


def test_several_answers_to_a_prompt_score_it_once_and_share_its_cells():
    harness = Harness(n_cells=1024, n_batch=64)
    prompt = [1 + i % 9 for i in range(100)]
    harness.submit(1, prompt, max_new=5, n=4, is_scored=True)
    harness.submit(2, [*prompt, 5], max_new=5)
    harness.finish()
    for index in range(4):
        assert harness.tokens(1, index) == reference(prompt, 5)
        assert_scored(harness.scored[1, index], prompt, harness.runner)
    n_run = sum(len(row.tokens) for rows in harness.runner.steps for row in rows)
    assert n_run <= 2 * len(prompt) + 30  # whoever is not scored does not wait for it


@pytest.mark.parametrize(("n_scored", "n_others"), [(12, 0), (1, 11), (6, 6)])
def test_where_a_batch_is_smaller_than_the_number_of_answers_all_of_them_come(n_scored, n_others):
    harness = Harness(n_cells=2048, n_seq=12, n_batch=8)
    prompts = {
        i: [1 + i] + [2 + (i + j) % 7 for j in range(20)] for i in range(n_scored + n_others)
    }
    for i, prompt in prompts.items():
        harness.submit(i, prompt, max_new=3, is_scored=i < n_scored)
    harness.finish()
    for i, prompt in prompts.items():
        assert harness.tokens(i) == reference(prompt, 3)
    for i in range(n_scored):
        assert_scored(harness.scored[i, 0], prompts[i], harness.runner)


def test_requests_that_arrive_together_prefill_their_common_beginning_once():
    harness = Harness(n_cells=1024, n_batch=64)
    shared = [1] * 200
    for request_id in range(4):
        harness.submit(request_id, [*shared, 10 + request_id], max_new=4)
    harness.finish()
    n_run = sum(len(row.tokens) for rows in harness.runner.steps for row in rows)
    n_generated = sum(len(harness.tokens(i)) for i in range(4))
    slack = MIN_WORTH_WAITING  # the last few tokens are not worth a wait
    assert n_run <= len(shared) + n_generated + 4 + 3 * slack
    first, *others = sorted(end.usage.n_cached for end in harness.ends.values())
    assert first == 0
    assert all(200 - slack < n <= 200 for n in others)


def test_answers_to_one_request_share_its_whole_prompt_but_the_last_token():
    harness = Harness(n_cells=512)
    harness.submit(1, [1] * 100, max_new=3, n=3)
    harness.finish()
    first, *others = [harness.ends[1, i].usage.n_cached for i in range(3)]
    assert first == 0
    assert all(99 - MIN_WORTH_WAITING < n <= 99 for n in others)


def test_an_ended_conversation_is_continued_from_its_cells():
    harness = Harness()
    harness.submit(1, [4] * 40, max_new=5)
    harness.finish()
    history = [4] * 40 + harness.tokens(1)
    harness.submit(2, [*history, 9, 9], max_new=5)
    harness.finish()
    assert harness.ends[2, 0].usage.n_cached >= len(history) - 1
    assert harness.tokens(2) == reference([*history, 9, 9], 5)


def test_another_scope_shares_nothing_even_while_running():
    harness = Harness(n_cells=512)
    harness.submit(1, [1] * 100, scope="alice")
    harness.engine.step()
    harness.submit(2, [1] * 100, scope="bob")
    harness.finish()
    assert harness.ends[2, 0].usage.n_cached == 0


def test_decoding_goes_on_while_a_long_prompt_is_prefilled():
    harness = Harness(n_cells=1024, n_batch=64)
    harness.submit(1, [7] * 4, max_new=60, ignore_eos=True)
    harness.engine.step()
    harness.submit(2, [8] * 400, max_new=2)
    before = len(harness.runner.steps)
    while (2, 0) not in harness.ends:
        harness.engine.step()
        rows = harness.runner.steps[-1]
        if len(harness.tokens(1)) < 60:
            assert any(len(row.tokens) == 1 for row in rows), "the running answer got its token"
    assert len(harness.runner.steps) - before > 3


@pytest.mark.parametrize("n_steps", [0, 1, 2, 5])
def test_a_cancelled_request_ends_within_one_step_wherever_it_is(n_steps):
    harness = Harness(n_batch=32, n_cells=600)
    request = harness.submit(1, [3] * 100, max_new=50, ignore_eos=True)
    for _ in range(n_steps):
        harness.engine.step()
    request.is_cancelled = True
    harness.engine.step()
    assert harness.ends[1, 0].finish == "cancelled"
    assert harness.engine.is_idle


def test_what_a_cancelled_prefill_left_is_a_prefix_for_the_next():
    harness = Harness(n_batch=32, n_cells=600)
    request = harness.submit(1, [3] * 100)
    harness.engine.step()
    request.is_cancelled = True
    harness.engine.step()
    harness.submit(2, [3] * 100)
    harness.finish()
    assert harness.ends[2, 0].usage.n_cached > 0


def test_the_queue_is_bounded_and_says_when_to_come_again():
    harness = Harness(queue_limit=2, n_seq=1)
    for request_id in range(5):
        harness.submit(request_id, [1, 2, 3])
    assert sorted(harness.refused) == [2, 3, 4]
    assert all(isinstance(e, QueueFull) and e.retry_after_s >= 1 for e in harness.refused.values())
    harness.finish()
    assert sorted(request_id for request_id, _ in harness.ends) == [0, 1]


def test_a_request_for_many_answers_does_not_keep_out_one_for_few():
    harness = Harness(n_seq=2, n_cells=600)
    harness.submit(1, [5, 6], max_new=20, n=12, ignore_eos=True)
    harness.engine.step()
    harness.submit(2, [7, 8], max_new=3, ignore_eos=True)
    while (2, 0) not in harness.ends:
        harness.engine.step()
    assert sum(request_id == 1 for request_id, _ in harness.ends) <= 3
    harness.finish()
    assert len(harness.ends) == 13


def test_waiting_too_long_ends_in_an_error_and_running_does_not():
    harness = Harness(n_seq=1, queue_timeout_s=10)
    harness.submit(1, [1, 2], max_new=40, ignore_eos=True)
    harness.submit(2, [3, 4])
    harness.engine.step()
    harness.now = 11
    harness.finish()
    assert harness.ends[1, 0].finish == "length"
    assert harness.ends[2, 0].finish == "error"
    assert harness.ends[2, 0].error[0] == "queue_timeout"


def test_a_stop_string_across_tokens_ends_the_text_before_it():
    expected = reference([5, 6, 7], 20)
    stop = f"{expected[1]} {expected[2]}"
    harness = Harness()
    harness.submit(1, [5, 6, 7], max_new=20, stop=[stop])
    harness.finish()
    assert harness.texts[1, 0] == f"{expected[0]} "
    assert harness.ends[1, 0].finish == "stop"


def test_cells_run_out_and_the_newest_is_put_off_not_lost():
    harness = Harness(n_cells=120, n_seq=4, n_prefixes=0)
    for request_id in range(3):
        harness.submit(request_id, [request_id + 1] * 4, max_new=80, ignore_eos=True)
    harness.finish()
    assert harness.engine.health(0).n_preempted > 0
    for request_id in range(3):
        assert len(harness.tokens(request_id)) == 80


def test_a_failed_step_ends_its_requests_with_an_error_and_the_next_is_served():
    from edgeagent.errors import EngineFailed

    harness = Harness()

    def fail(rows: list[Any]) -> None:
        raise EngineFailed("the step failed")

    harness.runner.before_step = fail
    harness.submit(1, [1, 2])
    harness.finish()
    assert harness.ends[1, 0].error == ("engine_failed", "the step failed")
    harness.runner.before_step = lambda rows: None
    harness.runner.held.clear()
    harness.submit(2, [1, 2])
    harness.finish()
    assert harness.tokens(2) == reference([1, 2], 8)


def test_a_flood_of_one_key_leaves_the_next_slot_to_another():
    harness = Harness(n_seq=2)
    for request_id in range(1, 9):
        harness.submit(request_id, [request_id, 2], max_new=4, ignore_eos=True, scope="a")
    harness.engine.step()
    harness.submit(99, [9, 9], max_new=2, ignore_eos=True, scope="b")
    harness.finish()
    assert [key for key, _ in harness.ends].index(99) <= 3


def test_long_answers_of_one_key_make_way_for_another_and_go_on():
    harness = Harness(n_seq=3, queue_timeout_s=12)
    for request_id in (1, 2, 3):
        harness.submit(request_id, [request_id, 2], max_new=40, ignore_eos=True, scope="a")
    harness.engine.step()
    harness.submit(9, [9, 9], max_new=2, ignore_eos=True, scope="b")
    for _ in range(6):
        harness.now += 0.5
        harness.engine.step()
    assert list(harness.ends) == [(9, 0)]
    harness.finish()
    for request_id in (1, 2, 3):
        assert harness.tokens(request_id) == reference([request_id, 2], 40)
    assert harness.engine.health(0).n_preempted == 1


def test_a_flood_with_priority_is_no_reason_to_wait_longer_than_patience():
    harness = Harness(n_seq=1, queue_timeout_s=40)
    harness.submit(1, [1, 2], max_new=4, ignore_eos=True, scope="a", priority=100)
    harness.submit(2, [3, 2], max_new=4, ignore_eos=True, scope="b")
    for request_id in range(3, 30):
        harness.now += 1
        harness.submit(
            request_id, [request_id, 2], max_new=1, ignore_eos=True, scope="a", priority=100
        )
        for _ in range(3):
            harness.engine.step()
        if (2, 0) in harness.ends:
            break
    assert harness.now <= 12


def test_a_full_queue_turns_away_the_newest_of_the_key_that_filled_it():
    harness = Harness(n_seq=1, queue_limit=5)
    for request_id in range(1, 6):
        harness.submit(request_id, [request_id, 2], ignore_eos=True, scope="a", n=2)
        harness.engine.step()
        harness.now += 1
    harness.submit(9, [9, 2], ignore_eos=True, scope="b")
    assert list(harness.refused) == [5] and isinstance(harness.refused[5], QueueFull)
    harness.submit(10, [9, 2], ignore_eos=True, scope="a")
    assert list(harness.refused) == [5, 10], "one's own requests are not turned away for it"
    harness.finish()
    assert {key for key, _ in harness.ends} == {1, 2, 3, 4, 9}
    assert sorted(harness.forgotten) == [1, 2, 3, 4, 5, 9, 10]


def test_of_waiting_requests_the_one_with_the_higher_priority_is_served_first():
    harness = Harness(n_seq=1)
    harness.submit(1, [1, 2, 3], max_new=4, ignore_eos=True)
    harness.engine.step()
    for request_id, priority in ((2, -5), (3, 0), (4, 7), (5, 7)):
        harness.submit(request_id, [9, request_id], max_new=2, ignore_eos=True, priority=priority)
    harness.finish()
    assert list(harness.ends) == [(1, 0), (4, 0), (5, 0), (3, 0), (2, 0)]


def test_a_request_takes_the_slot_of_a_batch_at_once_and_the_batch_goes_on_later():
    harness = Harness(n_seq=2)
    for request_id in (1, 2):
        harness.submit(request_id, [request_id, 2], max_new=30, ignore_eos=True, priority=BATCH)
    for _ in range(5):
        harness.engine.step()
    harness.submit(3, [7, 8], max_new=3, ignore_eos=True)
    harness.engine.step()
    assert harness.engine.health(0).n_preempted == 1
    while (3, 0) not in harness.ends:
        harness.engine.step()
    assert not {1, 2} & {request_id for request_id, _ in harness.ends}
    harness.finish()
    assert all(harness.tokens(i) == reference([i, 2], 30) for i in (1, 2))
    assert harness.ends[3, 0].usage.queue_ms == 0


def test_a_request_takes_the_cells_of_a_batch_when_there_are_slots_but_no_cells():
    harness = Harness(n_seq=3, n_cells=200)
    harness.submit(1, [5] * 120, max_new=40, ignore_eos=True, priority=BATCH)
    for _ in range(8):
        harness.engine.step()
    harness.submit(2, [7] * 90, max_new=3, ignore_eos=True)
    while (2, 0) not in harness.ends:
        harness.engine.step()
    assert (1, 0) not in harness.ends
    harness.finish()
    assert harness.ends[1, 0].finish == "length"


def test_within_a_class_nobody_loses_a_slot():
    harness = Harness(n_seq=1)
    harness.submit(1, [1, 2], max_new=10, ignore_eos=True, priority=-9)
    harness.engine.step()
    harness.submit(2, [3, 4], max_new=2, ignore_eos=True, priority=9)
    harness.finish()
    assert list(harness.ends) == [(1, 0), (2, 0)]
    assert harness.engine.health(0).n_preempted == 0


def test_a_batch_that_has_waited_long_runs_before_requests_that_go_on_arriving():
    harness = Harness(n_seq=1, queue_timeout_s=400)
    harness.submit(1, [1, 2], max_new=6, ignore_eos=True, priority=BATCH)
    harness.submit(2, [3, 4], max_new=6, ignore_eos=True)
    next_id = 3
    while (1, 0) not in harness.ends:
        harness.now += 1
        harness.submit(next_id, [3, next_id % 9 + 1], max_new=6, ignore_eos=True)
        next_id += 1
        harness.engine.step()
        assert harness.now < 200
    assert harness.ends[1, 0].finish == "length"


def test_a_batch_pauses_while_a_prompt_is_computed_but_not_for_ever():
    harness = Harness(n_seq=2, n_cells=600, n_batch=4, stream_interval_ms=0)
    harness.submit(1, [1, 2], max_new=40, ignore_eos=True, priority=BATCH)
    harness.engine.step()
    harness.submit(2, [7] * 100, max_new=2, ignore_eos=True)
    n_told = []
    for step in range(20):
        harness.engine.step()
        n_told.append(len(harness.tokens(1)))
        if step == 10:
            harness.now += 3
    assert n_told[10] == n_told[1], "paused"
    assert n_told[-1] == n_told[10] + 1, "one token after 2 s, the others later"
    harness.finish()
    assert harness.tokens(1) == reference([1, 2], 40)


def test_a_request_whose_deadline_passes_in_the_queue_takes_no_step():
    harness = Harness(n_seq=1)
    harness.submit(1, [1, 2], max_new=40, ignore_eos=True)
    harness.submit(2, [3, 4], timeout_s=5)
    harness.engine.step()
    harness.now = 6
    harness.finish()
    assert harness.ends[2, 0].error[0] == "deadline_exceeded"
    assert harness.ends[2, 0].usage.n_generated == 0
    assert harness.ends[1, 0].finish == "length"


def test_a_request_that_would_wait_beyond_its_deadline_is_refused_at_once():
    harness = Harness(n_seq=1, n_cells=600)
    harness.submit(1, [1, 2], max_new=200, ignore_eos=True)
    for _ in range(20):  # ten tokens a second
        harness.engine.step()
        harness.now += 0.1
    for request_id in range(2, 6):
        harness.submit(request_id, [3] * 50, max_new=50, ignore_eos=True)
    harness.submit(6, [3, 4], timeout_s=5)
    assert isinstance(harness.refused[6], DeadlineExceeded)
    harness.submit(7, [3, 4], timeout_s=600)
    assert list(harness.refused) == [6]


def test_a_request_that_comes_back_finds_the_place_that_was_kept_for_it():
    harness = Harness(n_seq=1, queue_limit=4)
    for request_id in range(8):
        harness.submit(request_id, [request_id + 1, 2], max_new=8, ignore_eos=True)
    assert sorted(harness.refused) == [4, 5, 6, 7]
    told: Any = harness.refused[5]
    harness.now += told.retry_after_s  # two may come back at any moment
    while len(harness.engine._waiting) > 2:
        harness.engine.step()
    harness.submit(20, [9, 2], max_new=8, ignore_eos=True)
    assert 20 in harness.refused, "two of the places are kept"
    for request_id in (4, 5):
        again = {"is_retry": True, "max_new": 8, "ignore_eos": True}
        harness.submit(request_id + 100, [request_id, 3], **again)
        assert request_id + 100 not in harness.refused
    harness.finish()
    assert {104, 105} <= {request_id for request_id, _ in harness.ends}
