"""The plot of a report: round numbers at its axes, every point, no label over another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeagent.optimize.plot import decades, plot, ticks
from edgeagent.optimize.search import SearchResult
from edgeagent.optimize.targets import Measured


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (83.7, 149.3, [90, 100, 110, 120, 130, 140]),
        (-0.01, 0.11, [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (1130, 1610, [1200, 1300, 1400, 1500, 1600]),
    ],
)
def test_an_axis_has_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_logarithmic_axis_has_powers_and_their_parts_where_there_is_room():
    assert decades(-2.1, -0.9) == pytest.approx([0.01, 0.02, 0.05, 0.1])
    assert decades(-5.0, 0.0) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])


def test_every_candidate_is_drawn_and_labels_keep_apart():
    crowd = [Measured(f"candidate-{i}", 1000 + i, 0.01 * (i + 1), 0.9, 9.0, 50.0) for i in range(9)]
    lossless = Measured("lossless", 2000, 0.0, 1.0, 9.0, 40.0)
    result = SearchResult(Path("m.gguf"), Path("m.gguf"), [*crowd, lossless], crowd[0], {})
    drawn = plot(result, "file, MB", lambda one: one.n_bytes / 1e6, 0.0015, 0.05)
    assert all(f"<title>{one.name}</title>" in drawn for one in result.measured)
    assert drawn.count("stroke-dasharray") == 2 and drawn.count('r="8"') == 1
    labels = re.findall(r'x="(\d+)" y="(\d+)" text-anchor="start">(candidate-\d|lossless)', drawn)
    assert {"candidate-0", "lossless"} <= {name for _, _, name in labels}
    lines = [(int(x), int(y)) for x, y, _ in labels]
    assert not [
        (a, b)
        for a in lines
        for b in lines
        if a < b and abs(a[0] - b[0]) < 60 and abs(a[1] - b[1]) < 11
    ]
    assert plot(SearchResult(Path("m"), Path("m"), [], None, {}), "x", lambda one: 1.0) == ""
