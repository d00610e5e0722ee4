"""Answers that must have a form, on a model without weights: masks, forced tokens, how they end."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.time_slices import STEP_S
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.structured.json_completion import JsonCompletion
from edgeagent.engine.structured.structured_decoder import StructuredDecoder
from edgeagent.errors import SchemaUnsatisfiable, SchemaViolated
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from tests.conftest import n_examples
from tests.engine.batching.test_engine import Harness
from tests.engine.fakes import END, N_VOCAB, next_token


class Grammar:
    """A made-up form: tokens of one parity, runs of forced ones after each, an end after a while."""

    def __init__(self, n_opening: int = 3, n_most: int = 40, dead_after: int | None = None) -> None:
        self.n_tokens = n_opening
        self.opening = [50 + i for i in range(n_opening)]
        self._n_most = n_most
        self._dead_after = dead_after
        self.checked: list[str] = []
        self.notes: list[Any] = []
        self.is_violated = False

    @property
    def is_complete(self) -> bool:
        return self.n_tokens >= self._n_most

    def allowed_ids(self) -> list[int]:
        ids = [t for t in range(1, N_VOCAB) if t % 2 == self.n_tokens % 2]
        return [END, *ids] if self.n_tokens > 9 else ids

    def allowed(self) -> bytes:
        if self._dead_after is not None and self.n_tokens >= self._dead_after:
            raise SchemaUnsatisfiable("nothing can follow")
        bits = bytearray((N_VOCAB + 7) // 8)
        for token in self.allowed_ids():
            bits[token >> 3] |= 1 << (token & 7)
        return bytes(bits)

    def accept(self, token: int) -> list[int]:
        assert token in self.allowed_ids(), "only what is allowed is drawn"
        forced = [(7 * token + i) % (N_VOCAB - 1) + 1 for i in range(token % 5)]
        forced = forced[: max(0, self._n_most - self.n_tokens - 1)]
        self.n_tokens += 1 + len(forced)
        return forced

    def check(self, text: str) -> None:
        self.checked.append(text)
        if self.is_violated:
            raise SchemaViolated("it is not what it should be")


def reference(prompt: list[int], max_new: int, grammar: Grammar) -> tuple[list[int], str]:
    """What the fake model says within the form, token by token."""
    tokens = [*prompt, *grammar.opening]
    while not grammar.is_complete and len(tokens) - len(prompt) < max_new:
        allowed = grammar.allowed_ids()
        best = next_token(tokens)
        token = best if best in allowed else allowed[0]
        if token == END:
            return tokens[len(prompt) :], "stop"
        tokens += [token, *grammar.accept(token)]
    said = tokens[len(prompt) :]
    is_whole = grammar.is_complete and len(said) <= max_new
    return said[:max_new], "stop" if is_whole else "length"


class Formed(Harness):
    """The engine's harness, with answers that have a form."""

    def ask(
        self, request_id: int, prompt: list[int], max_new: int, grammar: Grammar,
        ending: JsonCompletion | None = None, **spec: Any,
    ) -> Request:  # fmt: skip
        options = {"sampling": Sampling(temperature=0)} | spec
        asked = GenerateSpec(prompts=[Prompt(tokens=prompt)], **options)
        request = Request(request_id, asked, self.now)
        decoder = StructuredDecoder(
            array("i", prompt), len(prompt), max_new, Sampler(asked.sampling, N_VOCAB, [], 0), asked.stop,
            constraint=grammar, takeover="at once", ending=ending,  # type: ignore[arg-type]
        )  # fmt: skip
        self.engine.submit([Sequence(request, 0, decoder)])
        return request


def test_forced_tokens_are_computed_together_and_count_as_generated():
    harness = Formed()
    grammar = Grammar()
    harness.ask(1, [5, 6, 7], 100, grammar)
    harness.finish()
    said, finish = reference([5, 6, 7], 100, Grammar())
    assert harness.tokens(1) == said
    end = harness.ends[1, 0]
    assert (end.finish, finish) == ("stop", "stop")
    assert (end.usage.n_prompt, end.usage.n_generated) == (3, len(said))
    assert len(harness.runner.steps) < 0.7 * len(said), "steps are fewer than tokens"
    assert len(harness.runner.steps[0][0].tokens) == 6, "the opening is prefilled with the prompt"
    assert grammar.checked == [harness.texts[1, 0]], "what is sent is what was checked"


works = st.lists(
    st.tuples(
        st.sampled_from([[], [1] * 40, [3] * 10]),
        st.lists(st.integers(1, N_VOCAB - 1), min_size=1, max_size=20),
        st.integers(1, 40),
        st.booleans(),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=10,
)


@settings(deadline=None, max_examples=n_examples(150))
@given(
    work=works,
    aborts=st.sets(st.integers(0, 30), max_size=4),
    can_trim=st.booleans(),
    n_cells=st.sampled_from([140, 200, 600]),
)
def test_sharing_preemption_and_aborts_never_change_a_constrained_text(
    work, aborts, can_trim, n_cells
):
    harness = Formed(n_cells, can_trim=can_trim)

    def maybe_abort(rows: list[Any]) -> None:
        if len(harness.runner.steps) in aborts:
            harness.runner.abort()

    harness.runner.before_step = maybe_abort
    for request_id, (shared, own, max_new, is_formed, n_opening) in enumerate(work):
        if is_formed:
            harness.ask(request_id, shared + own, max_new, Grammar(n_opening, 25))
        else:
            harness.submit(request_id, shared + own, max_new)
        if request_id % 3 == 2:
            harness.engine.step()
    harness.finish()
    for request_id, (shared, own, max_new, is_formed, n_opening) in enumerate(work):
        if is_formed:
            said, finish = reference(shared + own, max_new, Grammar(n_opening, 25))
            end = harness.ends[request_id, 0]
            assert harness.tokens(request_id) == said
            assert (end.finish, end.usage.n_generated) == (finish, len(said))
    assert sorted(harness.forgotten) == list(range(len(work)))


@pytest.mark.parametrize("max_new", range(1, 12))
def test_no_answer_is_longer_than_asked_for_whatever_is_forced(max_new):
    harness = Formed()
    harness.ask(1, [9, 9], max_new, Grammar(4))
    harness.finish()
    end = harness.ends[1, 0]
    assert (end.finish, end.usage.n_generated) == ("length", max_new)
    assert harness.tokens(1) == reference([9, 9], max_new, Grammar(4))[0]


def test_an_answer_that_is_forced_whole_ends_without_a_draw():
    harness = Formed()
    harness.ask(1, [9, 9], 10, Grammar(5, 5))
    harness.finish()
    assert harness.ends[1, 0].finish == "stop"
    assert len(harness.tokens(1)) == 5
    assert len(harness.runner.steps) == 1


def test_where_no_token_can_follow_only_that_request_ends_with_an_error():
    harness = Formed()
    harness.ask(1, [9, 9], 30, Grammar(3, dead_after=8))
    harness.submit(2, [5, 6, 7], 20)
    harness.finish()
    assert harness.ends[1, 0].error == ("schema_unsatisfiable", "nothing can follow")
    assert harness.ends[2, 0].error is None


def test_an_answer_that_does_not_satisfy_its_schema_is_never_a_stop():
    harness = Formed()
    grammar = Grammar()
    grammar.is_violated = True
    harness.ask(1, [5, 6, 7], 100, grammar)
    harness.finish()
    end = harness.ends[1, 0]
    assert (end.finish, end.error[0]) == ("error", "schema_violated")


def test_a_stop_string_within_what_is_forced_ends_there_and_is_an_error_unless_the_text_is_whole():
    for is_whole in (True, False):
        harness = Formed()
        grammar = Grammar(6)  # says "50 51 52 53 54 55 "
        grammar.is_violated = not is_whole
        harness.ask(1, [5, 6, 7], 100, grammar, stop=["53"])
        harness.finish()
        end = harness.ends[1, 0]
        assert grammar.checked == ["50 51 52 "]
        if is_whole:
            assert (end.finish, harness.texts[1, 0]) == ("stop", "50 51 52 ")
        else:
            assert (end.finish, end.error[0]) == ("error", "invalid_parameter")


def test_forced_tokens_count_for_penalties():
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=2), N_VOCAB, [], 0)
    for _ in range(20):
        sampler.accept(7)
    import numpy as np

    from edgeagent.engine.llama.sampler_chain import Candidates

    logits = np.zeros(N_VOCAB, np.float32)
    logits[7] = 10
    assert sampler.pick(logits, Candidates(N_VOCAB), b"\xff" * 13) != 7


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("n_allowed", [1, 2, 40, 1024, 1025, 4000, 5000])
@pytest.mark.parametrize("options", [{}, {"typical_p": 0.5}, {"top_k": 0, "top_p": 1, "min_p": 0}])
def test_only_allowed_tokens_are_drawn_however_many_they_are(temperature, n_allowed, options):
    import numpy as np

    from edgeagent.engine.llama.sampler_chain import Candidates

    rng = np.random.default_rng(n_allowed)
    ids = rng.choice(5000, n_allowed, replace=False)
    bits = np.zeros(5000, np.uint8)
    bits[ids] = 1
    mask = np.packbits(bits, bitorder="little").tobytes()
    sampler = Sampler(Sampling(temperature=temperature, seed=1, **options), 5000, [], 0)
    candidates = Candidates(5000)
    for _ in range(50):
        logits = rng.normal(0, 5, 5000).astype(np.float32)
        token = sampler.pick(logits.copy(), candidates, mask)
        assert bits[token]
        if temperature == 0:
            assert token == max(ids, key=lambda i: logits[i])
    sampler.close()


class Slow(Grammar):
    """A form whose way out is looked for through many steps."""

    def __init__(self, n_pieces: int) -> None:
        super().__init__()
        self.n_pieces = n_pieces
        self.n_asked = 0

    def way_out(self, token: int | None, effort: Any = None) -> Any:
        self.n_asked += 1
        for _ in range(self.n_pieces):
            yield
        return [1, 2]


def ask_slow(harness: Formed, request_id: int, grammar: Slow) -> Request:
    """One whose room is looked at from the first token on, and which is closed at the last."""
    return harness.ask(request_id, [5, 6, 7], 12, grammar, ending=JsonCompletion(12, 0))


class Hurried(Formed):
    """Has time for one piece of a draw in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.tick_s = STEP_S


def test_while_an_end_is_looked_for_the_others_go_on_and_nothing_changes():
    quick, slow = Hurried(), Hurried()
    for harness, n_pieces in ((quick, 0), (slow, 30)):
        ask_slow(harness, 1, Slow(n_pieces))
        harness.submit(2, [8, 9], 60)
        harness.finish()
    assert slow.tokens(1) == quick.tokens(1)
    assert slow.tokens(2) == quick.tokens(2)
    assert slow.ends[1, 0].finish == quick.ends[1, 0].finish == "length"
    alone = [step for step in slow.runner.steps if [row.seq_id for row in step] == [1]]
    assert len(alone) >= 30, "the other had a token in each step of the search"


def test_an_answer_whose_end_is_looked_for_can_be_left():
    harness = Hurried()
    request = ask_slow(harness, 1, Slow(1_000_000))
    for _ in range(20):
        assert harness.engine.step(), "there is work"
    request.is_cancelled = True
    harness.finish()
    assert harness.ends[1, 0].finish == "cancelled"


def test_a_search_survives_that_its_answer_is_preempted():
    quick, harness = Hurried(), Hurried()
    for one, grammar in ((quick, Slow(0)), (harness, Slow(10))):
        ask_slow(one, 1, grammar)
        n_preempted = 0
        while (1, 0) not in one.ends:
            one.engine.step()
            running = one.engine._running
            if running and running[0].decoder.is_drawing and n_preempted < 3:
                one.engine._preempt(running[0])
                n_preempted += 1
    assert n_preempted == 3 and harness.tokens(1) == quick.tokens(1)


def test_the_tokens_of_a_draw_are_chunks_of_their_own():
    """They go to the reader one after another while the forced ones are computed."""
    harness = Formed(stream_interval_ms=0)
    harness.ask(1, [5, 6, 7], 100, Grammar())
    harness.finish()
    said, _ = reference([5, 6, 7], 100, Grammar())
    assert harness.n_chunks[1, 0] > 0.7 * len(said) > len(harness.runner.steps)
