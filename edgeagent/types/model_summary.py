"""A summary of an installed model for listings."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.types.engine_config import Task
from edgeagent.types.template import TemplateFacts


@dataclass(frozen=True)
class ModelSummary:
    """One installed model. `modified_s` in Unix seconds; 0, "" and None for unknown values."""

    id: str
    modified_s: float
    size_bytes: int
    sha256: str
    family: str
    quant: str
    n_params: int
    licence: str
    task: Task
    template: TemplateFacts | None = None
