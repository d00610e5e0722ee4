"""The decisions of this device as training and replay read them: features, probabilities, outcome and cost.

Pure: rows of `store/decisions.py` in, decisions out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeagent.errors import InvalidParameter
from edgeagent.routing.feature_record import unpacked
from edgeagent.routing.text_features import TextFeatures

LABELS = {"right": 1.0, "partly": 0.5, "wrong": 0.0}
COSTS = ("tokens", "latency_ms", "busy_ms", "energy_j")
_OK = 200


@dataclass(frozen=True)
class LoggedDecision:
    """One decision. `outcome` from 0 (wrong) to 1 (right); None: nobody has said. `chances`: the probability
    of each candidate; None where the choice was not open. `costs` of a request that has succeeded. `owner`
    of its API key."""

    chosen: str
    answered: str
    default_model: str
    reason: str
    features: TextFeatures | None = None
    chances: Mapping[str, float] | None = None
    domain: str | None = None
    outcome: float | None = None
    costs: Mapping[str, float] | None = None
    owner: str = ""


def logged(rows: Iterable[Mapping[str, Any]]) -> list[LoggedDecision]:
    """A record of features that this version cannot read counts as none."""
    return [
        LoggedDecision(
            chosen=row["chosen"],
            answered=row["answered"],
            default_model=row["default_model"],
            reason=row["reason"],
            features=_features(row["features"]),
            chances=json.loads(row["chances"]) if row["chances"] is not None else None,
            domain=row["domain"],
            outcome=outcome_of(row["rating"], row["label"], bool(row["is_corrected"])),
            costs=_costs(row),
            owner=row["owner"],
        )
        for row in rows
    ]


def outcome_of(rating: int | None, label: str | None, is_corrected: bool) -> float | None:
    """How good an answer was by its feedback: the label, else the thumb; a correction alone says wrong."""
    if label in LABELS:
        return LABELS[label]
    if rating:
        return 1.0 if rating > 0 else 0.0
    return 0.0 if is_corrected else None


def _features(record: bytes | None) -> TextFeatures | None:
    try:
        return unpacked(record) if record is not None else None
    except InvalidParameter:
        return None


def _costs(row: Mapping[str, Any]) -> dict[str, float] | None:
    if row["status"] != _OK:
        return None
    found = {
        "tokens": row["n_prompt"] + row["n_generated"],
        "latency_ms": row["total_ms"],
        "busy_ms": row["total_ms"] - (row["queue_ms"] or 0.0),
        "energy_j": row["energy_j"],
    }
    return {name: float(value) for name, value in found.items() if value is not None}
