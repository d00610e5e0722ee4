"""Who gives up a connection when all places are taken. Pure: plain data in, a choice out.

An unfinished connection is one that has shown no key and waits for its client, or whose body has not
arrived. They may hold three quarters of all places, so that a client with a key finds one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class ConnectionRank(IntEnum):
    """How much would be lost with a connection, least first."""

    LINGERING = 0  # answered; only what its client still sends is thrown away
    UNKNOWN = 1  # no request with a key or from this machine yet, and it waits for its client
    SENDING = 2  # its body arrives
    UNREAD = 3  # its client does not read the answer
    IDLE = 4  # between two requests of somebody known
    BUSY = 5  # a request is being answered: never given up


UNFINISHED = ConnectionRank.SENDING  # and all below
UNFINISHED_SHARE = 0.75
AT_ONCE = 32  # the part of all places that is given up at once


class ConnectionSeat(NamedTuple):
    """One connection: since when it stands as it does (monotonic seconds), and from which peer."""

    standing: ConnectionRank
    since_s: float
    peer: str


def victims(seats: Sequence[ConnectionSeat], n_places: int) -> list[int]:
    """Which connections to close so that a new one, the last of `seats`, has a place; by index.

    Of those with least to lose the peer with the most connections gives one up, its oldest; of unfinished
    ones some at once, since looking at all of them costs as much as a request. It is the new one itself
    when all others are being answered.
    """
    n_unfinished = sum(seat.standing <= UNFINISHED for seat in seats)
    if len(seats) <= n_places and n_unfinished <= max(1, UNFINISHED_SHARE * n_places):
        return []
    last = len(seats) - 1
    able = [i for i, seat in enumerate(seats) if seat.standing != ConnectionRank.BUSY and i != last]
    if not able:
        return [last]
    least = min(seats[i].standing for i in able)
    able = [i for i in able if seats[i].standing == least]
    crowd = Counter(seats[i].peer for i in able)
    able.sort(key=lambda i: (-crowd[seats[i].peer], seats[i].since_s))
    return able[: max(1, n_places // AT_ONCE) if least <= UNFINISHED else 1]
