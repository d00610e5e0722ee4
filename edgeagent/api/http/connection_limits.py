"""Chooses the connections to close when all places are taken. Pure: plain data in, a choice out.

An unfinished connection has shown no key and waits for its client, or is still receiving a body. Unfinished
connections may hold three quarters of all places, so that a client with a key finds one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class ConnectionRank(IntEnum):
    """The value of a connection, the lowest first."""

    LINGERING = 0  # answered; what its client still sends is discarded
    UNKNOWN = 1  # waits for its client, and has had no request with a key or from this machine
    SENDING = 2  # receives a body
    FRESH = 3  # was accepted a moment ago, and its request is still on its way
    UNREAD = 4  # its client does not read the answer
    IDLE = 5  # between two requests of a known client
    PAUSED = 6  # its client has not read the answer for a moment
    BUSY = 7  # answers a request: never closed


UNFINISHED = ConnectionRank.FRESH  # and lower ranks
UNFINISHED_SHARE = 0.75
AT_ONCE = 32  # the part of all places that is freed at once


class ConnectionSeat(NamedTuple):
    """One connection: its rank, since when it has that rank (monotonic seconds), and its peer."""

    standing: ConnectionRank
    since_s: float
    peer: str


def victims(seats: Sequence[ConnectionSeat], n_places: int) -> list[int]:
    """Indexes of the connections to close so that a new one, the last of `seats`, has a place.

    Among those of the lowest rank, the peer with the most connections loses its oldest. Unfinished
    connections are closed several at a time, since looking at all costs as much as a request. The new
    connection itself is closed when all others are being answered.
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


class Places:
    """The places for connections of one daemon.

    Looking at all connections costs as much as a request. After each look it is known how many more can come
    before the next one is needed, since a connection that ends only makes places. Event loop's thread only.
    """

    def __init__(self, n_places: int) -> None:
        self.n_places = n_places
        self._n_free = n_places

    def take(self) -> bool:
        """Count a new connection. False: `choose` has to look at all of them."""
        self._n_free -= 1
        return self._n_free >= 0

    def choose(self, seats: Sequence[ConnectionSeat]) -> list[int]:
        """Indexes of the connections to close; the new one is the last of `seats`."""
        chosen = victims(seats, self.n_places)
        gone = set(chosen)
        kept = [seat for i, seat in enumerate(seats) if i not in gone]
        n_unfinished = sum(seat.standing <= UNFINISHED for seat in kept)
        most_unfinished = int(max(1, UNFINISHED_SHARE * self.n_places))
        self._n_free = max(0, min(self.n_places - len(kept), most_unfinished - n_unfinished))
        return chosen
