"""Reads profile files: the shipped ones, overlaid by the TOML files of extra directories."""

from __future__ import annotations

import functools
import tomllib
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import msgspec

from edgeagent.device.profile import Profile
from edgeagent.errors import SettingsError

MAX_FILE_BYTES = 256 * 1024
# Names that values had before they stood in tables; profiles and bundles with them are still read.
OLD_NAMES = {
    "ram_reserved_bytes": "pool.ram_reserved_bytes",
    "ram_share": "pool.ram_share",
    "n_threads": "engine.n_threads",
    "n_ctx": "engine.n_ctx",
    "kv_type": "engine.kv_type",
    "n_seq": "engine.n_seq",
    "n_batch": "engine.n_batch",
    "latency_target_ms": "engine.step_budget_ms",
    "flash_attention": "engine.flash_attention",
    "speech_model": "speech.model",
}


def load_all(extra_dirs: Iterable[Path] = ()) -> dict[str, Profile]:
    """Every known profile by name, in reading order.

    Directories are read in order after the shipped ones; a profile replaces an earlier one with the same
    name completely. With `based_on`, omitted tables and values are taken from a profile read before it,
    which may have the same name: `based_on = "pi5-8gb"` in a new pi5-8gb.toml changes one value and keeps
    the rest. A missing directory counts as empty.

    Raises: SettingsError naming the file for invalid TOML, unknown keys (with the nearest known one),
    values of the wrong type or out of range, and two files with one name.
    """
    raw: dict[str, dict[str, object]] = {}
    profiles: dict[str, Profile] = {}
    for layer in [_shipped(), *(_files(directory) for directory in extra_dirs)]:
        lower = dict(
            raw
        )  # based_on only refers to earlier directories, so the order within one does not matter
        seen: dict[str, str] = {}
        for place, text in layer:
            table = _inherit(_parse(place, text), place, lower)
            profile = _decode(table, place)
            if profile.name in seen:
                raise SettingsError(
                    f"Profile {profile.name!r} is in {seen[profile.name]} and in {place}, but names"
                    " must be unique in a directory: rename or remove one"
                )
            seen[profile.name] = place
            # Remove it first: the profile read last must come last, which `choose` relies on.
            profiles.pop(profile.name, None)
            raw[profile.name], profiles[profile.name] = table, profile
    return profiles


def load(name: str, extra_dirs: Iterable[Path] = ()) -> Profile:
    """The profile called `name`. Raises: SettingsError with the nearest name if it does not exist."""
    profiles = load_all(extra_dirs)
    if name not in profiles:
        hint = _nearest(name, profiles) or f"one of {', '.join(sorted(profiles))}"
        raise SettingsError(
            f"Device profile {name!r} is not one of the {len(profiles)} known: use {hint}",
            param="profile",
        )
    return profiles[name]


def parse(text: str, place: str) -> Profile:
    """The profile in `text`, without `based_on`. `place` names it in errors. Raises: SettingsError."""
    return _decode(_inherit(_parse(place, text), place, {}), place)


def _shipped() -> list[tuple[str, str]]:
    folder = resources.files("edgeagent.device") / "profiles"
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [(e.name, e.read_text("utf-8")) for e in entries if e.name.endswith(".toml")]


def _files(directory: Path) -> list[tuple[str, str]]:
    found = []
    try:
        for path in sorted(directory.glob("*.toml")):
            if path.stat().st_size > MAX_FILE_BYTES:
                raise SettingsError(
                    f"Profile {path} has {path.stat().st_size} bytes, but at most"
                    f" {MAX_FILE_BYTES} are allowed: remove what does not belong there"
                )
            found.append((str(path), path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"Profiles in {directory} cannot be read ({error}): they must be readable UTF-8 files,"
            " correct their permissions or encoding"
        ) from error
    return found


def _parse(place: str, text: str) -> dict[str, object]:
    try:
        return _with_tables(tomllib.loads(text), place)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"Profile {place} is not TOML ({error}): correct that line") from error


def _with_tables(values: dict[str, object], place: str) -> dict[str, object]:
    """A profile as it is written now, whatever names it uses. Raises: SettingsError for both of one value."""
    tree = {key: value for key, value in values.items() if key not in OLD_NAMES}
    for old in values.keys() & OLD_NAMES.keys():
        table, _, key = OLD_NAMES[old].partition(".")
        inner = tree.get(table, {})
        if not isinstance(inner, dict):
            continue  # told of below
        if key in inner:
            raise SettingsError(
                f"Profile {place} has {old} and {OLD_NAMES[old]}, which are the same: keep the latter"
            )
        tree[table] = {**inner, key: values[old]}
    return tree


def _inherit(
    table: dict[str, object], place: str, lower: Mapping[str, dict[str, object]]
) -> dict[str, object]:
    base = table.get("based_on")
    if base is None:
        return table
    if not isinstance(base, str) or base not in lower:
        known = f"one of {', '.join(sorted(lower))}" if lower else "no based_on"
        hint = _nearest(str(base), lower) or known
        raise SettingsError(
            f"Profile {place} has based_on = {base!r}, which no earlier directory has: use {hint}"
        )
    merged = {key: value for key, value in lower[base].items() if key != "name"}
    for key, value in table.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = {**below, **value} if both else value  # type: ignore[dict-item]
    return merged


def _decode(table: dict[str, object], place: str) -> Profile:
    _check_keys(table, Profile, place, "")
    try:
        profile = msgspec.convert(table, Profile)
    except msgspec.ValidationError as error:
        value = _value_at(table, str(error))
        raise SettingsError(f"Profile {place}{value}: {error}; correct the value") from error
    _check_sense(profile, place)
    return profile


def _check_keys(table: Mapping[str, object], struct: type, place: str, prefix: str) -> None:
    """Report unknown keys with the nearest known name, which msgspec does not do."""
    hints = _hints(struct)
    for key, value in table.items():
        if key not in hints:
            known = {name: name for name in hints} | ({} if prefix else OLD_NAMES)
            import difflib  # takes 0.2 MB, for names that are wrong

            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            hint = repr(known[near[0]]) if near else f"one of {', '.join(sorted(hints))}"
            raise SettingsError(
                f"Profile {place} has an unknown key {prefix + key!r}: use {hint}, or remove it",
                param=prefix + key,
            )
        inner = _struct_of(hints[key])
        if inner is not None and isinstance(value, dict):
            _check_keys(value, inner, place, f"{prefix}{key}.")


@functools.cache
def _hints(struct: type) -> Mapping[str, object]:
    """The types of a table's keys. Evaluated for each of twelve profiles they take 14 ms of every start."""
    return typing.get_type_hints(struct)


def _struct_of(hint: object) -> type | None:
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return kind
    return None


def _value_at(table: Mapping[str, object], message: str) -> str:
    """ " has n_ctx = 12" for msgspec's "... - at `$.n_ctx`"; empty if it names no key."""
    path = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
    value: object = table
    for key in filter(None, path.split(".")):
        value = value.get(key) if isinstance(value, dict) else None
    return f" has {path} = {value!r}" if path and value is not None else ""


def _check_sense(profile: Profile, place: str) -> None:
    """Checks across several values."""
    rules, heat = profile.match, profile.thermal
    if profile.engine.kv_type == "q8_0" and profile.engine.flash_attention == "off":
        raise SettingsError(
            f"Profile {place} has engine.kv_type = 'q8_0' with engine.flash_attention = 'off', llama.cpp"
            " quantizes the V cache only with flash attention: set it to auto, or kv_type to f16"
        )
    if heat.warn_c >= heat.throttle_c:
        raise SettingsError(
            f"Profile {place} has thermal.warn_c = {heat.warn_c}, which must be below throttle_c ="
            f" {heat.throttle_c}: lower it"
        )
    pairs = (
        ("ram", "bytes", rules.ram_min_bytes, rules.ram_max_bytes),
        ("n_cores", "", rules.n_cores_min, rules.n_cores_max),
    )
    for name, unit, low, high in pairs:
        if low is not None and high is not None and low > high:
            raise SettingsError(
                f"Profile {place} matches {name} from {low} to {high} {unit}, which is empty:"
                " swap the two"
            )


def _nearest(name: str, known: Iterable[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return repr(found[0]) if found else None
