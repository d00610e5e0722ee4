"""A profile: how to run models on one kind of device, as written in profiles/*.toml.

A profile says what cannot be measured quickly (how much RAM to leave free, which gap between tokens is
acceptable) and gives starting values for the rest. `settings()` returns the device layer of the settings:
defaults < profile < file < environment < flags.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgeagent.device.budget import Bytes, MemoryShare, budget_bytes
from edgeagent.device.capacity import Capacity, HasCapacity
from edgeagent.errors import SettingsError

_MIB = 1024 * 1024

Celsius = Annotated[float, msgspec.Meta(ge=30, le=120)]
KvType = Literal["f16", "q8_0"]
ThreadRule = Literal["performance_cores", "usable_cores", "auto"]


class MatchRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions for a profile to match a device; every given rule must hold.

    `board` and `cpu` are lists of which one must occur, ignoring case, in the board's or the processor's
    name. RAM is what we may use (container limit included), in bytes as the kernel reports it: an "8 GB"
    board reports 7.8 to 8.5 * 10^9. `container`: whether we are in one. `battery`: whether the device has
    one, in use or not.
    """

    board: tuple[str, ...] = ()
    cpu: tuple[str, ...] = ()
    architecture: tuple[str, ...] = ()
    ram_min_bytes: Bytes | None = None
    ram_max_bytes: Bytes | None = None
    n_cores_min: Annotated[int, msgspec.Meta(ge=1)] | None = None
    n_cores_max: Annotated[int, msgspec.Meta(ge=1)] | None = None
    container: bool | None = None
    battery: bool | None = None


class ThermalLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Degrees Celsius of the hottest zone: from `warn_c` on a warning is logged, from `throttle_c` on
    fewer threads run."""

    warn_c: Celsius = 75.0
    throttle_c: Celsius = 82.0


class ReferenceMachine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A typical machine of the profile, for recommendations for a device that is not present.

    `memory_gb_per_s` is the bandwidth for reading weights with all cores (10^9 bytes), and
    `gemm_gflop_per_s` that of a float32 matrix product; `source` says where they come from, and begins
    with "estimate" if nobody measured them. `ram_available_bytes` is free after a normal boot.
    `architecture` and `features` are the processor's, in the probe's terms.
    """

    n_cores: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    n_performance_cores: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    ram_bytes: Bytes
    ram_available_bytes: Bytes
    memory_gb_per_s: Annotated[float, msgspec.Meta(gt=0)]
    gemm_gflop_per_s: Annotated[float, msgspec.Meta(gt=0)]
    source: str
    architecture: Literal["x86_64", "aarch64"] = "x86_64"
    features: tuple[str, ...] = ()

    @property
    def capacity(self) -> Capacity:
        """The same numbers as of a probed device."""
        return Capacity(
            n_threads_max=self.n_cores,
            n_performance_cores=self.n_performance_cores,
            n_physical_cores=self.n_cores,
            ram_usable_bytes=self.ram_bytes,
            ram_available_bytes=self.ram_available_bytes,
        )


class EngineProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[engine]` of a profile. "auto" is computed from cores and RAM.

    `n_ctx` is the size of the whole context in tokens, shared by `n_seq` sequences; `n_batch` is the
    maximum number of tokens in one step. `step_budget_ms` limits the duration of one step, and so the gap
    between two tokens of any answer.
    """

    n_threads: Annotated[int, msgspec.Meta(ge=1, le=512)] | ThreadRule = "auto"
    n_ctx: Annotated[int, msgspec.Meta(ge=128, le=1 << 22)] | Literal["auto"] = "auto"
    kv_type: KvType | Literal["auto"] = "auto"
    n_seq: Annotated[int, msgspec.Meta(ge=1, le=256)] | Literal["auto"] = "auto"
    n_batch: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | Literal["auto"] = "auto"
    step_budget_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 250
    flash_attention: Literal["auto", "on", "off"] = "auto"


class SpeechProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[speech]` of a profile."""

    model: Literal["none", "tiny", "base", "small"] = "none"


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One profile. Its tables have the names of the tables of the settings."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    version: Annotated[int, msgspec.Meta(ge=1)]
    description: str = ""
    based_on: str | None = None
    match: MatchRules = MatchRules()
    engine: EngineProfile = EngineProfile()
    pool: MemoryShare = MemoryShare()
    speech: SpeechProfile = SpeechProfile()
    thermal: ThermalLimits = ThermalLimits()
    reference: ReferenceMachine | None = None

    def settings(self, target: HasCapacity) -> dict[str, object]:
        """The settings of this profile on `target` (a Device, or a ReferenceMachine), by name.

        Keys: engine.n_threads, engine.n_ctx, engine.kv_type, engine.n_seq, engine.n_batch,
        engine.step_budget_ms, engine.flash_attention, pool.ram_budget_bytes; none is "auto", except
        flash_attention. Not limited to a model: the engine lowers n_ctx to the model's trained context.
        """
        capacity = target.capacity
        chosen = msgspec.structs.asdict(self.engine)
        for name, value in msgspec.structs.asdict(compute(capacity)).items():
            if chosen[name] == "auto":
                chosen[name] = value
        chosen["n_threads"] = resolve_threads(self.engine.n_threads, capacity)
        layer = {f"engine.{name}": value for name, value in chosen.items()}
        return layer | {"pool.ram_budget_bytes": budget_bytes(self, target)}


class AutoValues(msgspec.Struct, frozen=True):
    """The values of "auto" for a given size of RAM."""

    n_ctx: int
    kv_type: KvType
    n_seq: int
    n_batch: int


# By usable RAM, upper bounds. Small machines get short contexts, a KV cache of half the size and small
# steps; n_batch is only the upper bound of a step, which the engine fills up to its measured time budget.
_STEPS: tuple[tuple[int, AutoValues], ...] = (
    (768 * _MIB, AutoValues(1024, "q8_0", 1, 64)),
    (1536 * _MIB, AutoValues(2048, "q8_0", 1, 128)),
    (3072 * _MIB, AutoValues(4096, "q8_0", 2, 256)),
    (6144 * _MIB, AutoValues(8192, "q8_0", 2, 256)),
    (12_288 * _MIB, AutoValues(8192, "f16", 4, 512)),
)
_LARGE = AutoValues(16_384, "f16", 8, 512)


def compute(capacity: Capacity) -> AutoValues:
    """Context, KV type, sequences and batch for the usable RAM; unknown RAM counts as the smallest."""
    usable = capacity.ram_usable_bytes or 0
    return next((computed for bound, computed in _STEPS if usable < bound), _LARGE)


def resolve_threads(rule: int | ThreadRule, capacity: Capacity) -> int:
    """Threads for a rule, within affinity and quota, at least 1.

    "performance_cores" (and "auto"): one per performance core, because a step waits for its slowest
    thread. "usable_cores": one per physical core of any kind. A number is an upper bound: with more
    threads than CPUs, threads would busy-wait at each other's barriers.
    """
    if isinstance(rule, int):
        wanted = rule
    elif rule == "usable_cores":
        wanted = capacity.n_physical_cores
    else:
        wanted = capacity.n_performance_cores
    return max(1, min(wanted or capacity.n_threads_max, capacity.n_threads_max))


def reference_device(profile: Profile) -> ReferenceMachine:
    """The profile's typical machine, for questions about a device that is not this one.

    Raises: SettingsError for a profile that describes no particular machine (generic).
    """
    if profile.reference is None:
        raise SettingsError(
            f"Profile {profile.name!r} has no reference machine, but recommendations need cores, RAM"
            " and bandwidth: choose a profile of one device, or add a [reference] table to it",
            param="profile",
        )
    return profile.reference
