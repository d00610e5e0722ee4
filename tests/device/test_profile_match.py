from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgeagent.device.probe import Device, probe
from edgeagent.device.profile import MatchRules, Profile
from edgeagent.device.profile_files import load_all
from edgeagent.device.profile_match import choose, match, specificity
from edgeagent.errors import SettingsError
from tests.device.recorded import write


@pytest.mark.parametrize(
    ("tree", "profile"),
    [
        ("pi4", "pi4-4gb"),
        ("pi5", "pi5-8gb"),
        ("pi-zero-2w", "pi-zero-2w"),
        ("jetson-orin-nano", "jetson-orin-nano"),
        ("rk3588", "rk3588-8gb"),
        ("n100", "n100-mini-pc"),
        ("laptop-hybrid", "laptop"),
        ("container-v2", "container-1gb"),
        ("container-v1", "generic"),
    ],
)
def test_every_recorded_device_gets_the_profile_made_for_it(
    tree_of: Callable[[str], Path], tree: str, profile: str
) -> None:
    assert match(probe(tree_of(tree))).profile.name == profile


@pytest.mark.parametrize(
    ("tree", "total_kb", "profile"),
    [
        ("pi4", 1_899_000, "pi4-2gb"),
        ("pi4", 7_998_000, "pi4-4gb"),
        ("pi5", 4_100_000, "pi5-4gb"),
        ("pi5", 16_500_000, "pi5-8gb"),
        ("pi5", 2_050_000, "generic"),
        ("rk3588", 3_900_000, "generic"),
    ],
)
def test_the_same_board_with_other_ram_gets_another_profile(
    own_tree_of: Callable[[str], Path], tree: str, total_kb: int, profile: str
) -> None:
    root = own_tree_of(tree)
    write(root, "/proc/meminfo", f"MemTotal: {total_kb} kB\nMemAvailable: {total_kb - 300_000} kB")
    assert match(probe(root)).profile.name == profile


def test_a_small_container_on_a_large_board_gets_the_containers_profile(
    own_tree_of: Callable[[str], Path],
) -> None:
    root = own_tree_of("pi5")
    write(root, "/.dockerenv", "")
    assert match(probe(root)).profile.name == "pi5-8gb"
    write(root, "/sys/fs/cgroup/memory.max", str(1 << 30))
    assert match(probe(root)).profile.name == "container-1gb"


def test_nothing_known_gets_the_generic_profile(tmp_path: Path) -> None:
    found = match(probe(tmp_path))
    assert found.profile.name == "generic"
    assert "no rules" in found.reason


def test_the_match_tells_why_for_every_profile(tree_of: Callable[[str], Path]) -> None:
    found = match(probe(tree_of("pi5")))
    by_name = {entry.name: entry for entry in found.considered}
    assert set(by_name) == set(load_all())
    assert [e.name for e in found.considered if e.verdict == "chosen"] == ["pi5-8gb"]
    assert by_name["pi5-4gb"].verdict == "refused"
    assert by_name["pi5-4gb"].why.startswith("usable RAM is 7.873 GiB, required at least")
    assert by_name["pi4-4gb"].why == "board is Raspberry Pi 5 Model B Rev 1.0"
    assert by_name["server-small"].verdict == "fits"
    assert "Raspberry Pi 5" in found.reason


def test_the_order_in_which_profiles_are_given_decides_only_among_equals(
    tree_of: Callable[[str], Path],
) -> None:
    device = probe(tree_of("pi5"))
    shipped = list(load_all().values())
    assert choose(device, shipped).profile == choose(device, shipped[::-1]).profile


def test_a_users_profile_goes_before_an_equally_specific_one_of_ours(
    tree_of: Callable[[str], Path], tmp_path: Path
) -> None:
    text = 'name = "a-kiosk"\nbased_on = "pi5-8gb"\nn_seq = 1'
    (tmp_path / "kiosk.toml").write_text(text)
    assert match(probe(tree_of("pi5")), [tmp_path]).profile.name == "a-kiosk"


def test_without_a_profile_that_always_fits_the_error_says_what_to_do(
    tree_of: Callable[[str], Path],
) -> None:
    strict = Profile(name="x", version=1, match=MatchRules(container=True))
    with pytest.raises(SettingsError, match="None of the 1 device profiles matches"):
        choose(probe(tree_of("pi5")), [strict])


@pytest.mark.parametrize(
    ("rules", "fits"),
    [
        (MatchRules(board=("RASPBERRY",)), True),
        (MatchRules(board=("brcm,bcm2712",)), True),
        (MatchRules(board=("jetson", "raspberry pi 5")), True),
        (MatchRules(board=("raspberry pi 4",)), False),
        (MatchRules(cpu=("cortex-a76",)), True),
        (MatchRules(architecture=("x86_64",)), False),
        (MatchRules(n_cores_min=5), False),
        (MatchRules(n_cores_min=4, n_cores_max=4), True),
        (MatchRules(battery=True), False),
        (MatchRules(container=False, battery=False), True),
        (MatchRules(ram_max_bytes=1 << 30), False),
    ],
)
def test_every_rule_can_hold_and_can_refuse(
    tree_of: Callable[[str], Path], rules: MatchRules, fits: bool
) -> None:
    rival = Profile(name="rival", version=1, match=rules)
    found = choose(probe(tree_of("pi5")), [Profile(name="generic", version=1), rival])
    assert (found.profile is rival) == fits


def test_a_ram_rule_refuses_a_device_whose_ram_is_unknown(tmp_path: Path) -> None:
    rival = Profile(name="rival", version=1, match=MatchRules(ram_min_bytes=1))
    found = choose(probe(tmp_path), [Profile(name="generic", version=1), rival])
    assert found.considered[0].why == "usable RAM is unknown, required at least 9.313e-10 GiB"


def test_a_board_outweighs_all_other_rules_together() -> None:
    rest = MatchRules(
        cpu=("x",),
        architecture=("y",),
        ram_min_bytes=1,
        ram_max_bytes=2,
        n_cores_min=1,
        n_cores_max=2,
        container=False,
    )
    assert specificity(MatchRules(board=("x",))) > specificity(rest)
    assert specificity(MatchRules()) == 0


def test_a_device_on_a_wire_matches_as_it_did_at_home(tree_of: Callable[[str], Path]) -> None:
    device = probe(tree_of("rk3588"))
    copy = msgspec.json.decode(msgspec.json.encode(device), type=Device)
    assert match(copy) == match(device)
