"""What is measured of candidates again, and what is found in the folder of a search, without a model."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.optimize.candidates import Bench, Candidate, measured_candidates
from edgeagent.optimize.evaluate import EvaluationOptions
from edgeagent.optimize.journal import Journal
from edgeagent.optimize.recipe import Recipe
from edgeagent.optimize.type_speeds import TypeSpeeds
from edgeagent.optimize.work_folder import check_out, work_folder
from edgeagent.types.engine_flags import CacheFlags

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


def test_rates_are_expected_only_of_types_that_were_timed_on_a_quiet_machine(tmp_path: Path):
    speeds = TypeSpeeds({"Q8_0": 0.25}, {"a": 1.0})
    bench = Bench(tmp_path / "m.gguf", None, tmp_path, EvaluationOptions(), speeds=speeds)
    one = Candidate("Q8_0", Recipe("Q8_0"), 10, {"a": "Q8_0"})
    assert bench.expected_tok_s(one) == 4.0
    assert bench.expected_tok_s(replace(one, types={"a": "Q4_0"})) is None
    assert bench.expected_tok_s(replace(one, flags=CacheFlags(kv_type="q8_0"))) is None
    busy = replace(bench, speeds=replace(speeds, others_cores=0.5))
    assert busy.expected_tok_s(one) is None


def test_a_journal_without_a_value_that_is_needed_says_so(tmp_path: Path):
    journal = Journal(tmp_path / "journal.jsonl", "about")
    journal.add("candidate a", {"kld": 0.5})
    assert journal.get("candidate a", "kld") == {"kld": 0.5}
    with pytest.raises(
        InvalidParameter, match=r"'candidate a' without its 'n_bytes': delete that line"
    ):
        journal.get("candidate a", "kld", "n_bytes")
    (tmp_path / "journal.jsonl").write_text('{"key": "about", "values": {"kld": 1e300}}\n')
    with pytest.raises(InvalidParameter, match=r"Line 1 of .* is damaged"):
        Journal(tmp_path / "journal.jsonl", "about")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidParameter, match="cannot be read"):
        Journal(tmp_path / "fifo", "about")


def test_a_new_search_replaces_no_file_that_is_of_none(tmp_path: Path):
    (tmp_path / "notes.md").touch()
    check_out(tmp_path, "m-F16")
    for name in ("report.html", "catalog.toml", "m-F16-Q8_0.gguf", "m-F16-Q8_0.recipe.toml"):
        (tmp_path / name).touch()
        with pytest.raises(InvalidParameter, match="is there already, and no search to go on with"):
            check_out(tmp_path, "m-F16")
        (tmp_path / name).unlink()
    (tmp_path / "catalog.toml").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/candidate-0123.gguf").touch()
    (tmp_path / "work/journal.jsonl").write_text("about\nmeasured\n")
    check_out(tmp_path, "m-F16")
    with work_folder(tmp_path) as work:
        assert {path.name for path in work.iterdir()} == {".lock", "journal.jsonl"}
