"""Measures how fast one model runs on this device, with each of the options that are worth comparing.

    python -m edgeagent.engine.llama.measure MODEL.gguf --threads 1,2 --limit 14

The process prints progress and then the result, one JSON object a line. The most useful figures come first;
when the time is up, the rest is omitted.

    1. decode by thread count, at the start of a context
    2. batch curve: seconds of a step with k sequences over a step with one
    3. prefill by chunk size
    4. KV types, flash attention, repacked weights: decode after 256 tokens, and prefill of those 256
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.engine.llama.model import Llama
from edgeagent.errors import EdgeAgentError
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.measurement import (
    MEASURED_DEPTH,
    MEASURED_STEPS,
    ModelMeasurement,
    PrefillDecode,
)
from edgeagent.worker import confinement

BATCH_SIZES = (2, 4, 8)
CHUNKS = (32, 128, 384)
STEP_LIMIT_S = 0.8


class StepTimer:
    """Times steps of one model in one context; positions are always new ones."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._vocab = llama.n_vocab

    def prefill_s(self, n: int) -> float:
        """Seconds for a prompt of n tokens in one chunk, on an empty context."""
        self._llama.clear()
        tokens = array("i", [(7919 * i + 13) % self._vocab for i in range(n)])
        batch = self._llama.batch
        batch.clear()
        batch.add(0, tokens, 0, n_outputs=1)
        started = time.perf_counter()
        self._llama.decode()
        return time.perf_counter() - started

    def step_s(self, n_seq: int, first_pos: int) -> float:
        """Seconds of a step with one new token for each of n_seq sequences: median of some."""
        times: list[float] = []
        one = array("i", [0])
        begun = time.perf_counter()
        for i in range(MEASURED_STEPS):
            batch = self._llama.batch
            batch.clear()
            for seq_id in range(n_seq):
                one[0] = (7919 * (i + seq_id) + 13) % self._vocab
                batch.add(seq_id, one, first_pos + i, n_outputs=1)
            started = time.perf_counter()
            self._llama.decode()
            times.append(time.perf_counter() - started)
            if time.perf_counter() - begun > STEP_LIMIT_S and len(times) >= 3:
                break
        return statistics.median(times[1:])


class MeasurementPlan:
    """What is measured, in order, within `limit_s` seconds."""

    def __init__(
        self, path: Path, threads: list[int], limit_s: float, report: Callable[[str], None]
    ) -> None:
        self._path = path
        self._threads = threads
        self._deadline = time.monotonic() + limit_s
        self._report = report
        self._best = max(threads)

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._deadline

    def run(self) -> ModelMeasurement:
        with self._bench() as (bench, llama):
            decode = self._decode(bench, llama)
            self._best = max(decode, key=lambda n: decode[n])
            llama.set_threads(self._best)
            curve = self._curve(bench, llama)
            prefill = self._prefill(bench)
            weights, n_params = llama.weights_bytes, llama.n_params
        options: dict[str, PrefillDecode] = {}
        choices: tuple[tuple[str, dict[str, object]], ...] = (
            ("kv f16", {}),
            ("kv q8_0", {"kv_type": "q8_0", "flash_attention": "on"}),
            ("flash on", {"flash_attention": "on"}),
            ("flash off", {"flash_attention": "off"}),
            ("repack on", {}),
            ("repack off", {"repack": False}),
        )
        for name, config in choices:
            if self.is_over:
                break
            if not config and "kv f16" in options:
                options[name] = options["kv f16"]  # the same configuration
                continue
            self._report(name)
            options[name] = self._option(**config)
        return ModelMeasurement(
            model=self._path.name,
            weights_bytes=weights,
            n_params=n_params,
            n_threads=self._best,
            decode_tok_s=decode,
            batch_curve=curve,
            prefill_tok_s=prefill,
            options=options,
        )

    @contextmanager
    def _bench(self, **options: object) -> Iterator[tuple[StepTimer, Llama]]:
        defaults = {
            "model_id": self._path.name, "path": str(self._path), "n_ctx": 1024, "n_seq": max(BATCH_SIZES),
            "n_prefixes": 0, "n_threads": self._best,
        }  # fmt: skip
        llama = Llama(EngineConfig(**(defaults | options)))  # type: ignore[arg-type]
        try:
            llama.warm_up()
            yield StepTimer(llama), llama
        finally:
            llama.close()

    def _decode(self, bench: StepTimer, llama: Llama) -> dict[int, float]:
        rates: dict[int, float] = {}
        for n in self._threads:
            if rates and self.is_over:
                break
            self._report(f"decode, {n} threads")
            llama.set_threads(n)
            llama.clear()
            rates[n] = 1 / bench.step_s(1, 0)
        return rates

    def _curve(self, bench: StepTimer, llama: Llama) -> dict[int, float]:
        llama.clear()
        alone = bench.step_s(1, 0)
        curve = {1: 1.0}
        for k in BATCH_SIZES:
            if self.is_over:
                break
            self._report(f"batch of {k}")
            llama.clear()
            curve[k] = bench.step_s(k, 0) / alone
        return curve

    def _prefill(self, bench: StepTimer) -> dict[int, float]:
        rates: dict[int, float] = {}
        for n in CHUNKS:
            if self.is_over:
                break
            self._report(f"prefill, chunks of {n}")
            rates[n] = n / bench.prefill_s(n)
        return rates

    def _option(self, **options: object) -> PrefillDecode:
        with self._bench(**options) as (bench, _):
            prefill = MEASURED_DEPTH / bench.prefill_s(MEASURED_DEPTH)
            return PrefillDecode(prefill, 1 / bench.step_s(1, MEASURED_DEPTH))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="edgeagent.engine.llama.measure", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", default="1", help="comma-separated thread counts")
    parser.add_argument("--limit", type=float, default=14.0, help="seconds for everything")
    args = parser.parse_args(arguments)
    confinement.enter(read=[args.model])

    def report(what: str) -> None:
        print(msgspec.json.encode({"doing": what}).decode(), flush=True)

    try:
        inspect(args.model)
        threads = [int(n) for n in args.threads.split(",")]
        found = MeasurementPlan(args.model, threads, args.limit, report).run()
    except EdgeAgentError as exc:
        print(msgspec.json.encode({"error": exc.message}).decode(), flush=True)
        return 1
    print(msgspec.json.encode({"result": found}).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
