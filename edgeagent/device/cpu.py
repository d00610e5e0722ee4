"""The processor: its name, its instruction sets and its last-level cache."""

from __future__ import annotations

import msgspec

from edgeagent.device.system_files import SystemFiles, parse_int

# Features that select llama.cpp's kernels, and the flags of /proc/cpuinfo that they require.
# Source: arch/arm64/kernel/cpuinfo.c and arch/x86/include/asm/cpufeatures.h
_FEATURES: dict[str, frozenset[str]] = {
    "neon": frozenset({"asimd"}),
    "dotprod": frozenset({"asimddp"}),
    "fp16": frozenset({"fphp", "asimdhp"}),
    "i8mm": frozenset({"i8mm"}),
    "bf16": frozenset({"bf16"}),
    "sve": frozenset({"sve"}),
    "sve2": frozenset({"sve2"}),
    "sme": frozenset({"sme"}),
    "sse4_2": frozenset({"sse4_2"}),
    "avx": frozenset({"avx"}),
    "avx2": frozenset({"avx2"}),
    "fma": frozenset({"fma"}),
    "f16c": frozenset({"f16c"}),
    "bmi2": frozenset({"bmi2"}),
    "avx_vnni": frozenset({"avx_vnni"}),
    "avx512f": frozenset({"avx512f"}),
    "avx512bw": frozenset({"avx512bw"}),
    "avx512vl": frozenset({"avx512vl"}),
    "avx512dq": frozenset({"avx512dq"}),
    "avx512cd": frozenset({"avx512cd"}),
    "avx512_vbmi": frozenset({"avx512vbmi"}),
    "avx512_vnni": frozenset({"avx512_vnni"}),
    "avx512_bf16": frozenset({"avx512_bf16"}),
    "avx512_fp16": frozenset({"avx512_fp16"}),
    "amx_int8": frozenset({"amx_tile", "amx_int8"}),
    "amx_bf16": frozenset({"amx_tile", "amx_bf16"}),
}

# (implementer, part) of the MIDR register. Source: arch/arm64/include/asm/cputype.h
_ARM_PARTS: dict[tuple[str, str], str] = {
    ("0x41", "0xb76"): "ARM1176",
    ("0x41", "0xc07"): "Cortex-A7",
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510",
    ("0x41", "0xd47"): "Cortex-A710",
    ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4b"): "Cortex-A78C",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x41", "0xd4e"): "Cortex-X3",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520",
    ("0x41", "0xd81"): "Cortex-A720",
    ("0x41", "0xd82"): "Cortex-X4",
    ("0x4e", "0x004"): "Carmel",
}

EFFICIENCY_PARTS = frozenset(
    {"Cortex-A7", "Cortex-A35", "Cortex-A53", "Cortex-A55", "Cortex-A510", "Cortex-A520"}
)

_SUFFIXES = {"K": 1024, "M": 1024**2, "G": 1024**3}


class CpuInfoEntry(msgspec.Struct, frozen=True):
    """One paragraph of /proc/cpuinfo. `part` is the core's design, if the kernel names it."""

    cpu: int
    model: str | None
    part: str | None
    flags: frozenset[str]


class Cpu(msgspec.Struct, frozen=True):
    """`model` is, for example, "Intel(R) N100" or "4x Cortex-A76 + 4x Cortex-A55". `features` are common
    to all cores, since a thread may run on any of them. `llc_bytes`: largest cache of CPU 0."""

    model: str | None = None
    features: tuple[str, ...] = ()
    llc_bytes: int | None = None
    has_hypervisor_flag: bool = False


def read_processors(tree: SystemFiles) -> list[CpuInfoEntry]:
    """The processors in /proc/cpuinfo, in order."""
    text = tree.text("/proc/cpuinfo") or ""
    processors = []
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in paragraph.splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
        number = parse_int(fields.get("processor"))
        if number is None:
            continue
        flags = fields.get("flags") or fields.get("Features") or ""
        code = (fields.get("CPU implementer", ""), fields.get("CPU part", ""))
        processors.append(
            CpuInfoEntry(
                cpu=number,
                model=fields.get("model name"),
                part=_ARM_PARTS.get(code) or (" ".join(code) if all(code) else None),
                flags=frozenset(flags.split()),
            )
        )
    return processors


def read_cpu(tree: SystemFiles, processors: list[CpuInfoEntry]) -> Cpu:
    """Name, common instruction sets and cache of the processor."""
    if not processors:
        tree.note("processor unknown: /proc/cpuinfo lists none")
    flags = [processor.flags for processor in processors]
    common = frozenset.intersection(*flags) if flags else frozenset()
    return Cpu(
        model=_model(processors),
        features=tuple(name for name, needed in _FEATURES.items() if needed <= common),
        llc_bytes=_llc_bytes(tree),
        has_hypervisor_flag="hypervisor" in common,
    )


def _model(processors: list[CpuInfoEntry]) -> str | None:
    parts = [processor.part for processor in processors if processor.part]
    if parts:
        # Largest part name first: within a board's pair, the faster design has the larger one.
        unique = sorted(set(parts), key=lambda part: (part in EFFICIENCY_PARTS, part))
        return " + ".join(f"{parts.count(part)}x {part}" for part in unique)
    return next((processor.model for processor in processors if processor.model), None)


def _llc_bytes(tree: SystemFiles) -> int | None:
    base = "/sys/devices/system/cpu/cpu0/cache"
    sizes = []
    for index in tree.names(base, "index*"):
        text = tree.text(f"{base}/{index}/size") or ""
        number = parse_int(text[:-1])
        if number is not None and text[-1:] in _SUFFIXES:
            sizes.append(number * _SUFFIXES[text[-1:]])
    return max(sizes, default=None)
