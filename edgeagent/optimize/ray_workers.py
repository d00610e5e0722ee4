"""Measures candidates over a Ray cluster: each is a task of its own, which may run on any node.

Every node needs edgeagent and the files of the search under the same paths (a shared directory). Ray runs the
task of a worker that died again: it costs the repeat of its candidate. Ray is imported here only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgeagent.errors import EdgeAgentError, EngineDied, InvalidParameter
from edgeagent.optimize.candidates import MAX_TRIES, Bench, Candidate
from edgeagent.optimize.evaluate import Reference
from edgeagent.worker.spawn import environment_of_ours

LOCAL_WORKERS = 2


def ray_library() -> Any:
    """The package ray. Raises: InvalidParameter where it is not installed."""
    try:
        import ray
    except ImportError as exc:
        raise InvalidParameter(
            "--workers ray needs the package ray, which is not installed: `pip install "
            "'edgeagent[optimize-ray]'`."
        ) from exc
    return ray


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`, or to one of two workers on this machine.

    Raises: InvalidParameter where nothing answers at the address.
    """
    ray = ray_library()
    path = environment_of_ours().get("PYTHONPATH")
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"num_cpus": LOCAL_WORKERS, "include_dashboard": False}
    try:
        ray.init(
            **options, log_to_driver=False, logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": path}} if path else None,
        )  # fmt: skip
    except (ConnectionError, ValueError) as exc:
        raise InvalidParameter(
            f"No Ray cluster answers at {address!r} ({exc}): start one by `ray start --head`, or leave "
            "--ray-address out."
        ) from exc
    try:
        yield ray
    finally:
        ray.shutdown()


async def over_ray(
    ray: Any,
    bench: Bench,
    left: Sequence[Candidate],
    known: Reference | None,
    deadline_s: float | None,
) -> AsyncIterator[tuple[Candidate, dict[str, float]]]:
    """The values of the candidates as they come; none begins after the deadline.

    Raises: EdgeAgentError where a candidate fails every time.
    """
    n_cpus = 1 if bench.rates is not None else bench.evaluation.n_threads
    task = ray.remote(_measured).options(
        num_cpus=n_cpus, max_retries=MAX_TRIES - 1, retry_exceptions=[EngineDied]
    )
    shared = ray.put((bench, known))
    most = max(1, int(ray.cluster_resources().get("CPU", 1) // n_cpus))
    waiting, running = list(left), dict[Any, Candidate]()
    while waiting or running:
        while waiting and len(running) < most and (not deadline_s or time.monotonic() < deadline_s):
            one = waiting.pop(0)
            running[task.remote(shared, one)] = one
        if not running:
            return
        (done,), _ = await asyncio.to_thread(ray.wait, list(running), num_returns=1)
        one = running.pop(done)
        try:
            values: dict[str, float] = await asyncio.to_thread(ray.get, done)
        except ray.exceptions.RayError as exc:
            raise EdgeAgentError(
                f"Candidate {one.name} failed on a worker of Ray, {MAX_TRIES} times at most: {_reason(exc)}"
            ) from exc
        yield one, values


def _measured(shared: tuple[Bench, Reference | None], one: Candidate) -> dict[str, float]:
    """The task of a worker."""
    bench, known = shared
    return asyncio.run(bench.measure(one, known))


def _reason(exc: Exception) -> str:
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(exc).__name__
