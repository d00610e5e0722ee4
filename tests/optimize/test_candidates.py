"""What is measured of candidates again, and what a journal has of them, without a model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgeagent.optimize.candidates import Bench, Candidate, measured_candidates
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.recipe import Recipe

QUALITY = {"n_bytes": 10.0, "kld": 0.1, "same_top": 0.9, "perplexity": 9.0}
QUIET, BUSY, WANTED = (Candidate(n, Recipe(n), 10) for n in ("Q8_0", "Q4_0", "Q6_K"))


@pytest.mark.parametrize(
    ("again", "expected"),
    [((30.0, 0.0), (30.0, 0.0)), ((8.0, 1.0), (9.0, 1.5)), ((12.0, 1.0), (12.0, 1.0))],
)
def test_only_rates_beside_other_programs_are_timed_again(tmp_path: Path, again, expected):
    bench = Bench(tmp_path / "m.gguf", None, tmp_path, EvaluationOptions())
    journal = Journal(tmp_path / "journal.jsonl", "about")
    for one, rate, others in ((QUIET, 20.0, 0.0), (BUSY, 9.0, 1.5)):
        journal.add(bench.key(one), QUALITY)
        journal.add(bench.rate_key(one), {"decode_tok_s": rate, "others_cores": others})
    # A rate that was told otherwise once, with the quality, does not count.
    journal.add(bench.key(WANTED), QUALITY | {"decode_tok_s": 1.0, "others_cores": 0.0})
    timed = []

    async def workers(bench, left, known, deadline_s):
        assert known is None
        for one in left:
            timed.append(one.name)
            tok_s, others = again if one is BUSY else (25.0, 0.0)
            yield one, {"decode_tok_s": tok_s, "others_cores": others}

    async def measured(time_again: bool):
        return await measured_candidates(
            bench, [QUIET, BUSY, WANTED], journal, None, lambda *told: None, workers,
            time_again=time_again,
        )  # fmt: skip

    assert [one.decode_tok_s for one in asyncio.run(measured(False))] == [20.0, 9.0, 25.0]
    found = asyncio.run(measured(True))
    assert timed == ["Q6_K", "Q4_0"]
    assert (found[1].decode_tok_s, found[1].others_cores) == expected
    assert {one.kld for one in found} == {0.1}
