"""Texts and outcomes of which it is known what decides them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

EASY = ["set a timer", "what time is it", "turn on the lamp", "play some music", "stop the alarm"]
HARD = ["prove the theorem", "derive the formula", "integrate the function", "solve the equation"]


def outcomes(n: int, seed: int = 0) -> list[tuple[str, int, int]]:
    """Text, small model right, large model right: the small one fails on most hard texts."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        is_hard = number % 2 == 1
        phrase = str(rng.choice(HARD if is_hard else EASY))
        text = f"{phrase} please, number {rng.integers(1000)}"
        rows.append((text, int(rng.random() > (0.8 if is_hard else 0.1)), int(rng.random() > 0.1)))
    return rows


def write(
    path: Path, rows: list[tuple[str, int, int]], small: str = "small", large: str = "large"
) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", small, large])
        writer.writerows((text, bool(a), bool(b)) for text, a, b in rows)
    return path
