"""`[api]`: what clients may ask for, and how requests that go too far are handled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class ApiSettings(SettingsTable):
    first_key: Literal["anyone-local", "command-line"] = Field(
        default="anyone-local",
        description='who may make the first API key: "anyone-local" allows every local client, also by POST '
        '/admin/keys; "command-line" allows `edgeagent keys create` only',
    )
    clamp_max_tokens: bool | None = Field(
        default=None,
        description="lower a max_tokens that does not fit into the context instead of refusing the request; "
        "default: on for /v1/messages and /api, off for the other endpoints",
    )
    completions_parse_special: bool = Field(
        default=False,
        description="read the names of special tokens in prompts of /v1/completions as those tokens; a "
        "request overrides this with `parse_special`",
    )
    allow_grammars: bool = Field(
        default=False,
        description="let clients constrain answers by a regular expression or a Lark grammar",
    )

    def clamps(self, *, by_default: bool) -> bool:
        """Whether to lower a max_tokens that does not fit, on an endpoint that does so `by_default`."""
        return by_default if self.clamp_max_tokens is None else self.clamp_max_tokens
