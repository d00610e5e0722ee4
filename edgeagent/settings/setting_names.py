"""The names of settings: `engine.n_ctx` in code and errors, `[engine] n_ctx` in a file and
`EDGEAGENT_ENGINE__N_CTX` in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_origin

from pydantic.fields import FieldInfo

from edgeagent.settings.environment import ENV_PREFIX
from edgeagent.settings.old_names import OLD_NAMES
from edgeagent.settings.settings import Settings
from edgeagent.settings.settings_table import SettingsTable


def _fields(table: type[SettingsTable], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in table.model_fields.items():
        yield prefix + name, field
        if _is_table(field):
            yield from _fields(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, SettingsTable)


FIELDS = {name: field for name, field in _fields(Settings) if not _is_table(field)}
TABLES = {name for name, field in _fields(Settings) if _is_table(field)}


def in_file(name: str) -> str:
    """A setting as a configuration file has it: `[engine] n_ctx`."""
    table, _, key = name.rpartition(".")
    return f"[{table}] {key}" if table else key


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper().replace(".", "__")


# By the name in use today and by the old one.
VARIABLES = {variable(name): name for name in FIELDS} | {
    variable(old): new for old, new in OLD_NAMES.items()
}


def is_json(name: str) -> bool:
    """Whether a variable gives this setting as JSON: lists and tables."""
    return get_origin(FIELDS[name].annotation) in (list, dict)


def nearest(name: str) -> str | None:
    """The setting whose present or old name, or its part within the table, is most like `name`."""
    spelled: dict[str, str] = {new.rpartition(".")[2]: new for new in reversed(FIELDS)}
    spelled |= OLD_NAMES | {new: new for new in FIELDS} | {table: f"[{table}]" for table in TABLES}
    import difflib  # takes 0.2 MB, for names that are wrong

    match = difflib.get_close_matches(name, list(spelled), n=1, cutoff=0.5)
    return spelled[match[0]] if match else None


def nearest_variable(name: str) -> str | None:
    import difflib

    match = difflib.get_close_matches(name, list(VARIABLES), n=1, cutoff=0.5)
    return variable(VARIABLES[match[0]]) if match else None


def value_of(settings: Settings, name: str) -> object:
    """The value of the setting called `name`."""
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
