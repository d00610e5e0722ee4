"""The bounds of keys, by tables and properties over a clock of the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.api.http import key_limits
from edgeagent.api.http.key_limits import FAILURES, MAX_PEERS, FailureThrottle, Limiter, duration
from edgeagent.errors import RateLimited
from edgeagent.types.caller import LOCAL, Caller, KeyLimits


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def caller(key_id: str = "key_a", **bounds: int) -> Caller:
    limits = KeyLimits(**bounds)
    return Caller(key_id=key_id, owner="me", scopes=frozenset({"chat"}), limits=limits)


def n_admitted(limiter: Limiter, who: Caller, n: int) -> int:
    """How many of `n` requests that end at once are admitted."""
    count = 0
    for _ in range(n):
        try:
            limiter.admit(who).release()
        except RateLimited:
            continue
        count += 1
    return count


def test_a_key_without_bounds_has_none():
    assert n_admitted(Limiter(Clock()), caller(), 500) == 500


def test_requests_of_a_minute_are_counted_and_refilled_evenly():
    clock = Clock()
    limiter, who = Limiter(clock), caller(requests_per_minute=6)
    assert n_admitted(limiter, who, 10) == 6
    with pytest.raises(RateLimited) as caught:
        limiter.admit(who)
    assert caught.value.retry_after_s == pytest.approx(10)
    clock.s += 9.9
    assert n_admitted(limiter, who, 10) == 0
    clock.s += 0.2
    assert n_admitted(limiter, who, 10) == 1
    clock.s += 3600
    assert n_admitted(limiter, who, 10) == 6, "what is not used is not saved up"


def test_a_refused_request_costs_nothing():
    clock = Clock()
    limiter, who = Limiter(clock), caller(requests_per_minute=1, concurrency=1)
    limiter.admit(who)
    for _ in range(50):
        with pytest.raises(RateLimited):
            limiter.admit(who)
    clock.s += 60
    with pytest.raises(RateLimited, match="running"):
        limiter.admit(who)


def test_a_place_is_given_back_once_however_often_it_is_released():
    limiter, who = Limiter(Clock()), caller(concurrency=2)
    first, _second = limiter.admit(who), limiter.admit(who)
    with pytest.raises(RateLimited, match="limit is 2"):
        limiter.admit(who)
    first.release()
    first.release()
    limiter.admit(who)
    with pytest.raises(RateLimited):
        limiter.admit(who)


def test_tokens_are_charged_afterwards_and_refuse_the_next_request():
    clock = Clock()
    limiter, who = Limiter(clock), caller(tokens_per_minute=60)
    admission = limiter.admit(who)
    admission.charge(50)  # nobody could know before
    admission.charge(90)
    admission.charge(90)  # what is charged once more is not charged twice
    admission.release()
    with pytest.raises(RateLimited, match="60 tokens") as caught:
        limiter.admit(who)
    assert caught.value.retry_after_s == pytest.approx(31)
    clock.s += 31
    limiter.admit(who)


def test_keys_do_not_share_their_bounds():
    limiter = Limiter(Clock())
    a, b = caller("key_a", requests_per_minute=1), caller("key_b", requests_per_minute=1)
    assert (n_admitted(limiter, a, 3), n_admitted(limiter, b, 3)) == (1, 1)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 90), st.integers(1, 20)), max_size=20),
)
def test_no_minute_has_more_than_twice_the_bound(bound, arrivals):
    """A bucket of one minute lets a full one and a minute's refill through, and never more."""
    clock = Clock()
    limiter, who = Limiter(clock), caller(requests_per_minute=bound)
    admitted = []
    for pause_s, n in arrivals:
        clock.s += pause_s
        admitted += [clock.s] * n_admitted(limiter, who, n)
    for start in admitted:
        assert sum(start <= at < start + 60 for at in admitted) <= 2 * bound


@given(st.lists(st.sampled_from(["admit", "release", "again"]), max_size=60))
def test_running_requests_never_exceed_the_bound(acts):
    limiter, who, running, ended = Limiter(Clock()), caller(concurrency=3), [], []
    for act in acts:
        if act == "admit":
            try:
                running.append(limiter.admit(who))
            except RateLimited:
                assert len(running) == 3
        elif act == "release" and running:
            ended.append(running.pop())
            ended[-1].release()
        elif act == "again" and ended:
            ended[0].release()
        assert len(running) <= 3
    assert n_admitted(limiter, who, 1) == (len(running) < 3)


def test_headers_are_named_and_written_as_openai_does():
    clock = Clock()
    limiter, who = Limiter(clock), caller(requests_per_minute=60, tokens_per_minute=600)
    admission = limiter.admit(who)
    admission.charge(300)
    assert dict(admission.headers()) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"600",
        b"x-ratelimit-remaining-tokens": b"300",
        b"x-ratelimit-reset-tokens": b"30s",
    }
    assert Limiter(clock).admit(caller()).headers() == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.25, "250ms"), (1, "1s"), (59.4, "59s"), (60, "1m0s"), (3599.9, "60m0s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_idle_keys_are_forgotten_and_busy_ones_are_not(monkeypatch):
    monkeypatch.setattr(key_limits, "MAX_IDLE_KEYS", 3)
    limiter = Limiter(Clock())
    busy = caller("key_busy", concurrency=1)
    limiter.admit(busy)
    for i in range(20):
        n_admitted(limiter, caller(f"key_{i}", concurrency=1), 1)
    assert len(limiter._usages) <= 4
    with pytest.raises(RateLimited):
        limiter.admit(busy)


# ---- failures


def n_failures(throttle: FailureThrottle, peers: list[str]) -> int:
    """After how many failures of these peers, one after another, the throttle says so."""
    for n, peer in enumerate(peers):
        try:
            throttle.fail(peer)
        except RateLimited as exc:
            assert exc.retry_after_s is not None and exc.retry_after_s > 0
            return n
    return len(peers)


@pytest.mark.parametrize(
    ("peers", "n"),
    [
        (["10.0.0.1"] * 100, FAILURES),
        ([f"fd00::1:{i:x}" for i in range(100)], FAILURES),  # one host draws from its /64
        ([f"fd00:0:0:{i:x}::1" for i in range(100)], 100),
        (["::ffff:10.0.0.1", "10.0.0.1"] * 50, FAILURES),
        (["fe80::1%eth0"] * 100, FAILURES),
        ([""] * 100, FAILURES),  # a Unix socket has no address
    ],
)
def test_a_peer_that_fails_too_often_is_told_to_wait(peers, n):
    assert n_failures(FailureThrottle(Clock()), peers) == n


def test_failures_are_forgiven_with_time():
    clock = Clock()
    throttle = FailureThrottle(clock)
    assert n_failures(throttle, ["10.0.0.1"] * 100) == FAILURES
    clock.s += 60
    assert n_failures(throttle, ["10.0.0.1"] * 100) == FAILURES


def test_a_flood_of_addresses_costs_bounded_memory():
    throttle = FailureThrottle(Clock())
    for i in range(3 * MAX_PEERS):
        throttle.fail(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
    assert len(throttle) == MAX_PEERS


def test_no_key_takes_all_places():
    limiter = Limiter(max_running=2)
    places = [limiter.admit(caller()) for _ in range(2)]
    with pytest.raises(RateLimited, match="max_connections"):
        limiter.admit(caller())
    places[0].release()
    limiter.admit(caller()).release()
    assert n_admitted(limiter, LOCAL, 9) == 9 and [limiter.admit(LOCAL) for _ in range(9)]


def test_what_runs_alone_is_refused_a_second_time_until_it_has_ended():
    limiter = Limiter()
    first, second = limiter.admit(caller()), limiter.admit(caller())
    with first.alone("erasure"):
        with pytest.raises(RateLimited, match="one erasure"), second.alone("erasure"):
            pass
        with second.alone("something else"):
            pass
    with second.alone("erasure"):
        pass
