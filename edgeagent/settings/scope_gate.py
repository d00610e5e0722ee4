"""`[routing.scope]`: when a text counts as out of an assistant model's scope."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import ModelName, SettingsTable


class ScopeSettings(SettingsTable):
    gate: bool = Field(
        default=True,
        description="before the larger model may take over, judge answers of an assistant model by its scope "
        "gate too, where it has one; false: by the probability alone",
    )
    max_lost: float = Field(
        default=0.009,
        ge=0,
        le=0.05,
        allow_inf_nan=False,
        description="share of its right answers that a gate may hand on to the larger model; more finds more "
        "texts out of scope",
    )
    embedding_model: ModelName | None = Field(
        default=None,
        description="sentence-embedding model that is asked where the words leave it in doubt, the one that "
        "the gate was made with (all-minilm-l6-v2 for the bundled gates); default: none",
    )
    embedding_timeout_s: float = Field(
        default=0.3,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="longest wait for the embedding model, after which the words decide",
    )
