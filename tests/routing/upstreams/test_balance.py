"""Which upstream gets the next request."""

from __future__ import annotations

import heapq

import pytest

from edgeagent.routing.upstreams.balance import STALE_S, Speed, UpstreamState, choose, measured

S = UpstreamState
TABLE = [
    ([], None),
    ([S("a")], "a"),
    ([S("a", cooling_s=1)], None),
    ([S("a", n_running=2, max_concurrent=2)], None),
    ([S("a", n_running=1), S("b")], "b"),
    ([S("a", s_per_token=1.0), S("b", s_per_token=0.5)], "b"),
    ([S("a", s_per_token=1.0), S("b", 2, s_per_token=0.5)], "a"),
    ([S("a", s_per_token=1.0), S("b", s_per_token=0.5, cooling_s=3)], "a"),
    # One that was not measured counts as fast as the fastest, and is tried first.
    ([S("a", s_per_token=0.5), S("b")], "b"),
    ([S("a", s_per_token=0.5), S("b", 1)], "a"),
]


@pytest.mark.parametrize(("states", "name"), TABLE)
def test_the_upstream_that_should_answer_first_is_chosen(states, name):
    assert choose(states) == name
    assert choose(states[::-1]) == name


def test_an_old_measurement_is_forgotten():
    old = Speed(1.0, 0.0)
    assert old.at(STALE_S) == 1.0 and old.at(STALE_S + 1) is None
    fresh = measured(old, took_s=2, n_tokens=10, n_running=1, now_s=STALE_S + 1)
    assert fresh.s_per_token == 0.2
    assert measured(fresh, took_s=4, n_tokens=10, n_running=2, now_s=STALE_S + 1).s_per_token == 0.2
    assert measured(None, took_s=1, n_tokens=0, n_running=0, now_s=0).s_per_token == 1


@pytest.mark.parametrize("speeds", [(100, 100), (100, 50), (300, 100), (90, 60, 30)])
@pytest.mark.parametrize("n_clients", [8, 24])
def test_shares_under_load_are_in_proportion_to_the_speeds(speeds, n_clients):
    """Engines that share their speed among their requests, closed-loop clients, answers of 100 tokens."""
    names = [f"u{n}" for n in range(len(speeds))]
    speed = dict(zip(names, speeds, strict=True))
    open_: dict[str, list[list[float]]] = {
        name: [] for name in names
    }  # tokens left, start, n before
    estimates: dict[str, Speed] = {}
    done = dict.fromkeys(names, 0)
    now, waiting = 0.0, n_clients
    while sum(done.values()) < 3000:
        while waiting:
            states = [
                S(
                    name,
                    len(open_[name]),
                    1000,
                    0,
                    e.at(now) if (e := estimates.get(name)) else None,
                )
                for name in names
            ]
            chosen = choose(states)
            assert chosen is not None
            open_[chosen].append([100.0, now, len(open_[chosen]) + 1])
            waiting -= 1
        ends = [
            (min(one[0] for one in open_[name]) * len(open_[name]) / speed[name], name)
            for name in names
            if open_[name]
        ]
        step, first = heapq.nsmallest(1, ends)[0]
        now += step
        for name in names:
            for one in open_[name]:
                one[0] -= step * speed[name] / len(open_[name])
        ended = min(open_[first])
        n_running = (ended[2] + len(open_[first])) / 2
        open_[first].remove(ended)
        estimates[first] = measured(
            estimates.get(first),
            took_s=now - ended[1],
            n_tokens=100,
            n_running=n_running,
            now_s=now,
        )
        done[first] += 1
        waiting += 1
    for name in names:
        share, expected = done[name] / sum(done.values()), speed[name] / sum(speeds)
        assert abs(share / expected - 1) < 0.1, (name, share, expected)
