"""The confinement of daemon and workers on this kernel, for `edgeagent doctor`."""

from __future__ import annotations

from rich.table import Table

from edgeagent.settings.environment import variables
from edgeagent.worker.non_dumpable import is_private
from edgeagent.worker.process_environment import worker_environment
from edgeagent.worker.sandbox_probe import SandboxEvidence


def confinement_table(evidence: SandboxEvidence | None) -> Table:
    """One row per layer, as tested in a child process."""
    table = Table("confinement", "", box=None, pad_edge=False)
    for name, value in _rows(evidence).items():
        table.add_row(name, value)
    return table


def _rows(evidence: SandboxEvidence | None) -> dict[str, str]:
    handed_on = len(set(worker_environment()) & set(variables()))
    rows = {
        "daemon's memory": "closed to other processes of its user" if is_private() else "open",
        "environment": f"{handed_on} of {len(variables())} variables reach workers",
    }
    if evidence is None:
        return rows | {"workers": "unknown: the test process did not start"}
    layers = evidence.layers
    return rows | {
        "workers' memory": _held(layers.not_dumpable, "closed to other processes of their user"),
        "privileges": _held(layers.no_new_privs, "cannot be gained"),
        "Landlock": f"version {layers.landlock}"
        if layers.landlock
        else f"no: {layers.missing['landlock']}",
        "seccomp": _held(layers.seccomp, "filter installed", layers.missing.get("seccomp", "")),
        "tested as a worker": f"{len(evidence.refused)} of {_n_tried(evidence)} attempts refused",
    }


def _held(holds: bool, told: str, reason: str = "") -> str:
    return told if holds else f"no: {reason}" if reason else "no"


def _n_tried(evidence: SandboxEvidence) -> int:
    return len(evidence.refused) + len(evidence.reached)


def confinement_problems(evidence: SandboxEvidence | None) -> list[str]:
    """What a compromised worker could reach here, and which layer is missing."""
    if evidence is None:
        return ["The confinement of workers could not be tested: the test process did not start."]
    if not evidence.reached:
        return []
    missing = "; ".join(f"{part}: {why}" for part, why in evidence.layers.missing.items())
    return [
        f"A compromised worker could {', '.join(evidence.reached)}. Missing on this kernel: "
        f"{missing or 'nothing known'}."
    ]
