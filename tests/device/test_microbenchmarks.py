from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgeagent.device.measurement import Measurement
from edgeagent.device.microbenchmarks import (
    buffer_bytes,
    measure,
    read_rate,
    thread_counts,
)
from edgeagent.device.probe import Device, probe

MIB = 1 << 20


def small(device: Device) -> Device:
    """The live machine as one with a single thread and a small cache, to be measured quickly."""
    replace = msgspec.structs.replace
    cores = replace(device.cores, n_threads_max=1, n_performance_usable=1, n_physical_usable=1)
    return replace(device, cores=cores, cpu=replace(device.cpu, llc_bytes=MIB))


@pytest.mark.parametrize(
    ("tree", "counts"),
    [
        ("pi5", (1, 2, 4)),
        ("rk3588", (1, 2, 4, 8)),
        ("jetson-orin-nano", (1, 2, 4, 6)),
        ("laptop-hybrid", (1, 2, 4, 8, 12, 16)),
        ("container-v2", (1,)),
    ],
)
def test_thread_counts_include_the_ones_a_profile_would_choose(
    tree_of: Callable[[str], Path], tree: str, counts: tuple[int, ...]
) -> None:
    assert thread_counts(probe(tree_of(tree))) == counts


@pytest.mark.parametrize(
    ("tree", "size"),
    [("n100", 32 * MIB), ("laptop-hybrid", 72 * MIB), ("pi-zero-2w", 32 * MIB)],
)
def test_the_buffer_is_beyond_the_caches_and_within_the_ram(
    tree_of: Callable[[str], Path], tree: str, size: int
) -> None:
    assert buffer_bytes(probe(tree_of(tree))) == size


@pytest.mark.process
def test_the_live_machine_is_measured_in_a_child(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"x" * MIB)
    seen: list[tuple[str, float]] = []
    found = measure(
        small(probe()),
        file=model,
        limit_s=60,
        progress=lambda name, share: seen.append((name, share)),
    )
    assert found.notes == ()
    assert [rate.n_threads for rate in found.memory_gb_per_s] == [1]
    assert found.best_memory_gb_per_s is not None
    assert found.best_memory_gb_per_s > 0
    assert found.best_gemm_gflop_per_s is not None
    assert found.best_gemm_gflop_per_s > 0
    assert found.disk_read_mb_per_s is not None
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert seen[-1] == ("done", 1.0)


def test_what_does_not_fit_into_the_time_is_left_out_and_noted() -> None:
    found = measure(small(probe()), limit_s=0)
    assert found.memory_gb_per_s == found.gemm_gflop_per_s == ()
    assert found.best_memory_gb_per_s is None
    assert found.notes == (
        "memory, 1 thread(s): left out, the time limit was reached",
        "gemm, 1 thread(s): left out, the time limit was reached",
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("exit 3", "ended early"),
        ("echo this is not ours", "failed"),
        ('echo \'{"n_threads": 77, "result": 1.0}\'', "failed"),
        ('echo \'{"n_threads": 1, "error": "ImportError: no numpy"}\'', "no numpy"),
        ("exec sleep 600", "ended early"),
    ],
)
def test_a_child_that_misbehaves_costs_its_figures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, wanted: str
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\n{body}\n")
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    found = measure(small(probe()), limit_s=0.8)
    assert found.memory_gb_per_s == ()
    assert wanted in found.notes[0]


@pytest.mark.process
def test_a_python_that_is_not_there_costs_its_figures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert len(measure(small(probe())).notes) == 2


@pytest.mark.parametrize("content", [b"", None])
def test_a_file_without_bytes_has_no_read_rate(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model"
    if content is not None:
        path.write_bytes(content)
    assert read_rate(path) is None


def test_a_read_stops_at_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"x" * (9 * MIB))
    rate = read_rate(path, max_bytes=4 * MIB)
    assert rate is not None
    assert rate > 0


def test_a_measurement_survives_being_written_as_json() -> None:
    one = Measurement(measured_utc_ms=1, wall_s=2.0, buffer_bytes=3, notes=("x",))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Measurement) == one
