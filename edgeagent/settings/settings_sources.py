"""The layers that settings come from, weakest first: defaults, device profile, configuration file,
EDGEAGENT_* variables, flags.

Every value keeps the layer it came from (`ResolvedSettings.origins`), which `edgeagent doctor` prints.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeagent.errors import SettingsError
from edgeagent.settings.environment import API_KEY, ENV_PREFIX, variables
from edgeagent.settings.old_names import OLD_NAMES
from edgeagent.settings.setting_names import (
    FIELDS,
    TABLES,
    VARIABLES,
    in_file,
    is_json,
    nearest,
    nearest_variable,
    variable,
)
from edgeagent.settings.settings import Settings

MAX_SHOWN = 200  # characters of a wrong value
SYSTEM_CONFIG = Path("/etc/edgeagent/edgeagent.toml")
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class Renaming:
    """An old name that a layer still uses. `place` is the file, None for a variable."""

    old: str
    new: str
    place: str | None

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place is not None else ""
        return f"{place}{self.old} is now called {self.new}; the old name still works."


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings with the origin of each value: "default", "profile NAME", a path, a variable or "flag".

    `origins` is keyed by names such as `engine.n_ctx`; `renamings` are the old names in use.
    """

    settings: Settings
    origins: Mapping[str, str]
    renamings: tuple[Renaming, ...] = ()


@dataclass
class _Layer:
    """Values by the names of settings; `spelled` has the name that the user wrote for each."""

    values: dict[str, Any] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    renamings: list[Renaming] = field(default_factory=list)

    def set(self, name: str, value: Any, spelled: str, origin: str, keep: str) -> None:
        """Raises: SettingsError for a setting that the layer already has under its other name."""
        if name in self.values:
            raise SettingsError(
                f"{self.spelled[name]} and {spelled} (from {origin}) are the same setting: keep {keep} only."
            )
        self.values[name], self.spelled[name], self.origins[name] = value, spelled, origin


def resolve(
    *,
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    profile: tuple[str, Mapping[str, Any]] | None = None,
) -> ResolvedSettings:
    """Merge all layers and check the result.

    `flags` with value None are absent; their names are those of the command line (`models_dir`) or of
    settings (`models.dir`). `config` None reads the system's file if there is one. `profile` is a name and
    the values it sets.

    Raises: SettingsError for an unknown key, a setting given twice, a wrong value, an unreadable file.
    """
    tree: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    renamings: list[Renaming] = []
    for layer in _layers(flags or {}, config, profile):
        for name, value in layer.values.items():
            _put(tree, name, value)
        origins |= layer.origins
        renamings += layer.renamings
    try:
        settings = Settings(**tree)
    except ValidationError as exc:
        raise SettingsError(_explain(exc, origins)) from exc
    return ResolvedSettings(settings, origins, tuple(renamings))


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *tables, key = name.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[key] = value


def _layers(
    flags: Mapping[str, Any], config: Path | None, profile: tuple[str, Mapping[str, Any]] | None
) -> Iterable[_Layer]:
    if profile is not None:
        yield _from_table(profile[1], f"profile {profile[0]}")
    if config is not None or SYSTEM_CONFIG.is_file():
        yield _from_file(config or SYSTEM_CONFIG)
    yield _from_environment()
    yield _from_table({key: value for key, value in flags.items() if value is not None}, "flag")


def _from_file(path: Path) -> _Layer:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise SettingsError(
                f"Configuration {path} has more than {MAX_CONFIG_BYTES >> 20} MiB: give a TOML file of "
                "settings with --config."
            )
        values = tomllib.loads(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"Configuration {path} cannot be read: {exc}. Give a readable file with --config."
        ) from exc
    except RecursionError as exc:
        raise SettingsError(
            f"Configuration {path} nests values too deeply: write it with fewer levels."
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(
            f"Configuration {path} is not valid TOML: {exc}. Correct that line."
        ) from exc
    layer = _from_table(values, str(path))
    layer.renamings += [
        Renaming(old, in_file(name), str(path))
        for name, old in layer.spelled.items()
        if old != in_file(name)
    ]
    return layer


def _from_table(values: Mapping[str, Any], origin: str) -> _Layer:
    layer = _Layer()
    for spelled, name, value in _named(values, origin):
        layer.set(name, value, spelled, origin, in_file(name))
    return layer


def _named(
    values: Mapping[str, Any], origin: str, prefix: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Each value of a table with its name as it is written and the name of its setting.

    Raises: SettingsError for a key that is no setting, and for a value in place of a table.
    """
    for key, value in values.items():
        name = prefix + key
        if name in FIELDS:
            yield in_file(name), name, value
        elif name in TABLES and isinstance(value, Mapping):
            yield from _named(value, origin, f"{name}.")
        elif name in OLD_NAMES:
            yield name, OLD_NAMES[name], value
        elif name in TABLES:
            raise SettingsError(
                f"Setting {name} = {value!r} (from {origin}) is a table: write [{name}] and its settings "
                "below it."
            )
        else:
            near = nearest(name)
            hint = f"; did you mean {near}?" if near else ""
            raise SettingsError(
                f"Unknown setting {name!r} in {origin}{hint}. `edgeagent doctor` lists them all."
            )


def _from_environment() -> _Layer:
    layer = _Layer()
    for spelled, text in variables().items():
        upper = spelled.upper()
        name = VARIABLES.get(upper)
        if name is None:
            if spelled.startswith(ENV_PREFIX) and spelled != API_KEY:
                near = nearest_variable(spelled)
                hint = f"; did you mean {near}?" if near else ""
                raise SettingsError(f"Unknown variable {spelled}{hint}. Unset or correct it.")
        elif text:
            value = _from_json(name, text, spelled) if is_json(name) else text
            layer.set(name, value, spelled, spelled, variable(name))
            if upper != variable(name):
                layer.renamings.append(Renaming(spelled, variable(name), None))
    return layer


def _from_json(name: str, text: str, spelled: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise SettingsError(
            f"Setting {name} = {text!r} (from {spelled}) is not JSON: {exc}. Write lists as "
            '["a", "b"] and tables as {"a": "b"}.'
        ) from exc


def _explain(exc: ValidationError, origins: Mapping[str, str]) -> str:
    """The first wrong value, with its layer."""
    first = exc.errors(include_url=False)[0]
    parts = [str(part) for part in first["loc"]]
    paths = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    name = next((path for path in paths if path in FIELDS), "settings")
    origin = origins.get(name, "default")
    place = _place(name, parts)
    if first["type"] == "extra_forbidden":
        return f"Setting {place} (from {origin}) has no such key: correct its name, or remove it."
    shown = repr(first["input"])
    if len(shown) > MAX_SHOWN:
        shown = shown[:MAX_SHOWN] + "..."
    return f"Setting {place} = {shown} (from {origin}): {first['msg'].lower()}. Change it there."


def _place(name: str, parts: list[str]) -> str:
    """A setting, or the entry of a list of tables in it, such as `routing.rules[2].match.time`; counted from
    0."""
    inner = parts[len(name.split(".")) :] if name != "settings" else []
    return name + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in inner)
