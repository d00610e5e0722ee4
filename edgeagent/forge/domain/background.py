"""Everyday texts that belong to no company's intents, for domains that bring few texts of their own without
one. Without any, whatever is said is taken for some intent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeagent.forge.domain.trunk_file import Floats

_FILE = Path(__file__).parent / "background.txt"
ENOUGH = 50  # texts of a domain's own, beside which these are not used


def background() -> list[str]:
    return _FILE.read_text(encoding="utf-8").splitlines()


def far_from(states: Floats, others: Floats, share: float = 0.8) -> list[int]:
    """The numbers of the `share` of `others` that are least like any of `states`: a domain may be about
    just what some of these texts ask."""
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (states, others)
    ]
    nearest = (unit[1] @ unit[0].T).max(1)
    return sorted(int(i) for i in np.argsort(nearest, kind="stable")[: round(share * len(others))])
