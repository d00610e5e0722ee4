from __future__ import annotations

from edgeagent.engine.threads import PROBE_EVERY, PROBE_SELDOM, ThreadChoice


def decode(
    choice: ThreadChoice, times: dict[int, float], n_steps: int, n_seq: int = 1
) -> list[int]:
    """Steps on a machine where each thread count takes its time; which counts were used."""
    used = []
    for _ in range(n_steps):
        n = choice.pick(n_seq)
        choice.observe(n_seq, n, times[n])
        used.append(n)
    return used


def test_all_threads_are_used_while_they_are_fastest_and_others_are_tried_ever_more_seldom():
    used = decode(ThreadChoice(2), {1: 8.0, 2: 6.0}, 5000)
    assert used[:100].count(1) >= 2
    assert 5 <= used.count(1) <= 12


def test_a_busy_neighbour_is_given_way_soon_and_the_core_is_taken_back():
    choice = ThreadChoice(2)
    decode(choice, {1: 8.0, 2: 6.0}, 3000)
    used = decode(choice, {1: 8.0, 2: 25.0}, 3 * PROBE_EVERY)
    assert used[-PROBE_EVERY:].count(1) >= PROBE_EVERY - 1
    used = decode(choice, {1: 8.0, 2: 6.0}, 4 * PROBE_SELDOM)
    assert used[-PROBE_EVERY:].count(2) >= PROBE_EVERY - 1


def test_one_slow_step_changes_nothing():
    choice = ThreadChoice(2)
    decode(choice, {1: 8.0, 2: 6.0}, 1000)
    choice.observe(1, 2, 60.0)
    used = decode(choice, {1: 8.0, 2: 6.0}, 200)
    assert used.count(2) > 150


def test_batches_of_another_size_are_judged_for_themselves():
    choice = ThreadChoice(2)
    decode(choice, {1: 5.0, 2: 9.0}, 100, n_seq=1)
    used = decode(choice, {1: 50.0, 2: 30.0}, 100, n_seq=8)
    assert used.count(2) > 90


def test_counts_that_are_alike_do_not_alternate():
    used = decode(ThreadChoice(4), {1: 6.1, 2: 6.0, 3: 6.05, 4: 6.1}, 200)
    assert used.count(4) >= 200 - 200 // PROBE_EVERY


def test_a_single_thread_is_never_probed():
    assert set(decode(ThreadChoice(1), {1: 5.0}, 100)) == {1}


def test_a_smaller_grant_is_kept_at_once():
    choice = ThreadChoice(4)
    decode(choice, {1: 9.0, 2: 8.0, 3: 7.0, 4: 6.0}, 50)
    choice.grant(2)
    assert set(decode(choice, {1: 9.0, 2: 8.0}, 100)) == {1, 2}
