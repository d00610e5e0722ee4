"""`[http]`: the listening address, and the limits of requests and connections."""

from __future__ import annotations

from pydantic import Field

from edgeagent.settings.settings_table import NonEmpty, SettingsTable


class HttpSettings(SettingsTable):
    host: NonEmpty = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8484, ge=0, le=65535, description="port to listen on; 0 picks a free one"
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="host names to accept, besides loopback and the listening address",
    )
    allowed_origins: list[str] = Field(
        default_factory=list, description="browser origins that may call the API"
    )
    allow_plain_http: bool = Field(
        default=False,
        description="allow a listening address other than loopback; put a TLS proxy in front, because keys "
        "are sent in the clear",
    )
    max_body_bytes: int = Field(
        default=4 << 20, ge=1024, le=1 << 30, description="size limit of a request body"
    )
    max_bodies_bytes: int = Field(
        default=12 << 20,
        ge=1024,
        le=1 << 34,
        description="memory for the request bodies of all connections; at least max_body_bytes",
    )
    max_header_bytes: int = Field(
        default=64 << 10, ge=4096, le=1 << 20, description="size limit of a request head"
    )
    header_timeout_s: float = Field(
        default=15.0, gt=0, le=600, description="time limit for receiving a request head"
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="longest pause allowed while receiving a request body",
    )
    write_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="close the connection of a client that reads nothing for this long",
    )
    max_connections: int = Field(
        default=512, ge=4, le=65_536, description="limit of open connections"
    )
    shutdown_grace_s: float = Field(
        default=5.0,
        ge=0,
        le=60,
        description="time that running answers get to finish when the daemon stops",
    )
    ping_interval_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="send a comment in a stream that has been silent for this long",
    )
