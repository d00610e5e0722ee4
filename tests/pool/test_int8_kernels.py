"""Which embedding models are computed with 8-bit integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.pool.int8_kernels import int8_kernels

ZEN4 = ("avx2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")


@pytest.mark.parametrize(
    ("wanted", "features", "change", "expected"),
    [
        ("auto", ZEN4, {}, "avx512"),
        ("auto", ("avx2", "avx_vnni"), {}, "default"),
        ("auto", ("neon", "dotprod"), {}, "default"),
        ("auto", ("avx2",), {}, None),
        ("auto", (), {}, None),
        ("on", ("avx2",), {}, "default"),
        ("off", ZEN4, {}, None),
        ("on", ZEN4, {"is_installed": False}, None),
        ("on", ZEN4, {"architecture": "nomic-bert"}, None),
        ("on", ZEN4, {"pooling": "rank"}, "avx512"),
        ("on", ZEN4, {"pooling": "last"}, None),
        ("on", ZEN4, {"bytes_by_type": {"F32": 9, "Q4_0": 9}}, None),
        ("auto", ZEN4, {"bytes_by_type": {"F32": 9, "BF16": 9}, "pooling": "cls"}, "avx512"),
    ],
)
def test_it_depends_on_file_processor_and_library(
    minilm: Path,
    wanted: Any,
    features: tuple[str, ...],
    change: dict[str, Any],
    expected: str | None,
) -> None:
    is_installed = change.pop("is_installed", True)
    facts = replace(inspect(minilm), **change)
    assert int8_kernels(wanted, facts, features, is_installed=is_installed) == expected
