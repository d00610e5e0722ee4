"""A bare llama.cpp loop over texts, to measure what the server adds to it. Prints one JSON line.

    raw_embed.py MODEL N_THREADS SECONDS < TEXTS.json

`TEXTS.json` is a list of batches; each is computed in as few calls as `n_batch` allows, from tokens.
"""

from __future__ import annotations

import json
import sys
import time
from array import array

from edgeagent.engine.embedding.encoder import Encoder
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker import confinement

N_BATCH = 512


def steps_of(texts: list[array[int]]) -> list[list[array[int]]]:
    steps: list[list[array[int]]] = [[]]
    for tokens in texts:
        if steps[-1] and sum(map(len, steps[-1])) + len(tokens) > N_BATCH:
            steps.append([])
        steps[-1].append(tokens)
    return steps


def main() -> None:
    confinement.enter(read=sys.argv[1:2])  # as a worker does
    path, n_threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    encoder = Encoder(
        EngineConfig(
            model_id="raw", path=path, task="embed", n_ctx=512, n_seq=64, n_prefixes=0,
            n_batch=N_BATCH, n_threads=n_threads,
        )
    )  # fmt: skip
    encoder.warm_up()
    batches = [
        [encoder.tokens_of(text, add_special=True, parse_special=False) for text in batch]
        for batch in json.load(sys.stdin)
    ]
    n_texts, n_tokens, i = 0, 0, 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        batch = batches[i % len(batches)]
        for step in steps_of(batch):
            encoder.encode(step)
        n_texts, n_tokens, i = n_texts + len(batch), n_tokens + sum(map(len, batch)), i + 1
    print(json.dumps({"texts_s": n_texts / took, "tok_s": n_tokens / took}))


main()
