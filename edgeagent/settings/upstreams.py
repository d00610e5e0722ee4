"""`[[routing.upstreams]]`: engines elsewhere that may answer. Without a table nothing is ever sent."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from edgeagent.settings.environment import credential
from edgeagent.settings.route_rules import RouteName, Texts
from edgeagent.settings.settings_table import ModelName, SettingsTable

Repeats = Literal["refused", "broken", "silent"]
PrivacyClass = Literal["site", "any"]
CredentialName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class UpstreamSettings(SettingsTable):
    """One engine with OpenAI's API: llama-server, vLLM, another edgeagent."""

    name: RouteName = Field(description="name in logs, audit and metrics")
    url: str = Field(
        max_length=500, description="address of its API, such as https://10.0.0.5:8443/v1"
    )
    models: dict[ModelName, ModelName] = Field(
        min_length=1,
        max_length=32,
        description='names of its models here and there: { big = "Qwen3-8B" }; several upstreams may have a '
        "model of the same name here",
    )
    keys: Texts = Field(
        description='ids or owners of the API keys whose requests may be sent there; "*": all'
    )
    privacy: list[PrivacyClass] = Field(
        default=["any"],
        min_length=1,
        description='privacy classes of the requests that may be sent there ("site", "any"); '
        '"local" never may',
    )
    ca_file: Path | None = Field(
        default=None,
        description="certificates (PEM) that its certificate must descend from; default: those of the system",
    )
    key_file: Path | None = Field(default=None, description="file with the API key for it")
    credential: CredentialName | None = Field(
        default=None, description="systemd credential with the API key for it"
    )
    allow_plain_http: bool = Field(
        default=False,
        description="allow http:// to another machine; everything can be read on the way",
    )
    connect_timeout_s: float = Field(
        default=5.0, gt=0, le=120, description="time limit for a connection, and for a health check"
    )
    timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="longest silence before and within an answer"
    )
    max_answer_s: float = Field(
        default=600.0, gt=0, le=86_400, description="time limit for a whole answer"
    )
    max_concurrent: int = Field(
        default=16, ge=1, le=1024, description="requests at once; further ones wait here"
    )
    breaker_failures: int = Field(
        default=3, ge=1, le=1000, description="failures in a row that open the breaker"
    )
    breaker_open_s: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="time for which it stays open; then a health check comes before the next request",
    )
    repeats: Repeats = Field(
        default="broken",
        description='when another engine is asked, as long as the client has seen nothing: "refused" where '
        'this one cannot have begun, "broken" also where the connection ended without an answer, "silent" '
        "also after a timeout, an error or nonsense, where it may be computing still",
    )

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address begins with https:// (or http://) and a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address has no password: use key_file or credential")
        if parts.query or parts.fragment:
            raise ValueError("an address ends with its path, such as /v1")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("an address has printable ASCII characters only")
        parts.port  # noqa: B018  raises ValueError for a port out of range
        return url.rstrip("/")

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.key_file is not None and self.credential is not None:
            raise ValueError("key_file and credential are both set: keep one")
        is_plain = self.url.startswith("http:")
        if is_plain and not self.allow_plain_http and not self.is_on_this_machine:
            raise ValueError(
                "http:// to another machine can be read on the way: use https://, or set "
                "allow_plain_http = true"
            )
        return self

    @property
    def key_path(self) -> Path | None:
        """The file of its API key; None without one, or where the service has no such credential."""
        return self.key_file or (credential(self.credential) if self.credential else None)

    @property
    def is_on_this_machine(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        with suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
        return host == "localhost"
