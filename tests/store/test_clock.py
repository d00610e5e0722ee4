"""When the device's clock is believed: a table of what clocks without a battery do."""

from __future__ import annotations

import pytest

from edgeagent.store.clock import (
    BUILD_MS,
    ClockBounds,
    ClockReading,
    DeviceClock,
    LastReading,
    judge,
    remember,
    remembered,
)

NOW = BUILD_MS + 30 * 86_400_000
HOUR, DAY, YEAR = 3_600_000, 86_400_000, 365 * 86_400_000


def at(wall_ms, since_boot_s=1000.0, boot="a", synced=False):
    return ClockReading(wall_ms, since_boot_s, boot, synced)


def was(wall_ms, since_boot_s=1000.0, boot="a", doubt=None, even_s=0.0):
    return LastReading(wall_ms, since_boot_s, boot, doubt, even_s)


@pytest.mark.parametrize(
    ("now", "last", "newest", "doubt"),
    [
        # 1970 at boot, with and without rows, vouched for or not
        (at(0), None, None, "before_build"),
        (at(12_345, synced=True), was(NOW), NOW, "before_build"),
        # a new store; a store whose memory of the clock is gone
        (at(NOW), None, None, None),
        (at(NOW), None, NOW - HOUR, "first_start"),
        # even running
        (at(NOW + HOUR, 4600), was(NOW), NOW, None),
        # ten years ahead and back within one boot
        (at(NOW + 10 * YEAR, 1010), was(NOW), NOW, "jumped"),
        (at(NOW, 1010), was(NOW + 10 * YEAR), None, "jumped"),
        (at(NOW + 10 * YEAR, 1010, synced=True), was(NOW), NOW, None),
        # ten years ahead over a restart; a night off; a week and a half in a drawer
        (at(NOW + 10 * YEAR, 20, "b"), was(NOW), NOW, "jumped"),
        (at(NOW + 12 * HOUR, 20, "b"), was(NOW), NOW, None),
        (at(NOW + 10 * DAY, 20, "b"), was(NOW), NOW, "jumped"),
        # back to an earlier time over a restart
        (at(NOW - DAY, 20, "b"), was(NOW), None, "jumped"),
        # rows from the future
        (at(NOW + HOUR, 4600), was(NOW), NOW + 10 * YEAR, "before_newest_row"),
        (at(NOW + HOUR, 4600, synced=True), was(NOW), NOW + 10 * YEAR, None),
        # a doubt goes on until it has been lived with for a day
        (at(NOW + HOUR, 4600), was(NOW, doubt="jumped"), NOW, "jumped"),
        (at(NOW + HOUR, 4600), was(NOW, doubt="jumped", even_s=82_700), NOW, "jumped"),
        (at(NOW + HOUR, 4600), was(NOW, doubt="jumped", even_s=82_800), NOW, None),
    ],
)
def test_a_clock_is_doubted(now, last, newest, doubt):
    assert judge(now, last, newest).doubt == doubt


def test_running_time_counts_over_restarts():
    """A device that is switched off each night still comes to purge."""
    last, wall = was(NOW, doubt="jumped"), NOW
    for day in range(3):
        wall += DAY
        found = judge(at(wall, 10 * 3600, f"boot-{day}"), last, None)
        last = found.remember
        assert (found.doubt is None) == (day == 2)
    assert last.doubt is None


def test_a_new_jump_begins_the_wait_anew():
    found = judge(at(NOW + YEAR, 1010), was(NOW, doubt="jumped", even_s=86_000), None)
    assert (found.doubt, found.wait_s) == ("jumped", ClockBounds().confirm_s)


def test_a_clock_behind_its_rows_is_believed_after_the_wait_and_stays_so():
    last, newest = was(NOW), NOW + 10 * YEAR
    doubts = []
    for hour in range(1, 30):
        found = judge(at(NOW + hour * HOUR, 1000 + hour * 3600), last, newest)
        last = found.remember
        doubts.append(found.doubt)
        assert not found.may_redate
    assert doubts == ["before_newest_row"] * 24 + [None] * 5


def test_only_ntp_allows_rows_to_be_dated_anew():
    assert judge(at(NOW, synced=True), None, NOW + YEAR).may_redate
    assert not judge(at(NOW), None, None).may_redate


def test_what_was_seen_is_remembered_in_the_database(conn):
    assert remembered(conn) is None
    seen = was(NOW, doubt="jumped", even_s=3.5)
    remember(conn, seen)
    assert remembered(conn) == seen
    conn.execute("update checkpoint set body = '{\"x\": 1}' where name = 'clock'")
    assert remembered(conn) is None


def test_the_clock_of_this_device_is_read():
    one, two = DeviceClock().read(), DeviceClock().read()
    assert one.wall_ms > BUILD_MS
    assert 0 < one.since_boot_s <= two.since_boot_s
    assert one.boot_id == two.boot_id
    assert isinstance(one.is_synchronised, bool)
