"""The catalog file: the shipped one holds together, and a wrong one says what is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.catalog.catalog_file import Catalog, load_catalog, parse_catalog
from edgeagent.catalog.toml_text import to_toml
from edgeagent.errors import ModelNotFound, SettingsError

SHIPPED = Path(__file__).parents[2] / "models" / "catalog.toml"
GOOD = """
[models.tiny]
name = "Tiny"
family = "llama"
n_params = 1
task = "chat"
licence = "MIT"
[[models.tiny.variants]]
quant = "Q8_0"
file = "tiny.gguf"
sources = [{ kind = "url", url = "https://example.org/tiny.gguf" }]
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(SHIPPED)


def test_the_shipped_catalog_is_good(catalog: Catalog) -> None:
    assert len(catalog.entries) >= 30
    for model_id, entry in catalog.entries.items():
        assert entry.id == model_id
        assert entry.variant() is entry.variants[0]


def test_a_larger_model_is_larger_and_does_the_same_work(catalog: Catalog) -> None:
    for entry in catalog.entries.values():
        if entry.larger:
            larger = catalog.entry(entry.larger)
            assert larger.n_params > entry.n_params
            assert (larger.task == "speech") == (entry.task == "speech")


def test_the_shapes_are_those_of_transformers(catalog: Catalog) -> None:
    for entry in catalog.entries.values():
        shape = entry.shape
        if shape:
            assert shape.n_head % shape.n_head_kv == 0
            assert entry.n_ctx_min <= shape.n_ctx_train
            # Weights of attention and embedding alone must not exceed the parameters stated.
            attention = shape.n_layers * shape.n_embd * shape.head_dim * shape.n_head_kv
            assert attention + (shape.n_vocab or 0) * shape.n_embd < entry.n_params


def test_the_model_that_a_plain_index_holds_is_pinned(catalog: Catalog) -> None:
    variant = catalog.entry("smollm2-135m-instruct").variant("q4_1")
    assert variant.size_bytes == 98_362_432
    assert variant.sha256 is not None


WRONG = [
    ('quant = "Q8_0"', 'quants = "Q8_0"', "did you mean 'quant'?"),
    ('licence = "MIT"', 'license = "MIT"', "did you mean 'licence'?"),
    ('task = "chat"', 'task = "chatting"', "chatting"),
    ("n_params = 1", 'n_params = "one"', "n_params"),
    ('url = "https', 'uri = "https', "did you mean 'url'?"),
    ("https://", "file://", "neither https"),
    ('"tiny.gguf"\n', '"../tiny.gguf"\n', "plain file name"),
    ('"tiny.gguf"\n', '"installed.toml"\n', "plain file name"),
    ('file = "tiny.gguf"', 'file = "tiny.gguf"\nsha256 = "ABC"', "64 lower-case"),
    ('file = "tiny.gguf"', 'file = "tiny.gguf"\nsize_bytes = 0', "not above 0"),
    ("[models.tiny]", '[models."../tiny"]', "is not a model id"),
    ("[models.tiny]", "[model.tiny]", "did you mean 'models'?"),
    ("[models.tiny]", "[models.tiny", "is not TOML"),
    ('name = "Tiny"', 'name = "Tiny"\nid = "other"', "has the id 'other'"),
    ('name = "Tiny"', 'name = "Tiny"\nsampling = { temprature = 1.0 }', "'temperature'"),
    ('kind = "url"', 'kind = "ftp"', "ftp"),
    ('task = "chat"', 'task = "chat"\ntools = "t.json"', "tools require the task assistant"),
    (
        'task = "chat"',
        'task = "assistant"\ntools = "../t.json"',
        "'../t.json' is not a plain file name",
    ),
    ('task = "chat"', 'task = "assistant"\nthresholds = { home = 1.5 }', "it must be 0 to 1"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_a_wrong_catalog_says_what_is_wrong(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(SettingsError, match=r"my\.toml") as caught:
        parse_catalog(GOOD.replace(old, new, 1), "my.toml")
    assert said in caught.value.message


def test_a_users_catalog_adds_and_replaces(tmp_path: Path) -> None:
    user = tmp_path / "catalog.toml"
    user.write_text(GOOD + GOOD.replace("models.tiny", "models.qwen3-4b"))
    catalog = load_catalog(SHIPPED, user)
    assert catalog.entry("tiny").name == "Tiny"
    assert catalog.entry("qwen3-4b").n_params == 1
    assert "smollm2-135m-instruct" in catalog


def test_a_bundles_catalog_goes_before_the_shipped_and_after_the_users(tmp_path: Path) -> None:
    bundled = tmp_path / ".bundles" / "catalog"
    bundled.mkdir(parents=True)
    both = GOOD + GOOD.replace("models.tiny", "models.qwen3-4b")
    (bundled / "garden.toml").write_text(both.replace("n_params = 1", "n_params = 2"))
    user = tmp_path / "catalog.toml"
    assert load_catalog(SHIPPED, user).entry("tiny").n_params == 2
    user.write_text(GOOD)
    catalog = load_catalog(SHIPPED, user)
    assert catalog.entry("tiny").n_params == 1
    assert catalog.entry("qwen3-4b").n_params == 2


def test_every_shipped_entry_survives_being_written(catalog: Catalog) -> None:
    tree = {name: msgspec.to_builtins(entry) for name, entry in catalog.entries.items()}
    assert parse_catalog(to_toml({"models": tree}), "test") == catalog.entries


def test_a_larger_model_must_exist(tmp_path: Path) -> None:
    user = tmp_path / "catalog.toml"
    user.write_text(GOOD.replace('task = "chat"', 'task = "chat"\nlarger = "nowhere"'))
    with pytest.raises(SettingsError, match="nowhere"):
        load_catalog(SHIPPED, user)


def test_an_unknown_model_is_answered_with_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(ModelNotFound, match="did you mean 'smollm2-135m-instruct'"):
        catalog.entry("smolm2-135m")


def test_an_unknown_quantization_is_answered_with_the_list(catalog: Catalog) -> None:
    with pytest.raises(ModelNotFound, match="Q4_1, Q8_0"):
        catalog.entry("smollm2-135m-instruct").variant("Q2_K")


def test_a_missing_catalog_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"catalog\.toml cannot be read"):
        load_catalog(tmp_path / "catalog.toml")


@given(st.text())
def test_any_text_is_a_catalog_or_a_settings_error(text: str) -> None:
    with contextlib.suppress(SettingsError):
        parse_catalog(text, "my.toml")


@given(st.text())
def test_any_id_is_found_or_not_found(text: str) -> None:
    catalog = Catalog(parse_catalog(GOOD, "my.toml"))
    try:
        assert catalog.entry(text).id == text
    except ModelNotFound as refusal:
        assert len(refusal.message) < 2000
