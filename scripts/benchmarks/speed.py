"""Decode and prefill rates, predicted and measured. Prints one line for each model and KV type.

    scripts/bench speed SMOLLM2.gguf [N_THREADS]      SmolLM2 lends its vocabulary to the synthetic models

The second error of a line is what is left with the pace that the first model sets (`speed.paced`), which
is how `models recommend` predicts after `doctor --measure`: all other models are held out from it. It is
measured anew just before and just after each of them, since a machine's own pace changes by the minute.

Bandwidth and matrix throughput are measured right before each model. One thread by default: on a
machine that others use too, a second one waits for them at every barrier. Of 30 single steps the
fifth fastest counts, as the rates count their best pass.
"""

from __future__ import annotations

import argparse
import array
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.sizing.model_shape import from_facts
from edgeagent.catalog.sizing.speed import (
    Rates,
    decode_tokens_per_s,
    error_of,
    paced,
    prefill_tokens_per_s,
)
from edgeagent.device.microbenchmarks import measure
from edgeagent.device.probe import probe
from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker.seccomp import refuse_tiles
from tests.catalog.synthetic import DESIGNS, write_model

# The last two were not among those that the shares in `catalog/sizing/speed.py` were fitted on.
NAMES = (
    "llama-q4_0", "qwen2-q8_0", "gemma3-f16", "llama-q4_k", "llama-wide-q8_0", "qwen2-deep-q4_k",
)  # fmt: skip
DEPTH = 64
PROMPT = 512
MAX_DRIFT = 0.15
MAX_REPEATS = 8


def main() -> None:
    refuse_tiles()  # as a worker does
    parser = argparse.ArgumentParser(
        prog="scripts/bench speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("donor", type=Path, metavar="SMOLLM2.gguf")
    parser.add_argument("n_threads", type=int, nargs="?", default=1)
    args = parser.parse_args()
    donor, n_threads = args.donor, args.n_threads
    with tempfile.TemporaryDirectory() as folder:
        paths = [donor]
        for name in NAMES:
            paths.append(write_model(Path(folder) / f"{name}.gguf", DESIGNS[name], donor))
        for path in paths:
            report(path, donor, n_threads)


def report(path: Path, donor: Path, n_threads: int) -> None:
    os.sync()  # writing a model back to the disk would take a core from the measure
    rates, (decode, prefill), sets_pace = steadily(path, donor, n_threads)
    known = from_facts(inspect(donor))
    pace = paced(
        rates, known, decode=sets_pace[0], depth=DEPTH, prefill=sets_pace[1], n_prompt=PROMPT
    )
    model = from_facts(inspect(path))
    foretold, with_pace = (decode_tokens_per_s(model, each, depth=DEPTH) for each in (rates, pace))
    print(
        f"{path.stem:28} {rates.bandwidth_bytes_per_s / 1e9:5.1f} GB/s {rates.gflops:5.0f} GFLOP/s"
        f"  decode {foretold:6.1f} / {decode:6.1f} tok/s {error_of(foretold, decode):+6.1%}"
        f" ({error_of(with_pace, decode):+6.1%})",
        end="",
    )
    foretold, with_pace = (
        prefill_tokens_per_s(model, each, n_prompt=PROMPT) for each in (rates, pace)
    )
    print(
        f"  prefill {foretold:6.0f} / {prefill:6.0f} {error_of(foretold, prefill):+6.1%}"
        f" ({error_of(with_pace, prefill):+6.1%})",
        flush=True,
    )


def steadily(
    path: Path, donor: Path, n_threads: int
) -> tuple[Rates, tuple[float, float], tuple[float, float]]:
    """The machine's rates, the model's and the donor's, from a time in which the machine's did not change.

    A virtual machine may lose a core for seconds: then all of them are measured again.
    """
    before, known = rates_now(n_threads), run(donor, n_threads)
    for _ in range(MAX_REPEATS):
        found = run(path, n_threads)
        known_after, after = run(donor, n_threads), rates_now(n_threads)
        pairs = (
            (after.bandwidth_bytes_per_s, before.bandwidth_bytes_per_s),
            (after.gflops, before.gflops),
            (known_after[0], known[0]),
        )
        drift = max(abs(error_of(now, then)) for now, then in pairs)
        if drift <= MAX_DRIFT:
            mean = (known[0] + known_after[0]) / 2, (known[1] + known_after[1]) / 2
            return after, found, mean
        before, known = after, known_after
    raise SystemExit(f"The machine's rates change by {drift:.0%}: measure when it is quiet.")


def rates_now(n_threads: int) -> Rates:
    """Rates with `n_threads`. Other load can make a measure run out of time: tried three times."""
    for _ in range(3):
        found = measure(probe(), limit_s=6.0)
        bandwidth = {rate.n_threads: rate.value for rate in found.memory_gb_per_s}
        gflops = {rate.n_threads: rate.value for rate in found.gemm_gflop_per_s}
        if n_threads in bandwidth and n_threads in gflops:
            return Rates(bandwidth[n_threads] * 1e9, gflops[n_threads])
    raise SystemExit(f"No rates with {n_threads} thread(s): {'; '.join(found.notes)}")


def step_s(llama: Llama, tokens: list[int], first: int) -> float:
    """Seconds of a step with some tokens of a sequence from position `first` on."""
    llama.batch.clear()
    llama.batch.add(0, array.array("i", tokens), first, n_outputs=1)
    started = time.perf_counter()
    llama.decode()
    return time.perf_counter() - started


def run(path: Path, n_threads: int) -> tuple[float, float]:
    """Measured (decode, prefill) tokens per second of one sequence in f16."""
    config = EngineConfig(model_id="bench", path=str(path), n_ctx=2048, n_threads=n_threads)
    llama = Llama(config)
    llama.warm_up()
    prompt = [20 + i % 400 for i in range(PROMPT)]
    prefills = []
    for _ in range(3):
        llama.trim(0, 0)
        prefills.append(step_s(llama, prompt, 0))
    llama.trim(0, DEPTH)
    steps = sorted(step_s(llama, [30 + i], DEPTH + i) for i in range(30))
    llama.close()
    return 1 / steps[4], PROMPT / min(prefills)
