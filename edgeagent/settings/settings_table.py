"""The base class of all settings tables, and the types that several of them use."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

NonEmpty = Annotated[str, StringConstraints(min_length=1)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class SettingsTable(BaseModel):
    """One frozen table of the configuration. Names end with the unit, types hold the bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
