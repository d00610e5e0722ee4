"""Memory foretold against memory taken, by real workers on models of several shapes.

`scripts/bench memory MODEL.gguf` measures every design with every setting.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.sizing.memory import WorkerSetup, kv_bytes, repacked_bytes, worker_memory
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.catalog.sizing.repack import repacked_types
from edgeagent.device.probe import probe
from edgeagent.types.engine_config import EngineConfig
from tests.catalog.synthetic import DESIGNS, write_model
from tests.catalog.worker_rss import measured_rss
from tests.conftest import needs_int8

NAMES = ("llama-q4_0", "qwen2-q8_0", "gemma3-f16", "llama-q4_0-tied")
N_LAYERS = 2  # what a layer takes is seen with two as with twelve


@pytest.fixture(scope="module")
def made(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    designs = {name: replace(DESIGNS[name], n_layers=N_LAYERS) for name in NAMES}
    made = {name: folder / f"{name}.gguf" for name in NAMES}
    for name, path in made.items():
        write_model(path, designs[name], smollm)
    return made | {"smollm2": smollm}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("smollm2", {"kv_type": "q8_0", "n_ctx": 2048, "n_batch": 128, "n_seq": 2}),
        ("llama-q4_0", {"kv_type": "f16", "n_ctx": 4096, "use_mmap": False, "answer_cells": 512}),
        ("qwen2-q8_0", {"kv_type": "q8_0", "n_ctx": 4096, "prompt_cells": 1024}),
        ("gemma3-f16", {"kv_type": "f16", "n_ctx": 2048}),
        ("llama-q4_0-tied", {"kv_type": "q4_0", "n_ctx": 2048, "n_prefixes": 0}),
    ],
)
async def test_the_estimate_is_within_a_tenth_of_what_a_worker_takes(
    made: dict[str, Path], name: str, options: dict[str, object]
) -> None:
    device = probe()
    repacked = repacked_types(device.system.architecture or "", device.cpu.features)
    setup = WorkerSetup(repacked=repacked, **options)  # type: ignore[arg-type]
    estimate = worker_memory(from_facts(inspect(made[name])), setup)
    worker, template = await measured_rss(made[name], **options)
    assert estimate.total_bytes == pytest.approx(worker + template, rel=0.10), estimate.explain()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("minilm", {"n_ctx": 256, "n_batch": 128}),
        ("qwen2-pooled", {"n_ctx": 256, "n_batch": 128}),
        pytest.param("minilm", {"n_ctx": 256, "int8_kernels": "default"}, marks=needs_int8),
    ],
)
async def test_the_estimate_of_a_worker_that_embeds_is_within_a_tenth(
    minilm: Path, smollm: Path, tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = minilm
    if name != "minilm":
        design = replace(DESIGNS["qwen2-q8_0"], n_vocab=49_152, n_layers=1, pooling=3)
        path = write_model(tmp_path / "pooled.gguf", design, smollm)
    device = probe()
    repacked = repacked_types(device.system.architecture or "", device.cpu.features)
    options |= {"task": "embed", "n_seq": 64, "n_prefixes": 0}
    own: dict[str, Any] = {"model_id": name, "path": "", "n_threads": 1}
    setup = WorkerSetup.of(EngineConfig(**(own | options)), repacked)
    estimate = worker_memory(from_facts(inspect(path)), setup)
    worker, template = await measured_rss(path, **options)
    print(f"estimate {estimate.explain()}, measured {worker / 1e6:.1f} MB")
    assert template == 0
    assert estimate.total_bytes == pytest.approx(worker, rel=0.10), estimate.explain()


def test_the_parts_are_the_files_own(made: dict[str, Path]) -> None:
    model = from_facts(inspect(made["llama-q4_0-tied"]))
    assert (model.is_tied, model.embedding_type, model.n_vocab) == (True, "Q4_0", 49_152)
    assert model.embedding_bytes == 49_152 * 768 // 32 * 18
    assert kv_bytes(model, WorkerSetup(n_ctx=100)) == 2 * N_LAYERS * 12 * 64 * 100 * 2
    assert (
        kv_bytes(model, WorkerSetup(n_ctx=100, kv_type="q8_0"))
        == 2 * N_LAYERS * 12 * 64 * 100 * 34 // 32
    )
    matrices, output = repacked_bytes(model, frozenset({"Q4_0"}))
    assert output == model.embedding_bytes
    assert matrices == N_LAYERS * (4 * 768 * 768 + 3 * 768 * 2048) // 32 * 18


def test_a_sliding_window_saves_no_cells_and_costs_a_second_mask(made: dict[str, Path]) -> None:
    model = from_facts(inspect(made["gemma3-f16"]))
    assert model.n_caches == 2
    assert kv_bytes(model, WorkerSetup(n_ctx=4096)) == N_LAYERS * 2 * 256 * 4096 * 2


def test_recurrent_state_grows_with_sequences_and_not_with_context(made: dict[str, Path]) -> None:
    model = replace(from_facts(inspect(made["smollm2"])), kv_width=0, state_width=1000)
    assert kv_bytes(model, WorkerSetup(n_ctx=4096, n_seq=2)) == 8000
    assert kv_bytes(model, WorkerSetup(n_ctx=8192, n_seq=2)) == 8000


@given(
    n_ctx=st.integers(128, 1 << 17),
    n_seq=st.integers(1, 64),
    n_batch=st.integers(32, 4096),
    kv=st.sampled_from(["f16", "q8_0", "q4_0"]),
    flash=st.booleans(),
    mmap=st.booleans(),
)
def test_more_of_anything_never_takes_less_and_the_sum_is_its_parts(
    stories: Path, n_ctx: int, n_seq: int, n_batch: int, kv: str, flash: bool, mmap: bool
) -> None:
    model = from_facts(inspect(stories))
    setup = WorkerSetup(
        n_ctx=n_ctx, n_seq=n_seq, n_batch=n_batch, kv_type=kv, flash_attention=flash, use_mmap=mmap
    )  # type: ignore[arg-type]
    memory = worker_memory(model, setup)
    parts = memory.weights_bytes + memory.kv_bytes + memory.compute_bytes + memory.overhead_bytes
    assert memory.total_bytes == parts + memory.template_bytes
    for change in ({"n_ctx": n_ctx + 1}, {"n_seq": n_seq + 1}, {"n_batch": n_batch + 1}):
        more = worker_memory(model, replace(setup, **change))  # type: ignore[arg-type]
        assert more.total_bytes >= memory.total_bytes


@pytest.mark.parametrize(
    ("n_seq", "n_prefixes", "is_drafting", "n_outputs"),
    [(8, 24, True, 33), (8, 24, False, 33), (1, 4, True, 13), (1, 4, False, 6), (30, 24, True, 48)],
)
def test_drafted_tokens_have_logits_beside_those_of_the_sequences(
    n_seq: int, n_prefixes: int, is_drafting: bool, n_outputs: int
) -> None:
    """As `Llama` asks for them, within a step."""
    setup = WorkerSetup(
        n_seq=n_seq, n_prefixes=n_prefixes, n_batch=48, is_drafting=is_drafting, n_ctx=4096
    )
    assert setup.n_outputs == n_outputs


@pytest.mark.parametrize(
    ("architecture", "features", "has", "lacks"),
    [
        ("x86_64", ("avx2",), "Q4_K", "Q8_0"),
        ("x86_64", ("avx512f", "avx2"), "Q2_K", "Q6_K"),
        ("x86_64", ("sse4_2",), None, "Q4_0"),
        ("x86_64", (), "Q4_0", "Q8_0"),
        ("aarch64", ("asimddp",), "Q8_0", "Q4_1"),
        ("aarch64", ("neon",), "IQ4_NL", "Q4_0"),
        ("riscv64", (), None, "Q4_0"),
    ],
)
def test_what_is_repacked_hangs_on_the_processor(
    architecture: str, features: tuple[str, ...], has: str | None, lacks: str
) -> None:
    types = repacked_types(architecture, features)
    assert lacks not in types
    assert has is None or has in types
