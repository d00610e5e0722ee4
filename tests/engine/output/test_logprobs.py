"""Log-probabilities: what they are, and that their tokens add up to the text, byte by byte."""

from __future__ import annotations

import codecs

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.engine.output.logprobs import LEAST, Logprobs
from edgeagent.engine.output.text_stream import TextStream
from edgeagent.types.answer import TokenLogprob
from tests.conftest import n_examples
from tests.engine.fakes import N_VOCAB, FakeRunner

RUNNER = FakeRunner(16)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64)
    return exact - np.log(np.exp(exact).sum())


def entry(
    logits: np.ndarray, token: int, n_top: int = 3, mask: bytes | None = None
) -> TokenLogprob:
    """What is told of one drawn token."""
    logprobs = Logprobs(n_top)
    logprobs.weigh(logits, mask)
    logits[:] = 0  # a sampler may do what it likes with them
    logprobs.drew(0, token, RUNNER)
    piece = RUNNER.piece(token)
    logprobs.hear(0, piece)
    (told,) = logprobs.tell(len(piece), None, is_end=True)
    return told


@given(st.integers(0, 2**32 - 1), st.integers(0, N_VOCAB - 1), st.integers(0, 20))
def test_they_are_the_log_softmax_of_the_raw_scores_with_the_most_probable_beside(seed, token, n):
    logits = np.random.default_rng(seed).normal(0, 5, N_VOCAB).astype(np.float32)
    exact = log_softmax(logits)
    told = entry(logits, token, n)
    assert told.piece == RUNNER.piece(token)
    assert told.logprob == pytest.approx(exact[token], abs=1e-4)
    best = np.argsort(-exact)[:n]
    assert [top.piece for top in told.top] == [RUNNER.piece(i) for i in best]
    assert [top.logprob for top in told.top] == pytest.approx(list(exact[best]), abs=1e-4)


def test_under_a_mask_they_are_among_what_it_allows():
    logits = np.zeros(N_VOCAB, np.float32)
    logits[5], logits[9] = 1.0, 2.0
    mask = bytearray((N_VOCAB + 7) // 8)
    for token in (5, 9):
        mask[token >> 3] |= 1 << (token & 7)
    told = entry(logits, 5, 20, bytes(mask))
    whole = np.log(np.exp(1.0) + np.exp(2.0))
    assert told.logprob == pytest.approx(1.0 - whole, abs=1e-5)
    assert [top.piece for top in told.top] == [RUNNER.piece(9), RUNNER.piece(5)]


def test_what_is_as_good_as_impossible_is_a_number_that_json_has():
    logits = np.full(N_VOCAB, -np.inf, np.float32)
    logits[1] = 0.0
    told = entry(logits, 2)
    assert told.logprob == LEAST
    assert [top.logprob for top in told.top] == [0.0]


pieces = st.lists(
    st.one_of(
        st.sampled_from([b"", b"a", b" b", b"ab", "é".encode(), "🙂".encode()]),
        st.sampled_from([b"\xf0\x9f", b"\x99\x82", b"\xe2"]),
        st.binary(max_size=4),
    ),
    max_size=12,
)  # fmt: skip
stops = st.lists(st.sampled_from(["a", "ab", "b a", "\ufffd", "🙂", "é", "aa"]), max_size=2)


def begun(data: bytes) -> str:
    """What is certain of a text that may end within a character."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


@settings(max_examples=n_examples(200))
@given(pieces, stops)
def test_tokens_add_up_to_the_text_whatever_their_bytes_and_the_stop_strings_are(pieces, stops):
    text, logprobs = TextStream(stops), Logprobs(0)
    said, told = "", []
    for number, piece in enumerate(pieces):
        logprobs.hear(number, piece)
        new = text.push(piece)
        said += new
        told += logprobs.tell(len(new), None, is_end=text.is_stopped)
        # Never ahead of the text: what has been told is part of what has been said.
        assert said.startswith(begun(b"".join(one.piece for one in told)))
        if text.is_stopped:
            break
    else:
        rest = text.finish()
        said += rest
        told += logprobs.tell(len(rest), None, is_end=True)
    assert b"".join(one.piece for one in told).decode("utf-8", "replace") == said
    if not text.is_stopped and b"".join(pieces).decode("utf-8", "replace") == said:
        assert [one.piece for one in told] == pieces, "one for each token"
