from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.device.budget import MemoryShare, budget, budget_bytes
from edgeagent.device.capacity import Capacity
from edgeagent.device.probe import probe
from edgeagent.device.profile import Profile, compute, reference_device, resolve_threads
from edgeagent.device.profile_files import load, load_all
from edgeagent.device.profile_match import match
from edgeagent.errors import SettingsError
from edgeagent.settings.setting_names import FIELDS

GIB = 1 << 30
KEYS = {
    "engine.n_threads", "engine.n_ctx", "engine.kv_type", "engine.n_seq", "engine.n_batch",
    "engine.step_budget_ms", "engine.flash_attention", "pool.ram_budget_bytes",
}  # fmt: skip


class Machine:
    """Something with a capacity, as a device and a reference are."""

    def __init__(self, usable: int | None, available: int | None, n_cores: int = 4) -> None:
        self.capacity = Capacity(n_cores, n_cores, n_cores, usable, available)


@pytest.mark.parametrize("name", [name for name in load_all() if name != "generic"])
def test_a_profile_gives_settings_for_a_machine_that_is_not_here(name: str) -> None:
    profile = load(name)
    settings = profile.settings(reference_device(profile))
    assert set(settings) == KEYS <= set(FIELDS)
    assert [name for name, value in settings.items() if value == "auto"] == [
        "engine.flash_attention"
    ]
    budget_now = settings["pool.ram_budget_bytes"]
    assert isinstance(budget_now, int)
    assert budget_now > 150 * 1024 * 1024


def test_the_generic_profile_has_no_machine_to_give_advice_for() -> None:
    with pytest.raises(SettingsError, match="'generic' has no reference machine"):
        reference_device(load("generic"))


def test_the_generic_profile_is_computed_from_the_machine() -> None:
    generic = load("generic")
    small = generic.settings(Machine(GIB // 2, GIB // 2))
    large = generic.settings(Machine(16 * GIB, 15 * GIB))
    assert (small["engine.n_ctx"], small["engine.kv_type"], small["engine.n_seq"]) == (
        1024,
        "q8_0",
        1,
    )
    assert (large["engine.n_ctx"], large["engine.kv_type"], large["engine.n_seq"]) == (
        16_384,
        "f16",
        8,
    )


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_more_ram_never_computes_to_less(one: int, other: int) -> None:
    small, large = sorted((one, other))
    a, b = (compute(Machine(size, size).capacity) for size in (small, large))
    assert (a.n_ctx, a.n_seq, a.n_batch) <= (b.n_ctx, b.n_seq, b.n_batch)


@pytest.mark.parametrize(
    ("tree", "rule", "n_threads"),
    [
        ("rk3588", "performance_cores", 4),
        ("rk3588", "usable_cores", 8),
        ("rk3588", 6, 6),
        ("rk3588", 99, 8),
        ("laptop-hybrid", "auto", 4),
        ("laptop-hybrid", "usable_cores", 12),
        ("container-v2", "usable_cores", 1),
        ("container-v2", "performance_cores", 1),
    ],
)
def test_thread_rules_stay_within_what_may_be_used(
    tree_of: Callable[[str], Path], tree: str, rule: object, n_threads: int
) -> None:
    assert resolve_threads(rule, probe(tree_of(tree)).capacity) == n_threads  # type: ignore[arg-type]


def test_efficiency_cores_alone_are_used_when_affinity_leaves_nothing_else() -> None:
    left_over = Capacity(2, 0, 2, GIB, GIB)
    assert resolve_threads("performance_cores", left_over) == 2


@pytest.mark.parametrize(
    ("usable", "available", "bound_by", "n_bytes"),
    [
        (4 * GIB, 4 * GIB, "share", 2 * GIB),
        (4 * GIB, GIB, "available", int(GIB * 0.95)),
        (4 * GIB, None, "share", 2 * GIB),
        (GIB + GIB // 2, GIB + GIB // 2, "reserve", GIB // 2),
        (GIB // 2, GIB // 2, "reserve", 0),
        (None, 4 * GIB, "unknown RAM", 256 << 20),
    ],
)
def test_the_budget_is_the_least_of_its_bounds(
    usable: int | None, available: int | None, bound_by: str, n_bytes: int
) -> None:
    profile = Profile(name="x", version=1, pool=MemoryShare(GIB, 0.5))
    found = budget(profile, Machine(usable, available))
    assert (found.bound_by, found.n_bytes) == (bound_by, n_bytes)
    assert bound_by in found.explain()


@given(
    st.integers(0, 1 << 42),
    st.integers(0, 1 << 42),
    st.integers(0, 1 << 42),
    st.floats(0.01, 1.0),
)
def test_a_budget_is_never_negative_and_never_more_than_there_is(
    usable: int, available: int, reserved: int, share: float
) -> None:
    profile = Profile(name="x", version=1, pool=MemoryShare(reserved, share))
    n_bytes = budget_bytes(profile, Machine(usable, available))
    assert 0 <= n_bytes <= min(usable, available)


def test_a_container_on_a_large_host_has_its_own_budget(tree_of: Callable[[str], Path]) -> None:
    device = probe(tree_of("container-v2"))
    found = budget(match(device).profile, device)
    assert found.n_bytes == GIB * 3 // 4
    assert found.explain().startswith("0.75 GiB by share: least of share 0.75, reserve 0.84")
