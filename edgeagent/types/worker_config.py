"""Configuration, facts and health of a worker, for every kind of worker."""

from __future__ import annotations

import msgspec


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to load one model into a worker. `path` leads to the file or the directory of the model;
    `n_threads` is the most threads that it can use."""

    model_id: str
    path: str
    n_threads: int = 2


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reports once its model is loaded. `load_ms` counts from the message `Load`."""

    pid: int
    load_ms: float


class ComputeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker may use: threads, and the part of its usual time that a chunk of a prompt may take.

    `n_cores_taken`: cores in use by other programs. When they begin or cease, what was measured of thread
    counts is out of date.
    """

    n_threads: int
    chunk_share: float = 1.0
    n_cores_taken: int = 0


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The last heartbeat of a worker: steps done, requests, resident memory, threads of the last step (0:
    unknown). `reserved_bytes` more may become resident at any time: what it set aside and has not used."""

    n_steps: int = 0
    n_running: int = 0
    n_waiting: int = 0
    rss_bytes: int = 0
    reserved_bytes: int = 0
    n_threads: int = 0
