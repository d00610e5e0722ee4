"""Which candidate is chosen, which are on the Pareto front, and which target is to blame."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeagent.optimize.targets import (
    Measured,
    Targets,
    blame,
    choose,
    misses,
    nearest,
    pareto,
    with_best_flags,
)
from edgeagent.types.engine_flags import CacheFlags


def one(name, n_mb, kld, rate):
    return Measured(name, int(n_mb * 1e6), kld, 0.9, 20.0, rate)


FINE, MIDDLE, SMALL = (
    one("fine", 140, 0.01, 20),
    one("middle", 100, 0.05, 30),
    one("small", 80, 0.2, 40),
)
WORSE = one("worse", 100, 0.06, 29)
ALL = [FINE, MIDDLE, SMALL, WORSE]


def test_a_candidate_that_another_beats_in_everything_is_not_on_the_front():
    assert pareto(ALL) == [SMALL, MIDDLE, FINE]


def test_two_equal_candidates_are_both_on_the_front():
    twin = one("twin", 100, 0.05, 30)
    assert set(pareto([MIDDLE, twin])) == {MIDDLE, twin}


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        (Targets(), FINE),
        (Targets(max_bytes=120_000_000), MIDDLE),
        (Targets(min_decode_tok_s=35), SMALL),
        (Targets(max_bytes=90_000_000, max_kld=0.3), SMALL),
        (Targets(max_bytes=90_000_000, max_kld=0.1), None),
    ],
)
def test_the_candidate_of_least_divergence_within_the_targets_is_chosen(targets, chosen):
    assert choose(targets, ALL) == chosen


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (Targets(max_bytes=50_000_000), "--max-size 50.0 MB is out of reach: the best candidate, small"),
        (Targets(min_decode_tok_s=100), "--min-decode 100 tok/s is out of reach: the best candidate, small"),
        (Targets(max_kld=0.001), "--max-kld 0.001 is out of reach: the best candidate, fine, has a mean KL"),
        (
            Targets(max_bytes=90_000_000, max_kld=0.1),
            "--max-size 90.0 MB and --max-kld 0.1 exclude each other: within the first, the best is small",
        ),
        (
            Targets(max_bytes=110_000_000, max_kld=0.055, min_decode_tok_s=35),
            "--min-decode 35 tok/s and --max-kld 0.055 exclude each other",
        ),
    ],
)  # fmt: skip
def test_the_target_that_cannot_be_met_is_named(targets, reason):
    assert choose(targets, ALL) is None and reason in blame(targets, ALL)


def test_three_targets_may_exclude_each_other_though_each_two_do_not():
    targets = Targets(max_bytes=100_000_000, max_kld=0.1, min_decode_tok_s=35)
    candidates = [one("a", 100, 0.1, 10), one("b", 100, 0.5, 35), one("c", 150, 0.1, 35)]
    assert "not all of them together" in blame(targets, candidates)


def test_the_nearest_candidates_miss_the_targets_least():
    targets = Targets(max_bytes=90_000_000, max_kld=0.1)
    assert nearest(targets, ALL, 1) == [MIDDLE]
    assert misses(targets, MIDDLE) == ["--max-size"] and misses(targets, SMALL) == ["--max-kld"]


def loaded(flags: CacheFlags, kld: float, rate: float, others_cores: float = 0.0) -> Measured:
    name = f"a, {flags}"
    return Measured(name, 10**7, kld, 0.9, 20.0, rate, others_cores, None, "a", flags)


def test_the_flags_of_the_chosen_file_are_the_fastest_that_lose_little():
    base = one("a", 10, 0.01, 100.0)
    kv8, kv4 = CacheFlags(kv_type="q8_0"), CacheFlags(kv_type="q4_0")
    fast = loaded(kv8, 0.0105, 120.0)
    lossy = loaded(kv4, 0.02, 150.0)
    assert with_best_flags(Targets(), base, [fast, lossy]) is fast
    assert with_best_flags(Targets(max_kld=0.0102), base, [fast, lossy]) is base
    assert with_best_flags(Targets(), base, [loaded(kv8, 0.0105, 104.0)]) is base
    assert with_best_flags(Targets(), base, [loaded(kv8, 0.0105, 120.0, 0.8)]) is base
    disturbed = replace(base, others_cores=0.5)
    assert with_best_flags(Targets(), disturbed, [fast]) is disturbed
    assert (fast.file, base.file, str(kv8)) == ("a", "a", "KV q8_0")
