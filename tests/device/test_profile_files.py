from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeagent.device.budget import MemoryShare
from edgeagent.device.profile import EngineProfile, Profile, SpeechProfile
from edgeagent.device.profile_files import MAX_FILE_BYTES, load, load_all, parse
from edgeagent.errors import SettingsError

SHIPPED = (
    "container-1gb",
    "generic",
    "jetson-orin-nano",
    "laptop",
    "n100-mini-pc",
    "pi-zero-2w",
    "pi4-2gb",
    "pi4-4gb",
    "pi5-4gb",
    "pi5-8gb",
    "rk3588-8gb",
    "server-small",
)


def put(folder: Path, text: str, name: str = "mine") -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return [folder]


def refusal(dirs: list[Path]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_all(dirs)
    return caught.value.message


def test_the_shipped_profiles_load_under_their_file_names() -> None:
    assert tuple(load_all()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_has_what_advice_needs(name: str) -> None:
    profile = load(name)
    assert profile.description
    if name != "generic":
        assert profile.reference is not None
        assert profile.reference.source
        assert profile.reference.n_performance_cores <= profile.reference.n_cores
        assert profile.reference.ram_available_bytes <= profile.reference.ram_bytes


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="'pi5-8gp' is not one of the 12 known: use 'pi5-8gb'"):
        load("pi5-8gp")


def test_a_directory_that_does_not_exist_holds_no_profiles(tmp_path: Path) -> None:
    assert tuple(load_all([tmp_path / "none"])) == SHIPPED


def test_a_users_profile_is_added(tmp_path: Path) -> None:
    dirs = put(tmp_path / "etc", 'name = "kiosk"\nversion = 3\nengine.n_ctx = 2048')
    assert load("kiosk", dirs).engine.n_ctx == 2048


def test_a_users_profile_of_the_same_name_replaces_ours_whole(tmp_path: Path) -> None:
    dirs = put(tmp_path / "etc", 'name = "pi5-8gb"\nversion = 2')
    profile = load("pi5-8gb", dirs)
    assert profile == Profile(name="pi5-8gb", version=2)


def test_a_profile_based_on_its_own_name_changes_one_value(tmp_path: Path) -> None:
    text = 'name = "pi5-8gb"\nbased_on = "pi5-8gb"\nengine.n_ctx = 4096\n[thermal]\nwarn_c = 60'
    profile = load("pi5-8gb", put(tmp_path / "etc", text))
    ours = load("pi5-8gb")
    assert (profile.engine.n_ctx, profile.thermal.warn_c) == (4096, 60)
    assert (profile.match, profile.engine.n_seq) == (ours.match, ours.engine.n_seq)
    assert profile.thermal.throttle_c == ours.thermal.throttle_c


def test_a_profile_with_the_names_of_the_first_release_is_still_read(tmp_path: Path) -> None:
    text = (
        'name = "kiosk"\nversion = 1\nram_reserved_bytes = 5\nram_share = 0.5\nn_threads = 3\nn_ctx = 2048\n'
        'kv_type = "q8_0"\nn_seq = 2\nn_batch = 64\nlatency_target_ms = 99\nflash_attention = "on"\n'
        'speech_model = "base"\n'
    )
    assert load("kiosk", put(tmp_path / "etc", text)) == Profile(
        name="kiosk",
        version=1,
        engine=EngineProfile(3, 2048, "q8_0", 2, 64, 99, "on"),
        pool=MemoryShare(5, 0.5),
        speech=SpeechProfile("base"),
    )


def test_an_old_name_goes_over_a_profile_with_new_ones(tmp_path: Path) -> None:
    text = 'name = "pi5-8gb"\nbased_on = "pi5-8gb"\nn_ctx = 4096\n'
    profile, ours = load("pi5-8gb", put(tmp_path / "etc", text)), load("pi5-8gb")
    assert profile.engine == msgspec.structs.replace(ours.engine, n_ctx=4096)


def test_later_directories_go_over_earlier_ones(tmp_path: Path) -> None:
    dirs = put(tmp_path / "a", 'name = "kiosk"\nversion = 1\nengine.n_ctx = 1024\nengine.n_seq = 3')
    dirs += put(tmp_path / "b", 'name = "kiosk"\nbased_on = "kiosk"\n[engine]\nn_ctx = 2048')
    profile = load("kiosk", dirs)
    assert (profile.engine.n_ctx, profile.engine.n_seq) == (2048, 3)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("n_ctx = ", "is not TOML"),
        ('name = "x"\nversion = 1\nn_tcx = 5', "unknown key 'n_tcx': use 'engine.n_ctx'"),
        ('name = "x"\nversion = 1\n[engine]\nn_tcx = 5', "unknown key 'engine.n_tcx': use 'n_ctx'"),
        ('name = "x"\nversion = 1\n[engin]\nn_ctx = 5', "unknown key 'engin': use 'engine'"),
        ('name = "x"\nversion = 1\nengine = 5', "engine = 5"),
        ('name = "x"\nversion = 1\nn_ctx = 512\nengine = 5', "engine = 5"),
        (
            'name = "x"\nversion = 1\nn_ctx = 512\n[engine]\nn_ctx = 512',
            "n_ctx and engine.n_ctx, which are the same",
        ),
        ('name = "x"\nversion = 1\n[match]\nboards = []', "'match.boards': use 'board'"),
        ('name = "x"\nversion = 1\n[thermal]\nwarm_c = 5.0', "'thermal.warm_c': use 'warn_c'"),
        ('name = "x"\nversion = 1\nqqqq = 5', "use one of based_on, description"),
        ('name = "x"\nversion = 1\nn_ctx = 12', "n_ctx = 12: .*>= 128"),
        ('name = "x"\nversion = 1\nn_ctx = "big"', "n_ctx = 'big'"),
        ('name = "x"\nversion = 1\nram_share = 1.5', "ram_share = 1.5: .*<= 1"),
        ('name = "x"\nversion = 1\nram_share = nan', "ram_share = nan"),
        ('name = "x"\nversion = 1\nn_seq = true', "n_seq = True"),
        ('name = "x"\nversion = 1\nkv_type = "q4_0"', "kv_type = 'q4_0'"),
        ('name = "../x"\nversion = 1', "name = '../x'"),
        ("version = 1", "missing required field `name`"),
        ('name = "x"\nbased_on = "pi5-8g"', "based_on = 'pi5-8g', .* use 'pi5-8gb'"),
        ('name = "x"\nbased_on = "x"', "based_on = 'x', which no earlier directory has"),
        ('name = "x"\nbased_on = 7', "based_on = 7"),
        ('based_on = "pi5-8gb"', "missing required field `name`"),
        (
            'name = "x"\nversion = 1\nkv_type = "q8_0"\nflash_attention = "off"',
            "only with flash attention",
        ),
        (
            'name = "x"\nversion = 1\n[thermal]\nwarn_c = 90\nthrottle_c = 80',
            "warn_c = 90.0, which must be below throttle_c = 80.0",
        ),
        (
            'name = "x"\nversion = 1\n[match]\nn_cores_min = 4\nn_cores_max = 2',
            "n_cores from 4 to 2",
        ),
    ],
)
def test_a_bad_profile_is_refused_with_its_place_and_the_way_out(
    tmp_path: Path, text: str, wanted: str
) -> None:
    dirs = put(tmp_path / "etc", text)
    with pytest.raises(SettingsError, match=wanted) as caught:
        load_all(dirs)
    assert "mine.toml" in caught.value.message


def test_a_profile_is_not_based_on_its_neighbour_whatever_the_order_of_files(
    tmp_path: Path,
) -> None:
    put(tmp_path / "etc", 'name = "base-x"\nversion = 1', "a")
    dirs = put(tmp_path / "etc", 'name = "y"\nbased_on = "base-x"', "b")
    assert "based_on = 'base-x', which no earlier directory has" in refusal(dirs)


def test_two_files_of_one_directory_may_not_share_a_name(tmp_path: Path) -> None:
    put(tmp_path / "etc", 'name = "x"\nversion = 1', "one")
    dirs = put(tmp_path / "etc", 'name = "x"\nversion = 1', "two")
    message = refusal(dirs)
    assert "one.toml" in message
    assert "two.toml" in message


def test_a_profile_that_travels_alone_is_parsed_and_may_lean_on_no_other() -> None:
    assert parse('name = "x"\nversion = 3', "profile.toml") == Profile(name="x", version=3)
    for text, said in (
        ("version = 1", "name"),
        ('name = "x"\nversion = 1\nn_ctxx = 1', "n_ctx"),
        ('name = "x"\nbased_on = "pi5-8gb"', "based_on"),
        ("name", "not TOML"),
    ):
        with pytest.raises(SettingsError, match=said):
            parse(text, "profile.toml")


def test_a_file_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    dirs = put(tmp_path / "etc", "#" * (MAX_FILE_BYTES + 1))
    assert f"but at most {MAX_FILE_BYTES}" in refusal(dirs)


def test_a_file_that_is_not_text_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    assert "UTF-8" in refusal([tmp_path])
