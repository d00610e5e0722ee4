"""Who gives up a connection: decided by tables, without a socket."""

from __future__ import annotations

import pytest

from edgeagent.api.http.connection_limits import ConnectionRank, ConnectionSeat, Places, victims

L, N, S, F, R, I, P, B = ConnectionRank  # noqa: E741  lingering, unknown, sending, fresh, unread, idle, paused, busy


def seats(
    *given: tuple[ConnectionRank, float] | tuple[ConnectionRank, float, str],
) -> list[ConnectionSeat]:
    return [ConnectionSeat(one[0], one[1], one[2] if len(one) > 2 else "a") for one in given]


@pytest.mark.parametrize(
    ("given", "n_places", "gone"),
    [
        # room for all, and for those with a key in any case
        ([(I, 1), (N, 2)], 4, None),
        ([(N, 1), (N, 2), (N, 3)], 4, None),
        ([(N, 1), (N, 2), (N, 3), (N, 4)], 4, 0),
        ([(S, 1), (S, 2), (S, 3), (N, 4)], 4, 0),
        ([(I, 1), (B, 1), (B, 1), (N, 4)], 4, None),
        # the least is lost, the oldest first
        ([(B, 0), (I, 1), (R, 2), (S, 3), (N, 4)], 4, 3),
        ([(B, 0), (I, 1), (R, 2), (B, 3), (N, 4)], 4, 2),
        ([(B, 0), (I, 1), (B, 2), (I, 0.5), (N, 4)], 4, 3),
        ([(B, 0), (L, 3), (N, 1), (S, 0), (N, 4)], 4, 1),
        ([(S, 2), (S, 1), (B, 0), (B, 0), (N, 4)], 4, 1),
        # a request that is still on its way is worth more than a body that does not come
        ([(S, 1), (F, 0), (S, 3), (F, 4)], 4, 0),
        ([(N, 1), (F, 0), (B, 3), (S, 0), (F, 4)], 4, 0),
        ([(F, 0), (F, 1), (F, 2), (F, 4)], 4, 0),
        # a client that has not read for a moment goes before the new one is refused, and after all others
        ([(B, 0), (P, 2), (P, 1), (B, 3), (F, 4)], 4, 2),
        ([(B, 0), (P, 2), (I, 3), (B, 3), (F, 4)], 4, 2),
        # nobody but the new one waits
        ([(B, 0), (B, 1), (B, 2), (B, 3), (N, 4)], 4, 4),
        ([(B, 0), (N, 4)], 1, 1),
        ([(N, 0), (N, 4)], 1, 0),
        # the peer with most of them gives up its oldest, whoever came first
        ([(N, 1, "good"), (N, 2, "bad"), (N, 3, "bad"), (B, 0, "x"), (N, 9, "y")], 4, 1),
        ([(N, 1, "good"), (S, 2, "bad"), (S, 3, "bad"), (B, 0, "x"), (N, 9, "y")], 4, 0),
    ],
)
def test_who_has_least_to_lose_gives_a_place_up(given, n_places, gone):
    assert victims(seats(*given), n_places) == ([] if gone is None else [gone])


def test_connections_that_send_nothing_never_hold_all_places_against_a_known_client():
    n_places, held = 16, [ConnectionSeat(I, 0.0, "good")]
    for i in range(600):
        held.append(ConnectionSeat(N, 1.0 + i, "bad"))
        for index in victims(held, n_places):
            held.pop(index)
    assert ConnectionSeat(I, 0.0, "good") in held
    assert len(held) <= 1 + 0.75 * n_places


def test_many_that_send_nothing_give_up_some_places_at_once_the_oldest_of_them():
    held = [ConnectionSeat(N, float(i), "bad") for i in range(640)]
    assert victims(held, 640) == list(range(20))
    assert victims([ConnectionSeat(I, float(i), "good") for i in range(641)], 640) == [0]


def test_all_connections_are_looked_at_only_when_places_may_be_short():
    places = Places(16)
    held: list[ConnectionSeat] = []
    n_looks = 0
    for i in range(600):
        held.append(ConnectionSeat(N, float(i), "bad"))
        if not places.take():
            n_looks += 1
            for index in places.choose(held):
                held.pop(index)
        assert len(held) <= 16
    assert n_looks < 600

    places, held, n_looks = Places(640), [], 0
    for i in range(2000):
        held.append(ConnectionSeat(N, float(i), "bad"))
        if not places.take():
            n_looks += 1
            gone = set(places.choose(held))
            held = [seat for j, seat in enumerate(held) if j not in gone]
        assert len(held) <= 640
    assert n_looks < 2000 / 15, "each look makes twenty places"


def test_a_place_that_a_known_client_has_left_is_found_at_the_next_look():
    places = Places(4)
    held = [ConnectionSeat(B, float(i), "good") for i in range(4)]
    assert all(places.take() for _ in held)
    assert not places.take()
    assert places.choose([*held, ConnectionSeat(N, 9.0, "new")]) == [4], "nobody else can go"
    held.pop()
    assert not places.take()
    assert places.choose([*held, ConnectionSeat(N, 10.0, "new")]) == []
