"""What the catalog foretells of a model against what is known of its file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeagent.catalog.catalog_file import Entry, Variant, load_catalog
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.catalog.sizing.model_shape import from_entry, from_facts
from edgeagent.catalog.sizing.quantization import bytes_per_weight, mixture

ENTRIES = load_catalog(shipped_models_dir() / "catalog.toml").entries
SIZED = [
    (entry, variant)
    for entry in ENTRIES.values()
    for variant in entry.variants
    if variant.size_bytes and entry.shape and entry.shape.n_vocab
]


@pytest.mark.parametrize(("entry", "variant"), SIZED, ids=[f"{e.id}-{v.quant}" for e, v in SIZED])
def test_a_size_foretold_from_the_quantization_is_near_the_files_own(
    entry: Entry, variant: Variant
) -> None:
    unsized = msgspec.structs.replace(variant, size_bytes=None)
    model = from_entry(entry, unsized)
    assert model is not None
    assert variant.size_bytes is not None
    assert model.weights_bytes == pytest.approx(variant.size_bytes, rel=0.05)


def test_the_catalogs_foretelling_of_smollm2_agrees_with_its_file(smollm: Path) -> None:
    entry = ENTRIES["smollm2-135m-instruct"]
    foretold, read = from_entry(entry, entry.variant("Q4_1")), from_facts(inspect(smollm))
    assert foretold is not None
    assert foretold.weights_bytes == pytest.approx(read.weights_bytes, rel=0.03)
    assert foretold.n_ff == pytest.approx(read.n_ff, rel=0.02)
    for name in ("kv_width", "attention_width", "head_dim", "n_vocab", "n_caches", "is_tied"):
        assert getattr(foretold, name) == getattr(read, name), name


@pytest.mark.parametrize(
    ("quant", "low", "high"),
    [("Q8_0", 8.5, 8.5), ("Q4_K_M", 4.8, 4.9), ("Q5_K_M", 5.6, 5.8), ("Q3_K_M", 3.85, 4.0),
     ("Q2_K", 2.9, 3.1), ("IQ3_M", 3.4, 3.5), ("F16", 16, 16)],
)  # fmt: skip
def test_a_mixture_has_the_bits_it_is_known_for(quant: str, low: float, high: float) -> None:
    shares = mixture(quant, 2048)
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    assert low <= round(8 * bytes_per_weight(shares), 2) <= high


def test_rows_too_short_for_super_blocks_fall_back_and_unknown_names_are_none() -> None:
    assert set(mixture("Q4_K_M", 896) or ()) == {"Q5_0", "Q8_0"}
    assert mixture("Q9_Z", 2048) is None
