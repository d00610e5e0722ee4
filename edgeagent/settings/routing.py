"""`[routing]`: when the larger model answers, and what the assistant model may do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class RoutingSettings(SettingsTable):
    escalate: bool = Field(
        default=True,
        description="answer a chat that names no model with the larger model when the default model is an "
        "assistant model that abstains; a request may override this",
    )
    assistant_calls: Literal["named", "always", "never"] = Field(
        default="named",
        description="when an assistant model answers with a tool call although the client sent no tools: "
        '"named" if the request names the model (otherwise it describes the call in words), "always" or '
        '"never"; a request overrides this with `metadata.calls`',
    )
    assistant_tools: Literal["off"] | Path | None = Field(
        default=None,
        description="TOML file that maps sentences to the tools of clients, for example of Home Assistant; "
        'default: the bundled file; "off": no mapping',
    )
