"""When an upstream is avoided, by scripts of faults (f), answers (a) and times."""

from __future__ import annotations

import pytest

from edgeagent.routing.upstreams.upstream_breaker import UpstreamBreaker

# Events at times, and the seconds until it closes at the last of them (limit 3, open for 30 s).
SCRIPTS = [
    ([], 0, 0.0, False),
    ([("f", 0), ("f", 1)], 1, 0.0, False),
    ([("f", 0), ("f", 1), ("f", 2)], 2, 30.0, True),
    ([("f", 0), ("f", 1), ("f", 2)], 12, 20.0, True),
    # Slow faults count as fast ones do.
    ([("f", 0), ("f", 600), ("f", 1200)], 1200, 30.0, True),
    ([("f", 0), ("f", 1), ("a", 2), ("f", 3)], 3, 0.0, False),
    # Half open: the time is over, a check is due; a further fault opens it again at once.
    ([("f", 0), ("f", 1), ("f", 2)], 32, 0.0, True),
    ([("f", 0), ("f", 1), ("f", 2), ("f", 33)], 33, 30.0, True),
    ([("f", 0), ("f", 1), ("f", 2), ("a", 33), ("f", 34)], 34, 0.0, False),
]


@pytest.mark.parametrize(("events", "now", "closes_in_s", "needs_check"), SCRIPTS)
def test_the_breaker_counts_faults_in_a_row(events, now, closes_in_s, needs_check):
    breaker = UpstreamBreaker(3, 30.0)
    for what, at in events:
        if what == "f":
            breaker.record_fault(at)
        else:
            breaker.record_success()
    assert (breaker.closes_in_s(now), breaker.needs_check) == (closes_in_s, needs_check)
