"""Divides the usable cores among the workers that are computing.

OpenMP's threads spin at barriers, so that one thread too many makes all of them several times slower. The
sum of threads therefore never exceeds the cores; it is divided again whenever a worker starts or stops
computing. With more workers than cores each gets one thread, which never waits at a barrier, and the kernel
divides the time.
"""

from __future__ import annotations

from collections.abc import Sequence


def share_cores(n_cores: int, wanted: Sequence[int]) -> list[int]:
    """The threads for each active worker: at least one, at most as many as it wants.

    The first worker gets what is left over. The sum is at most `n_cores` unless there are more workers than
    cores.
    """
    given = [1] * len(wanted)
    left = n_cores - len(wanted)
    while left > 0:
        hungry = [i for i, n in enumerate(given) if n < wanted[i]]
        if not hungry:
            break
        poorest = min(hungry, key=lambda i: (given[i], i))
        given[poorest] += 1
        left -= 1
    return given
