"""A bare llama.cpp decode loop, to measure what the server adds to it. Prints one JSON line.

    raw_loop.py MODEL N_SEQ N_TOKENS N_THREADS N_CTX

Same library, model, threads, KV layout and greedy choice as the engine; no server, no text, no client.
"""

from __future__ import annotations

import array
import json
import sys
import time

from edgeagent.engine.llama.model import Llama
from edgeagent.types.engine_config import EngineConfig
from edgeagent.worker import confinement

PROMPT = (
    "<|im_start|>user\nTell me a long story about number {i} and a ferry in the harbour.<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def main() -> None:
    confinement.enter(read=sys.argv[1:2])  # as a worker does
    path, n_seq, n_tokens, n_threads, n_ctx = sys.argv[1], *map(int, sys.argv[2:6])
    llama = Llama(
        EngineConfig(
            model_id="raw", path=path, n_ctx=n_ctx, n_seq=8, n_prefixes=24, n_threads=n_threads
        )
    )
    batch = llama.batch
    lengths, last = [], []
    prefill_s, n_prompt = 0.0, 0
    for i in range(n_seq):
        tokens = llama.tokenize(PROMPT.format(i=i), add_special=True)
        batch.clear()
        batch.add(i, tokens, 0, n_outputs=1)
        started = time.perf_counter()
        last.append(int(llama.decode()[0].argmax()))
        prefill_s += time.perf_counter() - started
        n_prompt += len(tokens)
        lengths.append(len(tokens))
    one = array.array("i", [0])
    started = time.perf_counter()
    for _ in range(n_tokens):
        batch.clear()
        for i in range(n_seq):
            one[0] = last[i]
            batch.add(i, one, lengths[i], n_outputs=1)
            lengths[i] += 1
        last = [int(row.argmax()) for row in llama.decode()]
    took = time.perf_counter() - started
    print(json.dumps({
        "decode_tok_s": n_seq * n_tokens / took,
        "step_ms": 1e3 * took / n_tokens,
        "prefill_tok_s": n_prompt / prefill_s,
        "weights_bytes": llama.weights_bytes,
        "kv_bytes": llama.kv_bytes(),
    }))  # fmt: skip


main()
