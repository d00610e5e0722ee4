"""Drafted tokens on a real model: where it is sure of a token, the same one is drawn."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

import pytest

from edgeagent.catalog.sizing.memory import WorkerSetup
from edgeagent.engine.batching.engine import Engine
from edgeagent.engine.batching.sequence import Request, Sequence
from edgeagent.engine.batching.speculation import Speculation
from edgeagent.engine.batching.step_runner import LlamaRunner
from edgeagent.engine.llama.model import Llama
from edgeagent.engine.llama.sampler import Sampler
from edgeagent.engine.output.logprobs import Logprobs
from edgeagent.engine.structured.structured_decoder import StructuredDecoder
from edgeagent.types.answer import TokenChunk, TokenLogprob
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.types.sampling import Sampling
from tests.engine.batching.test_speculation import FreeSteps

GREEDY = Sampling(temperature=0)
# The size of a batch changes logits by about a hundredth; two tokens that are closer may change places.
CLOSE = 0.1
STORIES = [
    "Once upon a time there was a little girl named Lily. She had a red ball. ",
    "Tom and Sam went to the park. Tom and Sam saw a big dog. The big dog ",
]


@pytest.fixture(scope="module")
def llama(stories) -> Iterator[Llama]:
    config = EngineConfig(model_id="s", path=str(stories), n_ctx=1024, n_seq=4, n_threads=1)
    llama = Llama(config)
    yield llama
    llama.close()


class Told:
    """An engine over the model, and what came of its answers."""

    def __init__(self, llama: Llama, *, is_on: bool) -> None:
        llama.clear()
        config = EngineConfig(model_id="s", path="", n_ctx=1024, n_seq=4, n_threads=1)
        self.speculation = Speculation(is_on, costs=FreeSteps())
        self.logprobs: dict[int, list[TokenLogprob]] = {}
        self.ends: dict[int, TokenChunk] = {}
        self._llama = llama
        self.engine = Engine(
            config,
            LlamaRunner(llama, config),
            llama.n_ctx,
            emit=self._emit,
            refuse=lambda request_id, error: None,
            forget=lambda request_id: None,
            clock=lambda: 0.0,
            speculation=self.speculation,
        )

    def _emit(self, chunks: list[tuple[int, TokenChunk]]) -> None:
        for request_id, chunk in chunks:
            self.logprobs.setdefault(request_id, []).extend(chunk.logprobs)
            if chunk.finish is not None:
                self.ends[request_id] = chunk

    def ask(self, number: int, text: str, max_new: int) -> Sequence:
        tokens = self._llama.tokenize(text, add_special=True)
        request = Request(number, GenerateSpec(prompts=[Prompt(text=text)], sampling=GREEDY), 0.0)
        decoder = StructuredDecoder(
            tokens, len(tokens), max_new, Sampler(GREEDY, self._llama.n_vocab, [], 0), [],
            ignore_eos=True, logprobs=Logprobs(2),
        )  # fmt: skip
        sequence = Sequence(request, 0, decoder)
        self.engine.submit([sequence])
        return sequence

    def finish(self) -> None:
        while not self.engine.is_idle:
            self.engine.step()


def test_tokens_and_logprobs_are_those_of_single_steps_up_to_a_close_call(llama):
    """With two answers at once, whose drafts share steps."""
    told = []
    for is_on in (True, False):
        one = Told(llama, is_on=is_on)
        sequences = [one.ask(i, 3 * text, 80) for i, text in enumerate(STORIES)]
        one.finish()
        assert (one.speculation.n_accepted > 20) == is_on
        assert all(end.usage and end.usage.n_generated == 80 for end in one.ends.values())
        told.append((sequences, one.logprobs))
    n_compared = 0
    for number in range(len(STORIES)):
        (drafted, plain) = (list(s[number].tokens[s[number].n_prompt :]) for s, _ in told)
        n_same = next((i for i in range(80) if drafted[i] != plain[i]), 80)
        found, wanted = (logprobs[number] for _, logprobs in told)
        assert len(found) == len(wanted) == 80
        for mine, other in list(zip(found, wanted, strict=True))[:n_same]:
            assert mine.piece == other.piece
            assert math.isclose(mine.logprob, other.logprob, abs_tol=CLOSE)
        if n_same < 80:
            best, second = wanted[n_same].top
            assert best.logprob - second.logprob < CLOSE
        n_compared += n_same
    assert n_compared > 40


def test_an_answer_that_is_cancelled_with_drafts_gives_back_its_cells(llama):
    told = Told(llama, is_on=True)
    sequence = told.ask(1, 3 * STORIES[0], 200)
    while not told.speculation.n_accepted:
        told.engine.step()
    assert sequence.n_past == told.engine.health(0).n_cells_used  # none of what was only drafted
    sequence.request.is_cancelled = True
    told.engine.step()
    assert told.ends[1].finish == "cancelled"
    assert told.engine.is_idle
    assert told.engine.health(0).n_cells_used == sequence.n_past  # an idle prefix
    told.engine.forget_prefixes(None)
    assert told.engine.health(0).n_cells_used == 0
    again = told.ask(2, 3 * STORIES[0], 20)
    told.finish()
    assert again.n_generated == 20
    assert isinstance(again.tokens, array)


def test_one_slot_has_logits_for_drafts(stories):
    """As many as `catalog.sizing` counts."""
    config = EngineConfig(
        model_id="s", path=str(stories), n_ctx=256, n_seq=1, n_prefixes=0, speculation="auto"
    )
    llama = Llama(config)
    try:
        n = llama.max_outputs
        assert n == WorkerSetup.of(config, frozenset()).n_outputs > 10
        llama.batch.clear()
        llama.batch.add(0, array("i", range(3, 3 + n)), 0, n_outputs=n)
        assert llama.decode().shape == (n, llama.n_vocab)
    finally:
        llama.close()
