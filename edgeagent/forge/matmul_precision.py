"""The precision of matrix products on this processor: bf16 if that is faster."""

from __future__ import annotations

import contextlib
import time
from functools import cache
from typing import Any

import torch


@cache
def bf16_is_faster() -> bool:
    """Whether this processor multiplies matrices faster in bf16 than in f32: with AMX or AVX512_BF16 it
    does; without them bf16 is ten times slower."""

    def took_s(dtype: torch.dtype) -> float:
        a, b = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        return min(times)

    return took_s(torch.bfloat16) < 0.8 * took_s(torch.float32)


def autocast(is_bf16: bool) -> Any:
    """A context in which matrices are multiplied in bf16, or one that changes nothing."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if is_bf16 else contextlib.nullcontext()
