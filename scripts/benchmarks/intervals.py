"""How exact a share is that was counted."""

from __future__ import annotations

import math

Z = 1.96  # of 95%


def interval(n: int, total: int) -> tuple[float, float]:
    """The 95% interval of the share `n / total`, within 0..1. Source: Wilson 1927."""
    share = n / total
    middle = (share + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z * math.sqrt(share * (1 - share) / total + (Z / (2 * total)) ** 2) / (1 + Z * Z / total)
    return max(0.0, middle - half), min(1.0, middle + half)
