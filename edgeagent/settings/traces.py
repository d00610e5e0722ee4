"""`[traces]`: spans of requests for an OpenTelemetry collector."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from edgeagent.settings.settings_table import SettingsTable


class TracesSettings(SettingsTable):
    endpoint: str | None = Field(
        default=None,
        description="URL of an OTLP/HTTP collector that gets a span of each request, for example "
        "http://127.0.0.1:4318/v1/traces; default: none, nothing is sent. Needs edgeagent[traces]",
    )
    ca_file: Path | None = Field(
        default=None,
        description="certificate authorities (PEM) that the collector's certificate must come from; default: "
        "those of the system",
    )
    headers_file: Path | None = Field(
        default=None,
        description="file of headers for the collector, a `name: value` each line: put its credentials there",
    )
    sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="part of the requests that are sent, where the client does not decide by `traceparent`",
    )
    timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="how long the collector may take for a batch of spans"
    )

    interval_s: float = Field(
        default=2.0, ge=0.05, le=60, description="how often the spans that are waiting are sent"
    )

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, endpoint: str | None) -> str | None:
        if endpoint is None or endpoint == "":
            return None
        try:
            parts = urlsplit(endpoint)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or parts.username is not None:
            raise ValueError(
                "must be a URL like http://127.0.0.1:4318/v1/traces, without a user name in it"
            )
        return endpoint
