"""`[models]`: where models are, and which one answers by default."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edgeagent.settings.settings_table import ModelName, NonEmpty, SettingsTable


class ModelsSettings(SettingsTable):
    dir: Path | None = Field(
        default=None,
        description="directory of installed models; default: `models` in the state directory",
    )
    bundled_dir: Path | None = Field(
        default=None,
        description="directory of the bundled models; default: the models that come with edgeagent",
    )
    default: NonEmpty = Field(
        default="edge-assistant-s",
        description="model that answers to the name `default`; if it is not installed, its larger model",
    )
    aliases: dict[ModelName, ModelName] = Field(
        default_factory=dict,
        description="other names of installed models; a name may be a pattern such as gpt-4o*",
    )
    requantize_divergence: float = Field(
        default=0.05,
        ge=0,
        le=10,
        description="`models install` replaces a model by a faster tensor type only up to this KL divergence "
        "to what was installed (mean of all tokens of a text, in nats)",
    )
    preload: bool = Field(default=True, description="load the default model at start")
