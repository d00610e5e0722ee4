"""How the usable cores are divided among the workers that are computing now.

OpenMP's threads spin at barriers: one thread too many on a core costs a factor, not a share. So the
sum of threads never exceeds the cores, and is given anew whenever a worker begins or ends its work.
With more workers than cores each gets one thread, which never waits at a barrier, and the kernel
shares out the time.
"""

from __future__ import annotations

from collections.abc import Sequence


def share_cores(n_cores: int, wanted: Sequence[int]) -> list[int]:
    """Threads for each of the active workers, at most what each wants, at least one.

    The first to have come gets what is left over. Sum: at most `n_cores` while there are as many
    cores as workers.
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
