"""Drafted tokens on a model without weights that copies: nothing but the number of steps depends on them."""

from __future__ import annotations

import zlib
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.batching.prompt_lookup import Draft, find_draft
from edgeagent.engine.batching.speculation import Speculation, agreement
from edgeagent.engine.batching.step_runner import Row
from edgeagent.engine.batching.verify_costs import FRESH_STEPS, N_FEW, VerifyCosts
from edgeagent.types.sampling import Sampling
from tests.conftest import n_examples
from tests.engine.batching.test_engine import Harness
from tests.engine.fakes import END, N_VOCAB, FakeRunner, next_token

SALT = 33


class FreeSteps(VerifyCosts):
    """More tokens cost nothing, so that as many as possible are drafted, on every machine."""

    is_known = True

    def seconds(self, n_tokens: int) -> float:
        return 1e-3

    def is_fresh(self, n_tokens: int) -> bool:
        return True


def copied(tokens: list[int]) -> int:
    """A model that mostly goes on as it did before, and now and then does not, or ends."""
    draft = find_draft(array("i", tokens), 1)
    chance = zlib.crc32(array("i", [SALT, *tokens]).tobytes())
    if draft is None or chance % 8 == 0:
        return next_token(tokens) % 8
    return draft.tokens[0]


class CopyingRunner(FakeRunner):
    """`is_sure` False: several tokens are likely after each text, so that a draw depends on chance."""

    is_sure = True

    def next_token(self, tokens: list[int]) -> int:
        return copied(tokens)

    def run(self, rows: list[Row], n_used: int = 0) -> np.ndarray[Any, Any]:
        logits = super().run(rows)
        if not self.is_sure:
            for row in logits:
                best = int(row.argmax())
                row[:] = [zlib.crc32(bytes([best, token])) % 1000 / 250 for token in range(N_VOCAB)]
                row[best] = 8.0
                row[END] = -10.0
        return logits


class ConfiguredHarness(Harness):
    """Whether it drafts is said by the configuration."""

    def make_runner(self, n_cells: int, *, can_trim: bool) -> FakeRunner:
        return CopyingRunner(n_cells, can_trim=can_trim)


class CopyingHarness(ConfiguredHarness):
    """Drafts as much as there is room for."""

    def __init__(self, *, is_on: bool = True, **options: Any) -> None:
        self.speculation = Speculation(is_on, costs=FreeSteps())
        super().__init__(drafting=self.speculation, **options)
        self.runner.max_outputs = 24

    def assert_cells_are_those_of_tokens(self) -> None:
        """Of running answers the computed tokens are in the cache, and none that was only drafted."""
        for seq in self.engine._running:
            assert seq.seq_id is not None
            held = [token for _, token in self.runner.held.get(seq.seq_id, [])]
            assert held == list(seq.tokens[: seq.n_past])
        cells = {cell for held in self.runner.held.values() for cell, _ in held}
        assert self.engine.health(0).n_cells_used == len(cells)


def alone(prompt: list[int], max_new: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_new and (token := copied(tokens)) != END:
        tokens.append(token)
    return tokens[len(prompt) :]


TEXT = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22]
PROMPT = [*TEXT, 50, *TEXT[:3]]


def test_an_answer_that_copies_takes_fewer_steps_and_has_the_same_tokens():
    harness = CopyingHarness()
    harness.submit(1, PROMPT, max_new=30, ignore_eos=True)
    harness.finish()
    plain = CopyingHarness(is_on=False)
    plain.submit(1, PROMPT, max_new=30, ignore_eos=True)
    plain.finish()
    assert harness.tokens(1) == plain.tokens(1)
    assert len(harness.tokens(1)) == harness.ends[1, 0].usage.n_generated == 30
    assert len(harness.runner.steps) < 0.7 * len(plain.runner.steps)
    health = harness.engine.health(0)
    assert 0 < health.n_accepted <= health.n_drafted
    assert health.n_accepted == len(plain.runner.steps) - len(harness.runner.steps)
    assert plain.engine.health(0).n_drafted == 0


@pytest.mark.parametrize(
    ("options", "is_drafted"),
    [
        ({"speculation": "auto"}, True),
        ({"speculation": "off"}, False),
        ({"speculation": "auto", "reproducible": True}, False),
        ({"speculation": "auto", "can_trim": False}, False),
    ],
    ids=["auto", "off", "reproducible", "recurrent"],
)
def test_the_configuration_says_whether_anything_is_drafted(options, is_drafted):
    harness = ConfiguredHarness(**options)
    harness.engine._speculation.costs = FreeSteps()
    harness.submit(1, PROMPT, max_new=20, ignore_eos=True)
    harness.finish()
    assert (harness.engine.health(0).n_drafted > 0) == is_drafted
    assert harness.tokens(1) == alone(PROMPT, 20)


requests = st.lists(
    st.tuples(
        st.lists(st.sampled_from([1, 2, 3, 4, 5, 6]), min_size=1, max_size=30),
        st.integers(1, 30),  # max_new
        st.sampled_from([None, None, None, 2, 5, 9]),  # cancelled after so many steps
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=n_examples(60))
@given(requests, st.integers(70, 160), st.booleans())
def test_every_answer_is_that_of_the_model_alone(asked, n_cells, is_narrow):
    """With few cells answers are preempted, with few outputs drafts are cut, and some are cancelled."""
    harness = CopyingHarness(n_cells=n_cells, n_ctx=n_cells)
    if is_narrow:
        harness.runner.max_outputs = 6
    cancels = {}
    for number, (prompt, max_new, cancelled_at) in enumerate(asked):
        request = harness.submit(number, prompt, max_new=max_new)
        if cancelled_at is not None:
            cancels[number] = (cancelled_at, request)
    for step in range(500):
        for at, request in cancels.values():
            request.is_cancelled |= step >= at
        harness.engine.step()
        harness.assert_cells_are_those_of_tokens()
        if harness.engine.is_idle:
            break
    assert harness.engine.is_idle
    for number, (prompt, max_new, _) in enumerate(asked):
        wanted = alone(prompt, max_new)
        said, end = harness.tokens(number), harness.ends[number, 0]
        assert end.usage.n_generated == len(said)
        if end.finish == "cancelled":
            assert number in cancels
            assert said == wanted[: len(said)]
        else:
            assert said == wanted


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=1.0),
    Sampling(temperature=0.8, top_p=0.9, repeat_penalty=1.3),
    Sampling(temperature=1.2, frequency_penalty=0.4, presence_penalty=0.2, logit_bias={12: 2.0}),
], ids=["temperature", "repeat penalty", "count penalties and bias"])  # fmt: skip
def test_drawn_tokens_penalties_and_logprobs_are_those_of_single_steps(sampling, monkeypatch):
    """The random numbers, the penalties and the log-probabilities see one token after the other."""
    monkeypatch.setattr("edgeagent.engine.llama.sampler.secrets.randbits", lambda n_bits: 5)
    told = []
    for is_on in (True, False):
        harness = CopyingHarness(is_on=is_on)
        assert isinstance(harness.runner, CopyingRunner)
        harness.runner.is_sure = False
        for number in (1, 2):
            harness.submit(number, PROMPT[number:], max_new=40, sampling=sampling, n=2)
        harness.submit(3, PROMPT, max_new=40, sampling=sampling, is_scored=True)
        harness.finish()
        assert (harness.speculation.n_accepted > 0) == is_on
        assert (harness.speculation.n_drafted > harness.speculation.n_accepted) == is_on
        told.append((dict(harness.texts), harness.logprobs))
    assert told[0] == told[1]
    assert len(told[0][1][3, 0]) == 40


def test_an_answer_with_a_seed_has_no_drafts():
    harness = CopyingHarness()
    harness.submit(1, PROMPT, max_new=20, sampling=Sampling(temperature=0, seed=1))
    harness.finish()
    assert harness.speculation.n_drafted == 0
    assert harness.tokens(1) == alone(PROMPT, 20)


def test_a_stop_string_within_a_draft_ends_the_answer_there():
    harness = CopyingHarness()
    harness.submit(1, PROMPT, max_new=30, stop=["17 "], ignore_eos=True)
    harness.finish()
    wanted = alone(PROMPT, 30)
    until = wanted[: wanted.index(17)]
    end = harness.ends[1, 0]
    assert harness.tokens(1) == until
    assert (end.finish, end.stop) == ("stop", "17 ")
    assert end.usage.n_generated == len(until) + 1
    assert harness.speculation.n_drafted > harness.speculation.n_accepted > 0


def test_an_answer_gets_no_more_tokens_than_it_may_have():
    for max_new in range(1, 12):
        harness = CopyingHarness()
        harness.submit(1, PROMPT, max_new=max_new, ignore_eos=True)
        harness.finish()
        assert len(harness.tokens(1)) == max_new
        longest = max(
            row.first_pos + len(row.tokens) for rows in harness.runner.steps for row in rows
        )
        assert longest < len(PROMPT) + max_new


def test_drafts_take_free_cells_only_and_preempt_nobody():
    harness = CopyingHarness(n_cells=64, n_ctx=64, n_prefixes=0)
    for number in (1, 2):
        harness.submit(number, PROMPT, max_new=12, ignore_eos=True)
    harness.finish()
    assert harness.engine.health(0).n_preempted == 0
    assert harness.tokens(1) == harness.tokens(2) == alone(PROMPT, 12)


def test_no_draft_rides_with_a_prompt():
    harness = CopyingHarness()
    harness.submit(1, PROMPT, max_new=40, ignore_eos=True)
    for _ in range(3):
        harness.engine.step()
    harness.submit(2, [60 + i for i in range(30)], max_new=4)
    harness.finish()
    for rows in harness.runner.steps:
        is_prompt = any(len(row.tokens) > row.n_outputs for row in rows)
        assert not is_prompt or all(row.n_outputs <= 1 for row in rows)
    assert harness.tokens(1) == alone(PROMPT, 40)


def test_drafts_that_are_never_right_are_soon_not_computed_any_more():
    """With steps whose time grows with their tokens: it is tried a few times."""

    class Linear(FreeSteps):
        def seconds(self, n_tokens: int) -> float:
            return 1e-3 * (1.0 + 0.3 * (n_tokens - 1))

    wrong = lambda seq, n_max: Draft(array("i", [96] * n_max), 9)  # noqa: E731
    harness = CopyingHarness()
    harness.speculation.costs, harness.speculation.drafter = Linear(), wrong
    harness.submit(1, PROMPT, max_new=100, ignore_eos=True)
    harness.finish()
    tried = [i for i, rows in enumerate(harness.runner.steps) if rows[0].n_outputs > 1]
    assert tried
    assert len(tried) < 8
    assert max(tried) < 12
    assert harness.speculation.n_accepted == 0


def test_steps_without_drafts_are_measured_now_and_then():
    """As many as `N_FEW` in `FRESH_STEPS`, where a step of one token is thought to be dear, and is not."""

    class Believed(VerifyCosts):
        def seconds(self, n_tokens: int) -> float:
            return 1e-3

    harness = CopyingHarness()
    harness.speculation.costs = Believed()
    harness.runner.next_token = lambda tokens: 1 + len(tokens) % 4  # type: ignore[method-assign]
    harness.runner.max_outputs = 3
    harness.submit(1, PROMPT, max_new=200, ignore_eos=True)
    harness.finish()
    sizes = [row.n_outputs for rows in harness.runner.steps[12:] for row in rows]
    assert max(sizes) == 3
    assert 2 <= sizes.count(1) <= N_FEW * (1 + len(sizes) / FRESH_STEPS)


def test_an_answer_that_begins_to_copy_later_is_drafted_then():
    """What is not computed is compared with what is drawn all the same."""

    class Dear(FreeSteps):
        def seconds(self, n_tokens: int) -> float:
            return 1e-3 * (1.0 + 0.6 * (n_tokens - 1))

    harness = CopyingHarness()
    harness.speculation.costs = Dear()
    periodic = [1, 2, 3, 4]
    harness.runner.next_token = lambda tokens: (
        next_token(tokens) or 5 if len(tokens) < 60 else periodic[len(tokens) % 4]
    )  # type: ignore[method-assign]
    harness.submit(1, PROMPT, max_new=160, ignore_eos=True)
    harness.finish()
    drafted = [rows[0].first_pos for rows in harness.runner.steps if rows[0].n_outputs > 1]
    assert len([at for at in drafted if at < 60]) < 4
    assert 60 < next(at for at in drafted if at > 60) < 80
    assert harness.speculation.n_accepted > 60


@pytest.mark.parametrize(
    ("tokens", "n_past", "draft", "n_done", "agreed"),
    [
        ([1, 2, 3, 4], 1, [9, 2, 3, 5], 1, 2),
        ([1, 2], 1, [2, 3], 0, 1),
        ([1, 2], 2, [2, 3], 0, 0),
        ([1, 2], 1, [], 0, 0),
    ],
)
def test_tokens_agree_up_to_the_first_that_differs(tokens, n_past, draft, n_done, agreed):
    assert agreement(array("i", tokens), n_past, array("i", draft), n_done) == agreed


def test_what_a_client_expects_is_drafted_from_the_first_token_on():
    """The model's own words, but for two: nothing of the prompt is in them."""
    harness = CopyingHarness()
    harness.runner.next_token = lambda tokens: 1 + next_token(tokens) % 96  # type: ignore[method-assign]
    plain = CopyingHarness(is_on=False)
    plain.runner.next_token = harness.runner.next_token  # type: ignore[method-assign]
    plain.submit(1, PROMPT, max_new=30)
    plain.finish()
    expected = plain.tokens(1)
    said = [*expected[:12], 99, *expected[13:20], 99, *expected[21:]]
    harness.submit(1, PROMPT, max_new=30)
    (sequence,) = harness.engine._waiting
    sequence.prediction = array("i", [*PROMPT[-2:], *said])
    harness.finish()
    usage = harness.ends[1, 0].usage
    assert harness.tokens(1) == expected
    assert len(harness.runner.steps) < 12
    assert 12 < usage.n_predicted <= harness.speculation.n_accepted
    assert usage.n_mispredicted > 0
    assert plain.ends[1, 0].usage.n_predicted == plain.ends[1, 0].usage.n_mispredicted == 0
