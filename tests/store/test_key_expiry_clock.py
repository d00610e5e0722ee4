"""Expired stays expired: keys on clocks that jump, boot in 1970, or were ahead for a while."""

from __future__ import annotations

import pytest

from edgeagent.errors import InvalidParameter
from edgeagent.store import clock, key_expiry_clock
from edgeagent.store.clock import BUILD_MS, ClockReading
from edgeagent.store.database import Database, StoreOptions
from edgeagent.store.key_record import KeySpec
from edgeagent.store.keyring import Keyring
from edgeagent.store.retention import Sweeper

NOW = BUILD_MS + 30 * 86_400_000
HOUR, DAY, YEAR = 3_600_000, 86_400_000, 365 * 86_400_000
SPEC = KeySpec(name="visitor", scopes=frozenset({"chat"}))


class Device:
    """A clock that a test sets. `runs`: both clocks go on; `restarts`: as after a power cut."""

    def __init__(self) -> None:
        self.wall_ms, self.since_boot_s, self.boot, self.synced = NOW, 1000.0, "a", False

    def read(self) -> ClockReading:
        return ClockReading(self.wall_ms, self.since_boot_s, self.boot, self.synced)

    def runs(self, ms: int) -> None:
        self.wall_ms += ms
        self.since_boot_s += ms / 1000

    def restarts(self, wall_ms: int) -> None:
        self.wall_ms, self.since_boot_s, self.boot = wall_ms, 20.0, self.boot + "'"


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def daemon(folder, secret, device, monkeypatch):
    """Start a daemon's keyring on this store again and again."""
    monkeypatch.setattr(key_expiry_clock, "REFRESH_S", 0.0)
    opened = []

    def stop():
        for keyring, store in opened:
            keyring.close()
            store.close()
        opened.clear()

    def daemon():
        stop()
        store = Database(folder, secret, StoreOptions(reserve_bytes=0))
        opened.append((Keyring(store, store.files.database, lambda: store, device=device), store))
        return opened[-1]

    yield daemon
    stop()


def sweep(store, device):
    Sweeper(store, store.secret.subkey("audit"), {}, device).sweep()


def visitor(keyring, ms=DAY):
    made = keyring.create(
        KeySpec(name="visitor", scopes=SPEC.scopes, expires_ms=keyring.now_ms() + ms), "test"
    ).result()
    return lambda ring: ring.caller(made.secret, is_exposed=True) is not None


def test_a_clock_that_is_set_back_revives_no_key(daemon, device):
    keyring, _ = daemon()
    enters = visitor(keyring)
    assert enters(keyring)
    device.runs(DAY + HOUR)
    assert not enters(keyring)
    device.wall_ms -= 2 * DAY
    assert not enters(keyring), "in one process"
    keyring, _ = daemon()
    assert not enters(keyring), "nor after a start"
    device.restarts(NOW)
    keyring, _ = daemon()
    assert not enters(keyring), "nor after a power cut"


def test_a_device_that_boots_in_1970_goes_by_the_latest_time_and_by_how_long_it_runs(
    daemon, device
):
    keyring, store = daemon()
    gone, live = visitor(keyring, HOUR), visitor(keyring, 3 * DAY)
    device.runs(DAY)
    sweep(store, device)
    device.restarts(0)
    keyring, store = daemon()
    assert not gone(keyring) and live(keyring)
    device.runs(DAY)
    sweep(store, device)
    device.restarts(0)
    keyring, _ = daemon()
    assert live(keyring)
    device.runs(DAY + HOUR)
    assert not live(keyring), "it has run for long enough, whatever the clock says"
    made = keyring.create(
        KeySpec(name="x", scopes=SPEC.scopes, expires_ms=keyring.now_ms() + HOUR), "test"
    ).result()
    assert made.key.created_ms > NOW, "new keys are dated by it too"
    with pytest.raises(InvalidParameter, match="expired already"):
        keyring.create(
            KeySpec(name="x", scopes=SPEC.scopes, expires_ms=device.wall_ms + HOUR), "test"
        ).result()


def test_a_clock_that_is_years_ahead_for_a_while_ends_no_key_for_ever(daemon, device):
    keyring, store = daemon()
    enters = visitor(keyring)
    sweep(store, device)
    device.wall_ms += 10 * YEAR
    sweep(store, device)
    assert not enters(keyring), "while it is ahead"
    device.wall_ms -= 10 * YEAR
    assert enters(keyring)
    keyring, _ = daemon()
    assert enters(keyring)


def test_a_wrong_time_that_was_believed_is_put_right_by_ntp_or_at_the_device(daemon, device):
    for way in ("ntp", "accept-clock"):
        keyring, store = daemon()
        enters = visitor(keyring, 2 * DAY)
        sweep(store, device)
        device.wall_ms += 10 * YEAR
        sweep(store, device)
        for _ in range(25):  # evenly for a day: believed
            device.runs(HOUR)
            sweep(store, device)
        assert store.read(clock.floor_ms) > NOW + 9 * YEAR
        device.wall_ms -= 10 * YEAR
        assert not enters(keyring)
        if way == "ntp":
            device.synced = True
            sweep(store, device)
            device.synced = False
        else:
            assert keyring.accept_clock("cli:test").result() > NOW + 9 * YEAR
        assert enters(keyring), way


def test_an_expired_key_that_is_shown_leaves_its_time_on_the_disk(daemon, device):
    """No sweep comes between: what was refused once is refused at the next start."""
    keyring, store = daemon()
    enters = visitor(keyring, HOUR)
    device.runs(HOUR + 1)
    assert not enters(keyring)
    store.write(lambda db: None).result()
    assert store.read(clock.floor_ms) >= NOW + HOUR
