"""How far the device holds back the engines, and why."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

# Other programs use the cores; the processor is hot, or the kernel or firmware slows it; the battery is low.
Reason = Literal["contention", "heat", "battery"]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers together may use now.

    `n_threads`: the most threads; None: as many as there are cores. `chunk_share`: the part of its usual
    time that a chunk of a prompt may take. `n_cores_taken`: cores that other programs use. `reasons` is
    empty if nothing is held back.
    """

    n_threads: int | None = None
    chunk_share: float = 1.0
    n_cores_taken: int = 0
    reasons: tuple[Reason, ...] = ()
