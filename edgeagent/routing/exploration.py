"""Draws a model among the candidates for a small share of the requests, with a probability that is recorded.

Without it a log tells nothing of what another model would have answered. The draw depends on the id of the
request alone, which the daemon makes: the same request and state give the same decision. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

_UNITS = 1 << 64


def chances_of(wanted: str, able: Sequence[str], share: float) -> dict[str, float]:
    """The probability of each model that can answer: the `share` is drawn evenly, the rest gets `wanted`."""
    each = share / len(able)
    return {one: each + (1.0 - share if one == wanted else 0.0) for one in able}


def drawn(request_id: str, wanted: str, chances: Mapping[str, float]) -> str:
    """The model of a request by its id. One without an id, as in a dry run, gets `wanted`."""
    if not request_id:
        return wanted
    place = int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "big") / _UNITS
    # `wanted` comes first, so that a share which grows changes no more requests than it must.
    for one in (wanted, *(other for other in chances if other != wanted)):
        place -= chances[one]
        if place < 0:
            return one
    return wanted
