"""Answers that are remembered by Idempotency-Key: bounds, expiry, erasure."""

from __future__ import annotations

import pytest

from edgeagent.errors import IdempotencyKeyReused, RateLimited
from edgeagent.serving import remembered_answers
from edgeagent.serving.remembered_answers import KEPT_S, RememberedAnswers, WholeAnswer
from edgeagent.store.erasure_hub import DeletedContent

ANSWER = WholeAnswer(200, [(b"content-type", b"application/json")], b'{"text": "canary"}')


def kept(remembered: RememberedAnswers, owner: str, key: str, answer: WholeAnswer = ANSWER):
    attempt = remembered.begin(owner, key, b"digest")
    remembered.end(attempt, answer)
    return attempt


def test_an_answer_is_found_by_owner_key_and_request():
    remembered = RememberedAnswers()
    attempt = kept(remembered, "ann", "k")
    assert remembered.find("ann", "k", b"digest") is attempt
    assert remembered.answer(attempt) == ANSWER
    assert b"canary" not in (attempt.sealed or b"canary")
    assert remembered.find("bob", "k", b"digest") is None
    assert remembered.find("ann", "other", b"digest") is None
    with pytest.raises(IdempotencyKeyReused):
        remembered.find("ann", "k", b"another request")


def test_a_request_without_an_answer_is_done_again():
    remembered = RememberedAnswers()
    attempt = remembered.begin("ann", "k", b"digest")
    assert remembered.find("ann", "k", b"digest") is attempt and not attempt.ended.is_set()
    remembered.end(attempt, None)
    assert attempt.ended.is_set() and remembered.find("ann", "k", b"digest") is None


def test_a_long_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered_answers, "MAX_ANSWER_BYTES", 10)
    remembered = RememberedAnswers()
    kept(remembered, "ann", "k")
    assert len(remembered) == 0


def test_answers_expire():
    now = 0.0
    remembered = RememberedAnswers(lambda: now)
    kept(remembered, "ann", "k")
    now = KEPT_S - 1
    kept(remembered, "ann", "later")
    now = KEPT_S + 1
    assert remembered.find("ann", "k", b"digest") is None
    assert remembered.find("ann", "later", b"digest") is not None


def test_a_request_that_runs_for_longer_is_not_done_twice():
    now = 0.0
    remembered = RememberedAnswers(lambda: now)
    attempt = remembered.begin("ann", "slow", b"digest")
    now = KEPT_S + 1
    assert remembered.find("ann", "slow", b"digest") is attempt
    remembered.end(attempt, ANSWER)
    assert remembered.find("ann", "slow", b"digest") is None, "it is older than an answer is kept"


def test_the_oldest_answers_of_an_owner_make_room_and_others_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered_answers, "MAX_OWNER_KEYS", 3)
    remembered = RememberedAnswers()
    kept(remembered, "bob", "k")
    for i in range(5):
        kept(remembered, "ann", str(i))
    found = [remembered.find("ann", str(i), b"digest") is not None for i in range(5)]
    assert found == [False, False, True, True, True]
    assert remembered.find("bob", "k", b"digest") is not None


def test_all_answers_together_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered_answers, "MAX_BYTES", 20_000)
    remembered = RememberedAnswers()
    for i in range(40):
        kept(remembered, f"owner-{i % 7}", str(i), WholeAnswer(200, [], b"x" * 1500))
        assert remembered.n_bytes <= 20_000
    assert len(remembered) > 5


def test_running_requests_are_not_dropped_for_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remembered_answers, "MAX_OWNER_KEYS", 2)
    remembered = RememberedAnswers()
    attempts = [remembered.begin("ann", str(i), b"digest") for i in range(2)]
    with pytest.raises(RateLimited):
        remembered.begin("ann", "third", b"digest")
    remembered.end(attempts[0], ANSWER)
    remembered.begin("ann", "third", b"digest")
    assert remembered.find("ann", "1", b"digest") is attempts[1]


@pytest.mark.parametrize("gone", [DeletedContent("erase", "ann"), DeletedContent("elsewhere")])
async def test_what_is_erased_is_forgotten_and_so_is_what_still_runs(gone: DeletedContent):
    remembered = RememberedAnswers()
    kept(remembered, "ann", "k")
    kept(remembered, "bob", "k")
    running = remembered.begin("ann", "running", b"digest")
    await remembered.forget(gone)
    remembered.end(running, ANSWER)
    assert remembered.find("ann", "k", b"digest") is None
    assert remembered.find("ann", "running", b"digest") is None
    assert remembered.answer(running) is None
    assert (remembered.find("bob", "k", b"digest") is not None) == (gone.owner is not None)
