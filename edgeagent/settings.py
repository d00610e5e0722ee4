"""The settings of one daemon: built once, frozen, passed down.

Layers, weakest first: defaults, device profile, configuration file, EDGEAGENT_* variables, flags.
Every value remembers the layer it came from (`Resolved.origins`), which `edgeagent doctor` prints.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from edgeagent.environment import (
    API_KEY,
    ENV_PREFIX,
    default_key_file,
    default_state_dir,
    variables,
)
from edgeagent.errors import SettingsError

SYSTEM_CONFIG = Path("/etc/edgeagent/edgeagent.toml")

NonEmpty = Annotated[str, StringConstraints(min_length=1)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]

BUNDLES = ".bundles"  # directory in the models directory


class Settings(BaseSettings):
    """Every setting, with its unit in its name and its bounds in its type."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_ignore_empty=True
    )

    # where
    host: NonEmpty = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8484, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    state_dir: Path = Field(
        default_factory=default_state_dir, description="what the daemon keeps between starts"
    )
    models_dir: Path | None = Field(
        None, description="where installed models live; default: models/ in the state directory"
    )
    shipped_models_dir: Path | None = Field(
        None,
        description="where models lie that nobody installed; default: those of edgeagent itself",
    )
    offline: bool = Field(False, description="refuse everything that would need a network")
    profile: str | None = Field(
        None, description="device profile by name; default: matched to the device"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )

    # models
    default_model: NonEmpty = Field(
        "edge-assistant-s",
        description="model behind the name `default`; where it is not installed, its larger one",
    )
    escalate: bool = Field(
        True,
        description="a chat that names no model is answered by the default's larger one where the default "
        "is an assistant model that abstains; a request may say otherwise",
    )
    assistant_calls: Literal["named", "always", "never"] = Field(
        "named",
        description="what an assistant model does where the client offers no tools: it makes the call where "
        "it is named as the model and tells of it in words where it is the default, always makes it, or "
        "never; a request's `metadata.calls` says otherwise",
    )
    assistant_tools: Literal["off"] | Path | None = Field(
        None,
        description="TOML file that maps sentences to clients' tools, such as Home Assistant's; default: "
        'the shipped one; "off": none',
    )
    model_aliases: dict[ModelName, ModelName] = Field(
        default_factory=dict,
        description="names that stand for installed models, with patterns such as gpt-4o*; in the file the "
        "table [models.aliases]",
    )
    preload: bool = Field(True, description="load the default model at start")
    pinned_models: list[str] = Field(
        default_factory=list, description="models that are never unloaded once loaded"
    )
    idle_unload_s: float = Field(
        900.0,
        ge=0,
        le=1e9,
        description="idle models other than the default go after this; 0: never",
    )
    ram_budget_bytes: int | None = Field(
        None, ge=1, description="memory all workers together may use; default: from the profile"
    )

    # engine
    n_ctx: int = Field(
        4096, ge=256, le=1 << 20, description="KV cells of a model, all slots together"
    )
    n_seq: int = Field(8, ge=1, le=64, description="sequences decoded in one batch")
    n_prefixes: int = Field(24, ge=0, le=128, description="idle prefixes kept in the KV cache")
    n_batch: int = Field(512, ge=32, le=4096, description="most tokens of one step")
    n_threads: int | None = Field(
        None, ge=1, le=256, description="threads of one engine; default: usable cores"
    )
    kv_type: Literal["f16", "q8_0", "q4_0"] = Field(
        "f16", description="type of stored keys and values"
    )
    flash_attention: Literal["auto", "on", "off"] = Field("auto", description="flash attention")
    reproducible: bool = Field(
        False, description="the same text whatever runs beside it; about a tenth slower"
    )
    step_budget_ms: float = Field(
        150.0, ge=5, le=10_000, description="longest a prompt chunk may hold up running answers"
    )
    stream_interval_ms: float = Field(
        20.0,
        ge=0,
        le=1000,
        description="pause between pieces of a stream at least, longer with many; 0: every token",
    )
    default_max_tokens: int = Field(
        1024, ge=1, le=1 << 20, description="answer length where a request names none"
    )
    clamp_max_tokens: bool | None = Field(
        None,
        description="bring an answer length for which the context has no room down to what there is room "
        "for, instead of refusing it; default: on below /v1/messages and /api, off elsewhere",
    )
    queue_limit: int = Field(64, ge=0, le=10_000, description="requests that may wait for a model")
    queue_timeout_s: float = Field(60.0, gt=0, le=3600, description="longest wait in the queue")
    template_timeout_s: float = Field(
        2.0, gt=0, le=60, description="longest a chat template may run"
    )
    grammar_timeout_s: float = Field(
        2.0, gt=0, le=60, description="longest that compiling a schema that is not plain may take"
    )
    allow_grammars: bool = Field(
        False, description="clients may ask for answers by a regular expression or a Lark grammar"
    )

    completions_parse_special: bool = Field(
        False,
        description="names of special tokens in the prompts of /v1/completions are those tokens; a request "
        "may say otherwise with `parse_special`",
    )

    measure_when_idle: bool = Field(
        True, description="measure a device that has not been measured, once it has nothing to do"
    )

    # worker care
    load_timeout_s: float = Field(180.0, gt=0, le=3600, description="longest a model may load")
    hang_timeout_s: float = Field(
        60.0, gt=1, le=3600, description="a worker silent for this long is ended and restarted"
    )
    breaker_deaths: int = Field(
        5,
        ge=1,
        le=10_000,
        description="worker deaths without an answer between them that open the breaker",
    )
    breaker_window_s: float = Field(
        60.0, gt=0, le=86_400, description="how long the breaker counts deaths and then stays open"
    )

    # store
    store: Literal["on", "off"] = Field(
        "on", description='"off": nothing of any request is kept, neither content nor counts'
    )
    search: bool = Field(False, description="index stored content for search")
    request_flush_s: float = Field(
        10.0, ge=0, le=3600, description="counts and times of requests are written this often"
    )
    store_encryption: Literal["on", "off"] = Field(
        "on", description="encrypt the database and its backups; chosen before the first start"
    )
    store_key_file: Path | None = Field(
        None,
        description="key of the store, made at the first start; default: outside the state directory",
    )
    store_passphrase_file: Path | None = Field(
        None, description="derive the key of the store from the passphrase in this file"
    )
    store_group_window_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="how long a write waits for others to share its commit: spares flash",
    )
    store_reserve_bytes: int = Field(
        32 << 20,
        ge=0,
        le=1 << 40,
        description="room on the disk that ordinary writes leave free",
    )
    store_backup_hours: float = Field(
        24.0, ge=0, le=10_000, description="a verified backup is taken this often; 0: never"
    )
    store_backups: int = Field(3, ge=1, le=1000, description="verified backups that are kept")

    first_key: Literal["anyone-local", "command-line"] = Field(
        "anyone-local",
        description="who may make the first API key: whoever is on this machine, also by POST "
        "/admin/keys, or the command line alone",
    )

    prefix_store_bytes: int = Field(
        512 << 20,
        ge=0,
        le=1 << 44,
        description="what models have computed of stored responses may take this much of the disk, so "
        "that they go on at once after a restart; 0: it is not kept",
    )
    prefix_min_tokens: int = Field(
        256, ge=1, le=1 << 20, description="shorter dialogues are computed anew instead"
    )

    # how long things are kept
    retention_content_days: float = Field(
        90.0, ge=0, le=36_500, description="what items and responses say; 0: for ever"
    )
    retention_responses_days: float = Field(
        365.0,
        ge=0,
        le=36_500,
        description="stored responses and conversations, from their last change; 0: for ever",
    )
    retention_transcripts_days: float = Field(
        90.0, ge=0, le=36_500, description="transcripts with their segments; 0: for ever"
    )
    retention_feedback_days: float = Field(
        365.0, ge=0, le=36_500, description="feedback; 0: for ever"
    )
    retention_requests_days: float = Field(
        90.0, ge=0, le=36_500, description="route, times and token counts of requests; 0: for ever"
    )
    retention_audit_days: float = Field(
        2_192.0,
        ge=0,
        le=36_500,
        description="the audit; six years, as 45 CFR 164.316 asks; 0: for ever",
    )
    audit_anchor: Path | None = Field(
        None,
        description="file outside the database with the head of the audit, best on another disk; "
        "default: audit.anchor in the state directory",
    )
    audit_reads: bool = Field(
        False,
        description="audit each read of stored rows where several keys share their owner",
    )

    # HTTP
    max_body_bytes: int = Field(4 << 20, ge=1024, le=1 << 30, description="largest request body")
    max_bodies_bytes: int = Field(
        12 << 20,
        ge=1024,
        le=1 << 34,
        description="request bodies in memory, all together; at least max_body_bytes",
    )
    max_header_bytes: int = Field(64 << 10, ge=4096, le=1 << 20, description="largest request head")
    header_timeout_s: float = Field(
        15.0, gt=0, le=600, description="longest a request head may take to arrive"
    )
    body_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="longest pause while a request body arrives"
    )
    write_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="longest a client may leave our answer unread"
    )
    max_connections: int = Field(512, ge=4, le=65_536, description="open connections")
    shutdown_grace_s: float = Field(
        5.0,
        ge=0,
        le=60,
        description="answers may go on this long after the daemon is told to stop",
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="host names accepted beside loopback and the bound address",
    )
    allowed_origins: list[str] = Field(
        default_factory=list, description="browser origins that may call the API"
    )
    allow_plain_http: bool = Field(
        False, description="listen beyond loopback: a TLS proxy before it keeps keys secret"
    )
    ping_interval_s: float = Field(
        10.0, gt=0, le=600, description="pause after which a silent stream sends a comment"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The layers are merged by `resolve`, which also records where each value came from.
        return (init_settings,)

    def clamps(self, *, by_default: bool) -> bool:
        """Whether too long an answer length is brought down, on an endpoint that does so `by_default`."""
        return by_default if self.clamp_max_tokens is None else self.clamp_max_tokens

    @property
    def store_dir(self) -> Path:
        return self.state_dir / "store"

    @property
    def effective_store_key_file(self) -> Path:
        return self.store_key_file or default_key_file()

    @property
    def retention_days(self) -> dict[str, float]:
        """How long each class of rows is kept."""
        return {
            "content": self.retention_content_days,
            "responses": self.retention_responses_days,
            "transcripts": self.retention_transcripts_days,
            "feedback": self.retention_feedback_days,
            "requests": self.retention_requests_days,
            "audit": self.retention_audit_days,
        }

    @property
    def effective_audit_anchor(self) -> Path:
        return self.audit_anchor or self.state_dir / "audit.anchor"

    @property
    def effective_models_dir(self) -> Path:
        return self.models_dir or self.state_dir / "models"

    @property
    def bundles_dir(self) -> Path:
        """Directory of what installed bundles brought beside models: profiles, catalogs, wheels."""
        return self.effective_models_dir / BUNDLES


@dataclass(frozen=True)
class Resolved:
    """Settings with the origin of each value: "default", "profile NAME", a path, a variable or "flag"."""

    settings: Settings
    origins: Mapping[str, str]


def resolve(
    *,
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    profile: tuple[str, Mapping[str, Any]] | None = None,
) -> Resolved:
    """Merge all layers and check the result.

    `flags` with value None are absent. `config` None reads the system's file if there is one.
    `profile` is a name and the values it sets.

    Raises: SettingsError for an unknown key, a wrong value, an unreadable file.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in _layers(flags or {}, config, profile):
        _refuse_unknown(layer, origin)
        for key, value in layer.items():
            values[key] = value
            origins[key] = f"{ENV_PREFIX}{key.upper()}" if origin == "environment" else origin
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise SettingsError(_explain(exc, origins)) from exc
    return Resolved(settings, origins)


def _layers(
    flags: Mapping[str, Any], config: Path | None, profile: tuple[str, Mapping[str, Any]] | None
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if profile is not None:
        yield f"profile {profile[0]}", profile[1]
    if config is not None:
        yield str(config), _read_toml(config)
    elif SYSTEM_CONFIG.is_file():
        yield str(SYSTEM_CONFIG), _read_toml(SYSTEM_CONFIG)
    yield "environment", _environment()
    yield "flag", {key: value for key, value in flags.items() if value is not None}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return _flat(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"Configuration {path} cannot be read: {exc}. Give a readable file with --config."
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(
            f"Configuration {path} is not valid TOML: {exc}. Correct that line."
        ) from exc


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a file by the names of settings: `[models.aliases]` is `model_aliases`."""
    models = values.get("models")
    if not isinstance(models, dict):
        return values
    inner = {f"models.{name}": value for name, value in models.items() if name != "aliases"}
    flat = {name: value for name, value in values.items() if name != "models"} | inner
    return flat | ({"model_aliases": models["aliases"]} if "aliases" in models else {})


def _environment() -> dict[str, Any]:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {API_KEY}
    for name in variables():
        if name.startswith(ENV_PREFIX) and name not in known:
            raise SettingsError(
                f"Unknown variable {name}{_nearest(name, known)}. Unset or correct it."
            )
    try:
        return EnvSettingsSource(Settings)()
    except ValueError as exc:
        raise SettingsError(
            f"An {ENV_PREFIX}* variable cannot be read: {exc}. Lists are written as JSON."
        ) from exc


def _refuse_unknown(layer: Mapping[str, Any], origin: str) -> None:
    for key in layer:
        if key not in Settings.model_fields:
            raise SettingsError(
                f"Unknown setting {key!r} in {origin}{_nearest(key, Settings.model_fields)}. "
                "`edgeagent doctor` lists them all."
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]}?" if match else ""


def _explain(exc: ValidationError, origins: Mapping[str, str]) -> str:
    first = exc.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    origin = origins.get(name, "default")
    return f"Setting {name} = {first['input']!r} (from {origin}): {first['msg'].lower()}. Change it there."
