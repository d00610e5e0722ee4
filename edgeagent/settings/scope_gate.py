"""`[routing.scope]`: when a text counts as out of an assistant model's scope."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class ScopeSettings(SettingsTable):
    gate: bool = Field(
        default=True,
        description="before the larger model may take over, judge answers of an assistant model by its scope "
        "gate too, where it has one; false: by the probability alone",
    )
    max_lost: float = Field(
        default=0.0075,
        ge=0,
        le=0.05,
        allow_inf_nan=False,
        description="share of its right answers that a gate may hand on to the larger model; more finds more "
        "texts out of scope",
    )
    vectors: bool = Field(
        default=True,
        description="where the words leave it in doubt, ask the sentence encoder of the assistants, too, "
        "which is loaded into memory that is free; false: the words decide",
    )
    vector_timeout_s: float = Field(
        default=0.3,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="longest wait for the encoder, after which the words decide",
    )
