"""A summary of an installed model for listings."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.types.engine_config import Task
from edgeagent.types.template import TemplateFacts


@dataclass(frozen=True)
class ModelSummary:
    """One model. `modified_s` in Unix seconds; 0, "" and None for unknown values."""

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


def upstream_summary(name: str) -> ModelSummary:
    """A model that answers elsewhere: nothing of it is known here but its name."""
    return ModelSummary(
        id=name, modified_s=0.0, size_bytes=0, sha256="", family="", quant="", n_params=0, licence="",
        task="generate",
    )  # fmt: skip
