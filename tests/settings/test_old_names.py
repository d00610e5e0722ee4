"""Names from before settings stood in tables: each still works, with a warning that gives the new one."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from tomli_w import dumps

from edgeagent.errors import SettingsError
from edgeagent.settings import resolve
from edgeagent.settings.old_names import OLD_NAMES
from edgeagent.settings.setting_names import FIELDS, in_file, value_of, variable


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeagent.settings.settings_sources.SYSTEM_CONFIG", tmp_path / "none.toml")
    for name in OLD_NAMES.values():
        monkeypatch.delenv(variable(name), raising=False)


def other_value(name: str) -> Any:
    """A valid value of a setting that is not its default, as a file of 0.1 gave it."""
    field = FIELDS[name]
    default, options = field.get_default(call_default_factory=True), [field.annotation]
    if get_origin(field.annotation) in (types.UnionType, Union):
        options = [option for option in get_args(field.annotation) if option is not types.NoneType]
    kind = options[-1]
    if name == "store.enabled":
        return "off"
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != default)
    if get_origin(kind) is list:
        return ["one", "two"]
    if get_origin(kind) is dict:
        return {"gpt-4o*": "some-model"}
    if kind is bool:
        return not default
    if kind in (str, Path):
        return "/some/where"
    if kind is float:
        return default + 0.5 if default else 1.5
    if default is None:
        return 7
    return default + 1


TEXTS = ("http.host", "models.default", "device.profile")


def expected(name: str, value: Any) -> Any:
    if name == "store.enabled":
        return value not in ("off", False)
    return Path(value) if value == "/some/where" and name not in TEXTS else value


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_name_in_a_file_still_works(tmp_path: Path, old: str, new: str):
    value = other_value(new)
    config = tmp_path / "old.toml"
    config.write_text(dumps({old: value}))
    found = resolve(config=config)
    assert value_of(found.settings, new) == expected(new, value)
    assert found.origins[new] == str(config)
    (renaming,) = found.renamings
    assert str(renaming) == (
        f"{config}: {old} is now called {in_file(new)}; the old name still works."
    )


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_variable_still_works(monkeypatch: pytest.MonkeyPatch, old: str, new: str):
    value = other_value(new)
    monkeypatch.setenv(variable(old), value if isinstance(value, str) else json.dumps(value))
    found = resolve()
    assert value_of(found.settings, new) == expected(new, value)
    assert found.origins[new] == variable(old)
    (renaming,) = found.renamings
    assert str(renaming) == (
        f"{variable(old)} is now called {variable(new)}; the old name still works."
    )


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_the_new_name_works_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
):
    value = other_value(new)
    if new == "store.enabled":
        value = False
    config = tmp_path / "new.toml"
    tree: dict[str, Any] = {}
    *tables, key = new.split(".")
    inner = tree
    for table in tables:
        inner = inner.setdefault(table, {})
    inner[key] = value
    config.write_text(dumps(tree))
    monkeypatch.setenv(variable(new), value if isinstance(value, str) else json.dumps(value))
    for found in (resolve(config=config), resolve()):
        assert value_of(found.settings, new) == expected(new, value)
        assert found.renamings == ()
        assert found.origins[new] == variable(new)


def test_the_table_of_aliases_has_kept_its_name(tmp_path: Path):
    config = tmp_path / "old.toml"
    config.write_text('[models.aliases]\n"gpt-4o*" = "some-model"\n')
    found = resolve(config=config)
    assert found.settings.models.aliases == {"gpt-4o*": "some-model"} and not found.renamings


def test_flags_have_names_of_their_own_and_bring_no_warning():
    found = resolve(flags={"models_dir": "/some/where", "port": 1234})
    assert found.settings.models.dir == Path("/some/where")
    assert found.settings.http.port == 1234 and found.renamings == ()


@pytest.mark.parametrize(
    ("text", "both"),
    [
        ("n_ctx = 512\n[engine]\nn_ctx = 512\n", ("n_ctx", "keep [engine] n_ctx only")),
        (
            "prefix_min_tokens = 5\nstore.prefixes.min_tokens = 5\n",
            ("prefix_min_tokens", "keep [store.prefixes] min_tokens only"),
        ),
    ],
)
def test_both_names_in_one_file_are_an_error(tmp_path: Path, text: str, both: tuple[str, str]):
    config = tmp_path / "both.toml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        resolve(config=config)
    assert all(part in caught.value.message for part in (*both, "both.toml"))


def test_both_variables_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGEAGENT_N_CTX", "512")
    monkeypatch.setenv("EDGEAGENT_ENGINE__N_CTX", "512")
    with pytest.raises(SettingsError, match="keep EDGEAGENT_ENGINE__N_CTX only"):
        resolve()


def test_the_old_name_in_a_stronger_layer_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "new.toml"
    config.write_text("[engine]\nn_ctx = 512\n")
    monkeypatch.setenv("EDGEAGENT_N_CTX", "1024")
    assert resolve(config=config).settings.engine.n_ctx == 1024


def test_every_old_name_has_a_new_one_of_its_own():
    assert len(set(OLD_NAMES.values())) == len(OLD_NAMES) == 70
    assert set(OLD_NAMES.values()) <= set(FIELDS)
