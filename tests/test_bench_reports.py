"""Tables of benchmarks: what a run adds to one, and rankings that agree, by table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.peers_report import (
    BEGIN,
    END,
    TITLES,
    chart,
    merged,
    read_section,
    rows_of,
    write_section,
)
from scripts.benchmarks.policies import discords, ranking, undecided


def record(workload: str, n_round: int, ours: float, theirs: float) -> dict[str, Any]:
    side = {"ttft_p50_s": 0.1, "ttft_p95_s": 0.2, "gap_p95_s": None, "failed": 0, "memory": 3e8}
    return {
        "workload": workload, "round": n_round,
        "ours": side | {"tok_s": ours}, "theirs": side | {"tok_s": theirs},
    }  # fmt: skip


def rounds(workload: str, n: int, ours: float = 50.0) -> list[dict[str, Any]]:
    return [record(workload, i, ours, 100.0) for i in range(n)]


def test_a_run_of_some_workloads_leaves_the_rows_of_the_others(tmp_path: Path):
    file = tmp_path / "results.md"
    file.write_text(f"Before.\n{BEGIN}\n{END}\nBehind.\n")
    write_section(file, rows_of(rounds("one", 5) + rounds("eight", 5) + rounds("long", 1)))
    before = read_section(file)
    assert list(before) == [TITLES["one"], TITLES["eight"], TITLES["long"]]
    new = rows_of(rounds("eight", 1, 90) + rounds("long", 2, 90) + rounds("copy", 1))
    write_section(file, merged(before, new, replaces=False))
    after = read_section(file)
    assert after[TITLES["one"]] == before[TITLES["one"]]
    assert after[TITLES["eight"]] == before[TITLES["eight"]], "of five rounds, not of one"
    assert after[TITLES["long"]] == new[TITLES["long"]]
    assert list(after) == [TITLES[name] for name in ("one", "eight", "long", "copy")]
    assert merged(before, new, replaces=True)[TITLES["eight"]] == new[TITLES["eight"]]
    assert file.read_text().startswith("Before.\n") and file.read_text().endswith("\nBehind.\n")


def test_a_table_has_its_place_in_the_file(tmp_path: Path):
    file = tmp_path / "results.md"
    file.write_text("No marks.\n")
    with pytest.raises(SystemExit, match="add them where the table belongs"):
        read_section(file)


def test_the_chart_is_drawn_of_the_whole_table(tmp_path: Path):
    pytest.importorskip("matplotlib")
    heights = []
    for names in (["one"], ["one", "eight", "long"]):
        png = tmp_path / "peers.png"
        chart(rows_of([one for name in names for one in rounds(name, 2)]), png)
        data = png.read_bytes()
        assert data.startswith(b"\x89PNG")
        heights.append(int.from_bytes(data[20:24], "big"))
    assert heights[0] < heights[1]


def test_rankings_differ_by_pairs_and_rounds_may_not_decide_them():
    rates = {
        "a": [{"tok_s": 3.0}, {"tok_s": 3.1}],
        "b": [{"tok_s": 2.0}, {"tok_s": 0.5}],
        "c": [{"tok_s": 1.0}, {"tok_s": 1.5}],
    }
    real = ranking({"a": 3.0, "b": 1.3, "c": 1.2}, more_is_better=True)
    assert real == ["a", "b", "c"]
    assert ranking({"a": 3.0, "b": 1.3, "c": 1.2}, more_is_better=False) == ["c", "b", "a"]
    assert discords(real, ["b", "a", "c"]) == {frozenset("ab")}
    assert discords(real, real) == set()
    assert undecided(rates, "tok_s") == {frozenset("bc")}
