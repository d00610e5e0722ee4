"""The RAM budget: how many bytes weights, KV cells, caches and speech may use together."""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from edgeagent.device.capacity import HasCapacity

Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]

# If the RAM size is unknown: a budget that even the smallest supported board has.
_UNKNOWN_RAM_BYTES = 256 * 1024 * 1024

# MemAvailable is an estimate by the kernel; page tables, buffers and Python itself grow with a model.
_AVAILABLE_SHARE = 0.95


class MemoryShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[pool]` of a profile. `ram_reserved_bytes` stays with the operating system and other
    programs; `ram_share` is the part of usable RAM for models, caches and speech together."""

    ram_reserved_bytes: Bytes = 512 << 20
    ram_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.75


class HasMemoryShare(Protocol):
    """The part of a profile that a budget needs."""

    @property
    def pool(self) -> MemoryShare: ...


class Budget(msgspec.Struct, frozen=True):
    """`n_bytes` is the smallest of `bounds`, (name, bytes) pairs; `bound_by` names it."""

    n_bytes: int
    bound_by: str
    bounds: tuple[tuple[str, int], ...]

    def explain(self) -> str:
        """The arithmetic on one line: "3.1 GiB: least of share 6.3, reserve 7.1, ... GiB"."""
        terms = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in self.bounds)
        return f"{self.n_bytes / 2**30:.2f} GiB by {self.bound_by}: least of {terms} GiB"


def budget(profile: HasMemoryShare, target: HasCapacity) -> Budget:
    """The budget of `profile` on `target`, with the arithmetic.

    The smallest of three bounds, never below 0:
      - share: `ram_share` of usable RAM. Usable is the machine's RAM or the control group's limit,
        whichever is smaller, on any level: a 1 GiB container on a 256 GiB host has 1 GiB.
      - reserve: usable RAM minus `ram_reserved_bytes` for the system and other programs.
      - available: what can be allocated now without swapping, minus 5%. It subtracts what other programs
        use now, so compute it before our own workers have loaded anything; otherwise their memory would be
        subtracted from their own budget. (A worker that waits for its model is known to `read_memory`.)

    Swap does not count (see `memory.Memory`), nor does GPU memory: shared memory is this same RAM, and
    dedicated memory is counted by the engine.
    """
    capacity = target.capacity
    usable = capacity.ram_usable_bytes
    if usable is None:
        return Budget(_UNKNOWN_RAM_BYTES, "unknown RAM", (("unknown RAM", _UNKNOWN_RAM_BYTES),))
    bounds = [
        ("share", int(usable * profile.pool.ram_share)),
        ("reserve", max(0, usable - profile.pool.ram_reserved_bytes)),
    ]
    if capacity.ram_available_bytes is not None:
        bounds.append(("available", int(capacity.ram_available_bytes * _AVAILABLE_SHARE)))
    name, least = min(bounds, key=lambda bound: bound[1])
    return Budget(least, name, tuple(bounds))


def budget_bytes(profile: HasMemoryShare, target: HasCapacity) -> int:
    """The bytes of `budget()`, without the arithmetic."""
    return budget(profile, target).n_bytes
