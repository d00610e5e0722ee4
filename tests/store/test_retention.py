"""What is old goes, what is held stays, and a wrong clock deletes nothing."""

from __future__ import annotations

import pytest

from edgeagent.store import audit, retention, row_deletion
from edgeagent.store.clock import ClockReading, set_floor
from edgeagent.store.retention import Purge, Sweeper, plan
from tests.store.rows import (
    DAY,
    NOW,
    conversation,
    feedback,
    item,
    n_rows,
    request,
    transcript,
)

HOUR_S = 3600.0
KEY = b"k" * 32
YEAR = 365 * DAY
DAYS = {
    "content": 30, "responses": 90, "transcripts": 30, "feedback": 30, "requests": 10, "audit": 0,
}  # fmt: skip


class FakeClock:
    def __init__(self, wall_ms=NOW, boot="boot-1", since_boot_s=100.0, synced=False):
        self.wall_ms, self.boot, self.since_boot_s, self.synced = (
            wall_ms,
            boot,
            since_boot_s,
            synced,
        )

    def read(self):
        return ClockReading(self.wall_ms, self.since_boot_s, self.boot, self.synced)

    def run(self, seconds):
        """Time goes by as it should."""
        self.wall_ms += int(seconds * 1000)
        self.since_boot_s += seconds

    def restart(self, boot, wall_ms):
        self.boot, self.wall_ms, self.since_boot_s = boot, wall_ms, 20.0


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def clock(store):
    """A clock that this store knows already."""
    clock = FakeClock()
    Sweeper(store, KEY, {}, clock).sweep()
    return clock


def sweep(store, clock, days=DAYS):
    return Sweeper(store, KEY, days, clock).sweep()


def test_a_plan_names_what_is_due_and_leaves_out_what_is_kept_for_ever():
    assert plan(1000 * DAY, {"content": 30, "requests": 0, "audit": 0.5}) == [
        Purge("content", 970 * DAY),
        Purge("audit", 1000 * DAY - DAY // 2),
    ]
    assert plan(1000 * DAY, {}) == []


def test_each_class_goes_by_its_own_age(store, clock):
    def fill(db):
        conversation(db, "old", at=NOW - 100 * DAY)
        conversation(db, "aging", at=NOW - 40 * DAY)
        conversation(db, "new", at=NOW - 5 * DAY)
        item(db, "alone", at=NOW - 100 * DAY)
        transcript(db, "old", at=NOW - 40 * DAY)
        transcript(db, "new", at=NOW - 5 * DAY)
        feedback(db, "resp_new", at=NOW - 40 * DAY)
        feedback(db, "resp_new", at=NOW - 5 * DAY)
        request(db, "old", at=NOW - 11 * DAY)
        request(db, "new", at=NOW - 9 * DAY)

    store.write(fill).result()
    clock.run(60)
    swept = sweep(store, clock)
    assert store.read(n_rows) == {
        "conversation": 2, "response": 2, "response_content": 1, "item": 4, "item_content": 2,
        "item_fts": 2, "transcript": 1, "segment": 2, "segment_content": 2, "segment_fts": 2,
        "feedback": 1, "feedback_content": 1, "request": 1,
    }  # fmt: skip
    assert swept.deleted["item_content"] == 5
    assert swept.is_clean
    assert store.read(row_deletion.marked) is None


def test_a_purge_is_audited_in_its_own_transaction(store, clock):
    store.write(lambda db: request(db, 1, at=NOW - YEAR)).result()
    clock.run(60)
    sweep(store, clock)
    (row,) = store.read(lambda db: audit.page(db, 0, 10))
    assert (row.actor, row.action) == ("system", "retention.purge")
    assert row.object.startswith("requests before ")
    sweep(store, clock)
    assert len(store.read(lambda db: audit.page(db, 0, 10))) == 1  # nothing deleted, nothing told


def test_what_is_held_stays(store, clock):
    def fill(db):
        conversation(db, "held", at=NOW - YEAR, held=True)
        conversation(db, "response_held", at=NOW - YEAR)
        db.execute("update response set is_held = 1 where id = 'resp_response_held'")
        transcript(db, "held", at=NOW - YEAR, held=True)
        feedback(db, "msg_held_0", at=NOW - YEAR)
        feedback(db, "trans_held", at=NOW - YEAR)

    store.write(fill).result()
    before = store.read(n_rows)
    clock.run(60)
    assert not sweep(store, clock).deleted
    assert store.read(n_rows) == before
    store.write(lambda db: db.execute("update conversation set is_held = 0").rowcount).result()
    store.write(lambda db: db.execute("update response set is_held = 0").rowcount).result()
    store.write(lambda db: db.execute("update transcript set is_held = 0").rowcount).result()
    sweep(store, clock)
    assert store.read(n_rows) == {}


def test_more_than_a_batch_goes_in_batches_that_others_can_come_between(store, clock):
    n = 2 * row_deletion.BATCH + 7
    store.write(lambda db: [request(db, i, at=NOW - YEAR) for i in range(n)] and None).result()
    clock.run(60)
    commits = store.counts()["n_commits"]
    assert sweep(store, clock).deleted["request"] == n
    assert store.counts()["n_commits"] - commits >= 3


def test_a_sweep_that_is_told_to_stop_ends_between_batches_and_the_next_goes_on(store, clock):
    n = 3 * row_deletion.BATCH
    store.write(lambda db: [request(db, i, at=NOW - YEAR) for i in range(n)] and None).result()
    clock.run(60)
    asked = iter([False])
    stopping = Sweeper(store, KEY, {"requests": 10}, clock, should_stop=lambda: next(asked, True))
    assert stopping.sweep().deleted["request"] == row_deletion.BATCH
    assert store.read(row_deletion.marked)  # cleaning is still due
    assert sweep(store, clock).deleted["request"] == 2 * row_deletion.BATCH
    assert store.read(row_deletion.marked) is None


def old_and_new(db):
    request(db, "old", at=NOW - 11 * DAY)
    request(db, "new", at=NOW)


def test_ten_years_ahead_delete_nothing_until_a_day_has_gone_by(store, clock):
    store.write(old_and_new).result()
    clock.wall_ms += 10 * YEAR
    assert sweep(store, clock).doubt == "jumped"
    for _ in range(23):
        clock.run(HOUR_S)
        swept = sweep(store, clock)
        assert (swept.doubt, swept.deleted) == ("jumped", {})
    clock.run(HOUR_S)
    swept = sweep(store, clock)
    assert (swept.doubt, swept.deleted["request"]) == (None, 2)


def test_ten_years_ahead_and_back_delete_only_what_was_old(store, clock):
    store.write(old_and_new).result()
    clock.wall_ms += 10 * YEAR
    assert sweep(store, clock).doubt == "jumped"
    clock.wall_ms -= 10 * YEAR
    assert sweep(store, clock).doubt == "jumped"
    for _ in range(24):
        clock.run(HOUR_S)
        swept = sweep(store, clock)
    assert (swept.doubt, swept.deleted["request"]) == (None, 1)


def test_ten_years_ahead_that_ntp_vouches_for_are_believed(store, clock):
    store.write(old_and_new).result()
    clock.wall_ms += 10 * YEAR
    clock.synced = True
    assert sweep(store, clock).deleted["request"] == 2


def test_a_boot_in_1970_deletes_nothing_and_neither_does_its_correction_at_once(store, clock):
    store.write(old_and_new).result()
    clock.restart("boot-2", 20_000)
    assert sweep(store, clock).doubt == "before_build"
    clock.run(30 * HOUR_S)  # however long it lasts
    assert sweep(store, clock).doubt == "before_build"
    clock.wall_ms = NOW + DAY  # set by hand
    assert sweep(store, clock).doubt == "jumped"
    for _ in range(24):
        clock.run(HOUR_S)
        swept = sweep(store, clock)
    assert swept.deleted["request"] == 1


def test_rows_that_a_wrong_clock_dated_ahead_are_dated_anew_once_ntp_vouches(store, clock):
    def fill(db):
        request(db, "future", at=NOW + 10 * YEAR)
        conversation(db, "future", at=NOW + 10 * YEAR)

    store.write(fill).result()
    clock.run(HOUR_S)
    assert sweep(store, clock).doubt == "before_newest_row"
    clock.synced = True
    assert sweep(store, clock).n_redated == 6
    newest = store.read(retention.newest_row_ms)
    assert newest == clock.wall_ms
    clock.run(91 * 24 * HOUR_S)
    sweep(store, clock)
    assert store.read(n_rows) == {}


def test_sweeps_are_due_by_the_monotonic_clock(store):
    now = [0.0]
    sweeper = Sweeper(store, KEY, {}, FakeClock(), monotonic=lambda: now[0], interval_s=100)
    assert sweeper.due_in_s() == 0
    sweeper.sweep()
    assert sweeper.due_in_s() == 100
    now[0] = 130
    assert sweeper.due_in_s() == 0


def test_the_audit_is_cut_by_age_and_stays_sound(store, clock):
    def fill(db):
        for i in range(20):
            audit.append(db, KEY, actor="a", action="b", object="c", utc_ms=NOW - (20 - i) * DAY)

    store.write(fill).result()
    clock.run(60)
    assert sweep(store, clock, {"audit": 10}).deleted["audit"] == 11
    result = store.read(lambda db: audit.verify(db, KEY))
    assert result.is_sound
    assert result.first_seq == 12


def test_a_copy_from_weeks_ago_loses_before_serving_what_was_old_at_a_time_that_has_been(
    store, clock
):
    """An older copy makes the clock doubtful; the floor of time comes from the anchor."""
    store.write(old_and_new).result()
    clock.restart("boot-2", NOW + 20 * DAY)
    store.write(lambda db: set_floor(db, NOW + 20 * DAY)).result()
    sweeper = Sweeper(store, KEY, DAYS, clock)
    assert sweeper.is_overdue()
    swept = sweeper.sweep(is_brief=True)
    assert (swept.doubt, swept.deleted["request"]) == ("jumped", 2)
    assert sweeper.is_overdue(), "while the clock is doubted each start looks"


def test_a_database_is_overdue_unless_it_was_swept_in_the_last_two_hours(store):
    clock = FakeClock()
    sweeper = Sweeper(store, KEY, DAYS, clock)
    assert sweeper.is_overdue() and not Sweeper(store, KEY, {}, clock).is_overdue()
    sweeper.sweep()
    for hours, is_overdue in ((1, False), (1, False), (1, True)):
        clock.run(hours * HOUR_S)
        assert sweeper.is_overdue() == is_overdue
    clock.wall_ms -= DAY
    assert sweeper.is_overdue(), "swept in the future of this clock"
