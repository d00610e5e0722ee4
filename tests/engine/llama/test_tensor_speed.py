"""Matrices of made-up weights: in which layout they lie, and that any type can be measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.sizing.repack import repacked_types
from edgeagent.device.probe import probe
from edgeagent.engine.llama import tensor_speed
from edgeagent.engine.llama.ggml import TYPE_NUMBERS
from edgeagent.engine.llama.tensor_speed import TYPES, Matrices, packed


@pytest.fixture(scope="module")
def matrices() -> Iterator[Matrices]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("SHARE_S", 0.0), ("LEAST_RUNS", 1), ("CHUNK_TOKENS", 4), ("N_ROWS", 256), ("N_COLUMNS", 256)
        ):  # fmt: skip
            patch.setattr(tensor_speed, name, value)
        made = Matrices(2, 1)
        yield made
        made.close()
        made.close()


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_measured_where_llama_cpp_would_put_it(matrices: Matrices, kind: str):
    rate = matrices.rate(kind)
    assert rate.decode > 0 and rate.prefill > 0
    device = probe()
    repacked = repacked_types(device.system.architecture or "", device.cpu.features)
    assert rate.is_repacked == (kind in repacked)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q6_K"])
def test_packed_weights_have_the_size_of_their_type(kind: str):
    values = np.random.default_rng(1).standard_normal((64, 512), np.float32)
    found = GGML_TYPES[TYPE_NUMBERS[kind]]
    assert packed(values, found).nbytes == values.size // found.block * found.n_bytes
