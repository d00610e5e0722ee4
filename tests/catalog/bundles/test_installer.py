"""A bundle that was touched anywhere is refused, the part is named, and nothing has changed."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from pathlib import Path

import msgspec
import pytest

from edgeagent.catalog.bundles.install_state import BundleFolder
from edgeagent.catalog.bundles.installer import install_bundle
from edgeagent.catalog.bundles.manifest import (
    BLOCK,
    CATALOG,
    MANIFEST,
    PROFILE,
    SIGNATURE,
    BundlePart,
    decode,
)
from edgeagent.catalog.bundles.reader import open_bundle
from edgeagent.catalog.bundles.signing import TrustList, load_signing_key, make_key_pair
from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.catalog.install.installer import install_file
from edgeagent.catalog.model_library import Library
from edgeagent.errors import BundleRefused, EngineFailed, InstallFailed, SettingsError
from tests.catalog.bundles.homes import (
    Home,
    everything,
    member,
    members,
    signed_again,
    spoiled,
    take,
)

FLIPS_PER_REGION = 30


@pytest.fixture(scope="module")
def home(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.make(tmp_path_factory.mktemp("home"), stories)


@pytest.fixture(scope="module")
def bundle(home: Home) -> Path:
    return home.bundle(home.folder / "garden.eab")


@pytest.fixture
def device(tmp_path: Path) -> Library:
    return Library(tmp_path / "device" / "models", tmp_path / "shipped")


@pytest.fixture
def old_device(device: Library, stories: Path) -> Library:
    """A device that serves another `ant` already."""
    install_file(stories, device, model_id="ant")
    return device


def refuse(path: Path, device: Library, trust: TrustList) -> BundleRefused:
    """The refusal; fails the test if the bundle is taken or anything on the device changes."""
    before = everything(device.models_dir)
    with pytest.raises(BundleRefused) as caught:
        take(path, device, trust)
    assert everything(device.models_dir) == before
    return caught.value


def test_a_bundle_brings_models_catalog_profile_and_wheels(
    home: Home, bundle: Path, device: Library, stories: Path
) -> None:
    done = take(bundle, device, home.trust)
    assert [model.id for model in device.installed()] == ["ant", "bee"]
    for model_id in ("ant", "bee"):
        assert device.verify(model_id) is not None
        sent, came = home.library.resolve(model_id), device.resolve(model_id)
        assert came.path.read_bytes() == sent.path.read_bytes()
        assert came.source == f"bundle:garden@1/models/{model_id}/{model_id}.gguf"
    folder = BundleFolder(device.models_dir)
    assert done.profile == ("shed", folder.profiles / "shed.toml")
    assert done.profile[1].read_text() == 'name = "shed"\nversion = 1\n'
    assert done.wheels is not None
    assert [path.name for path in done.wheels.iterdir()] == ["agent-1.0+x!2-py3-none-any.whl"]
    (device.models_dir.parent / "none.toml").write_text("")
    catalog = load_catalog(
        device.models_dir.parent / "none.toml", device.models_dir / "catalog.toml"
    )
    assert catalog.entries == home.catalog.entries
    last = folder.last("garden")
    assert last is not None
    assert (last.version, last.models, last.profile) == (1, ("ant", "bee"), "shed")


def test_a_bundle_is_a_plain_tar_file_of_regular_members(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        found = tar.getmembers()
    assert [m.name for m in found][:4] == [MANIFEST, SIGNATURE, CATALOG, PROFILE]
    assert all(m.isreg() and m.mode == 0o644 and m.uid == 0 and m.mtime == 0 for m in found)


def test_a_part_with_a_long_name_is_carried_too(
    home: Home, stories: Path, device: Library, tmp_path: Path
) -> None:
    name = "a" * 90
    library = Library(tmp_path / "long", tmp_path / "shipped")
    install_file(stories, library, model_id=name)
    far = Home(tmp_path, library, home.catalog, home.key)
    take(far.bundle(tmp_path / "long.eab", models=(name,)), device, home.trust)
    assert device.verify(name) is not None


def test_a_dropped_in_file_is_carried_under_its_id(
    home: Home, stories: Path, device: Library, tmp_path: Path
) -> None:
    library = Library(tmp_path / "dropped", tmp_path / "shipped")
    library.models_dir.mkdir()
    shutil.copy(stories, library.models_dir / "My Own (1).gguf")
    far = Home(tmp_path, library, home.catalog, home.key)
    take(far.bundle(tmp_path / "own.eab", models=("my-own-1",)), device, home.trust)
    assert device.resolve("my-own-1").path.name == "my-own-1.gguf"


def test_every_spoiled_container_is_refused_and_its_part_named(
    home: Home, bundle: Path, old_device: Library, tmp_path: Path
) -> None:
    path = tmp_path / "spoiled.eab"
    n_all = 0
    for what, data, part in spoiled(bundle.read_bytes()):
        path.write_bytes(data)
        error = refuse(path, old_device, home.trust)
        assert repr(part) in error.message, (what, error.message)
        n_all += 1
    assert n_all >= 60


def test_a_flipped_bit_in_any_region_is_refused_and_its_part_named(
    home: Home, bundle: Path, old_device: Library, tmp_path: Path
) -> None:
    data = bytearray(bundle.read_bytes())
    path = tmp_path / "flipped.eab"
    path.write_bytes(data)
    rng = random.Random(7)
    n_all, at = 0, 0
    regions: list[tuple[str, int, int]] = []
    for part in members(bytes(data)):
        for size in (len(part.header), len(part.content), len(part.padding)):
            regions.append((part.name, at, size))
            at += size
    regions.append(("end of file", at, len(data) - at))
    assert at + 2 * BLOCK == len(data)
    with path.open("r+b") as file:
        for name, start, size in regions:
            chosen = {0, size - 1, *(rng.randrange(size) for _ in range(FLIPS_PER_REGION))}
            for place in sorted(start + k for k in chosen) if size else []:
                file.seek(place)
                file.write(bytes([data[place] ^ (1 << rng.randrange(8))]))
                file.flush()
                error = refuse(path, old_device, home.trust)
                # The signature binds both: which of them was changed nobody can tell.
                pair = {MANIFEST, SIGNATURE}
                assert error.param == name or (name in pair and error.param in pair), place
                file.seek(place)
                file.write(data[place : place + 1])
                n_all += 1
    assert n_all >= 500
    assert path.read_bytes() == data


def test_every_single_byte_of_manifest_and_signature_counts(
    home: Home, bundle: Path, tmp_path: Path
) -> None:
    data = bytearray(bundle.read_bytes())
    path = tmp_path / "flipped.eab"
    path.write_bytes(data)
    first, second, *_ = members(bytes(data))
    with path.open("r+b") as file:
        for place in range(len(first.raw) + len(second.raw)):
            file.seek(place)
            file.write(bytes([data[place] ^ 0x20]))
            file.flush()
            with pytest.raises(BundleRefused), open_bundle(path, home.trust):
                pass
            file.seek(place)
            file.write(data[place : place + 1])


def test_another_key_no_key_and_a_forged_key_id_are_refused(
    home: Home, bundle: Path, device: Library, tmp_path: Path
) -> None:
    private, _, other = make_key_pair(tmp_path / "keys", "other")
    error = refuse(bundle, device, TrustList([other], "the test"))
    assert error.param == SIGNATURE
    assert f"Key {home.key.public.id} is not trusted" in error.message
    refuse(bundle, device, TrustList([], "the test"))

    stranger = load_signing_key(private)
    data = bundle.read_bytes()
    forged = tmp_path / "forged.eab"
    with open_bundle(bundle, home.trust) as opened:
        forged.write_bytes(signed_again(data, opened.manifest, stranger))
    assert refuse(forged, device, home.trust).param == SIGNATURE
    named = forged.read_bytes().replace(other.id.encode(), home.key.public.id.encode())
    forged.write_bytes(named)
    assert "not that of key" in refuse(forged, device, home.trust).message
    assert not device.models_dir.exists()


def test_a_signature_over_something_else_does_not_fit(
    home: Home, bundle: Path, device: Library, tmp_path: Path
) -> None:
    data = bundle.read_bytes()
    manifest = next(members(data)).content
    bare = home.key.sign(manifest).hex()
    sig = list(members(data))[1]
    line = f"edgeagent-signature {home.key.public.id} {bare}\n".encode()
    assert len(line) == len(sig.content)
    path = tmp_path / "bare.eab"
    path.write_bytes(data.replace(sig.content, line))
    assert refuse(path, device, home.trust).param == MANIFEST


def part(name: str, size_bytes: int = 4) -> BundlePart:
    return BundlePart(name=name, size_bytes=size_bytes, sha256="0" * 64)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (part("../evil"), "name that is not allowed"),
        (part("/etc/passwd"), "name that is not allowed"),
        (part("models/ant/../../evil"), "name that is not allowed"),
        (part("models/ant/a..b"), "name that is not allowed"),
        (part("models/ant/.hidden"), "name that is not allowed"),
        (part("models/ant/a/b.gguf"), "name that is not allowed"),
        (part("models/ant/a\0.gguf"), "name that is not allowed"),
        (part("models//a.gguf"), "name that is not allowed"),
        (part("wheels/setup.py"), "name that is not allowed"),
        (part("manifest.json"), "name that is not allowed"),
        (part("CATALOG.toml"), "name that is not allowed"),
        (part("catalog.toml"), "listed twice"),
        (part("models/ant/ANT.gguf"), "listed twice"),
        (part("models/wasp/wasp.gguf"), "belongs to no listed model"),
        (part("models/ant/large.toml", 300_000), "the limit is"),
    ],
    ids=lambda value: value.name if isinstance(value, BundlePart) else "",
)
def test_a_name_that_leads_elsewhere_is_refused_even_when_it_is_signed(
    home: Home, bundle: Path, device: Library, tmp_path: Path, extra: BundlePart, said: str
) -> None:
    with open_bundle(bundle, home.trust) as opened:
        manifest = opened.manifest
    changed = msgspec.structs.replace(manifest, parts=(*manifest.parts, extra))
    path = tmp_path / "signed.eab"
    path.write_bytes(signed_again(bundle.read_bytes(), changed, home.key))
    error = refuse(path, device, home.trust)
    assert error.param == extra.name
    assert said in error.message


def test_a_signed_manifest_in_another_form_is_refused(home: Home, bundle: Path) -> None:
    with open_bundle(bundle, home.trust) as opened:
        manifest = opened.manifest
    good = manifest.encode()
    assert decode(good) == manifest
    for data, said in (
        (good + b" ", "canonical"),
        (good.replace(b'"format":1', b'"format":2'), "format 2"),
        (good.replace(b'"version":1', b'"version":0'), "cannot be read"),
        (good.replace(b'"version":1', b'"version":1.0'), "cannot be read|canonical"),
        (good.replace(b'"models":["ant"', b'"models":["ant","ant"'), "not valid"),
        (good.replace(b'"name":"garden"', b'"name":"../garden"'), "cannot be read"),
        (good[:-1] + b',"x":1}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ):
        with pytest.raises(BundleRefused, match=said) as caught:
            decode(data)
        assert caught.value.param == MANIFEST


def test_a_record_that_is_not_that_of_its_files_is_refused(
    home: Home, bundle: Path, device: Library, tmp_path: Path
) -> None:
    """Signed by mistake: the records of two models in each other's place."""
    data = bundle.read_bytes()
    found = {m.name: m for m in members(data)}
    ant, bee = found["models/ant/installed.toml"], found["models/bee/installed.toml"]
    with open_bundle(bundle, home.trust) as opened:
        manifest = opened.manifest
    digests = {p.name: p for p in manifest.parts}
    parts = tuple(
        msgspec.structs.replace(p, size_bytes=digests[bee.name].size_bytes,
                                sha256=digests[bee.name].sha256) if p.name == ant.name else p
        for p in manifest.parts
    )  # fmt: skip
    changed = msgspec.structs.replace(manifest, parts=parts)
    swapped = data.replace(ant.raw, member(ant.name, bee.content))
    path = tmp_path / "record.eab"
    path.write_bytes(signed_again(swapped, changed, home.key))
    error = refuse(path, device, home.trust)
    assert error.param == ant.name
    assert "does not match 'ant'" in error.message


def test_an_older_version_is_refused_and_the_same_bundle_repairs(
    home: Home, device: Library, stories: Path, tmp_path: Path
) -> None:
    first = home.bundle(tmp_path / "1.eab", 1)
    second = home.bundle(tmp_path / "2.eab", 2)
    twin = home.bundle(tmp_path / "twin.eab", 2, wheels=False)
    take(first, device, home.trust)
    take(second, device, home.trust)
    error = refuse(first, device, home.trust)
    assert error.param == MANIFEST
    assert "version 2 was installed" in error.message
    assert "another bundle of version 2" in refuse(twin, device, home.trust).message
    assert [p.name for p in (device.models_dir / ".bundles/wheels/garden").iterdir()] == ["2"]

    path = device.resolve("ant").path
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    take(second, device, home.trust)
    assert device.verify("ant") is not None
    # Another bundle has a counter of its own; the models in it are the same.
    take(home.bundle(tmp_path / "other.eab", 1, name="other"), device, home.trust)


@pytest.mark.parametrize("is_old_release", [False, True])
def test_a_bundle_of_another_name_cannot_bring_an_older_model(
    stories: Path, tmp_path: Path, is_old_release: bool
) -> None:
    home = Home.make(tmp_path / "home", stories)
    old = home.bundle(tmp_path / "old.eab", 4, name="old-clinic", models=("ant",))
    home.change("ant", stories, 7)
    new = home.bundle(tmp_path / "new.eab", 5, models=("ant",))
    home.change("ant", stories, 8)
    newer = home.bundle(tmp_path / "newer.eab", 6, name="renamed", models=("ant",))
    models, state = tmp_path / "device" / "models", tmp_path / "device" / "state"
    device = Library(models, tmp_path / "shipped", state)
    # Earlier releases kept one counter for each bundle, in the models directory.
    take(new, Library(models, tmp_path / "shipped") if is_old_release else device, home.trust)
    if is_old_release:
        (models / ".bundles" / "state" / "models.by-id.toml").unlink()
    error = refuse(old, device, home.trust)
    assert "version 5 of 'garden'" in error.message and "'ant'" in error.message
    device.remove("ant")
    assert "version 5" in refuse(old, device, home.trust).message
    take(newer, device, home.trust)
    if not is_old_release:
        # What lies in the models directory has no say.
        shutil.rmtree(models / ".bundles", ignore_errors=True)
    assert "version 6 of 'renamed'" in refuse(new, device, home.trust).message


def test_a_version_counter_that_cannot_be_read_is_not_taken_for_none(
    home: Home, bundle: Path, device: Library
) -> None:
    take(bundle, device, home.trust)
    state = device.models_dir / ".bundles" / "state" / "garden.toml"
    state.write_text("version = ")
    assert "delete that file" in refuse(bundle, device, home.trust).message


def test_a_model_that_fails_its_trial_leaves_every_old_one(
    home: Home, bundle: Path, old_device: Library
) -> None:
    tried = []

    def trial(path: Path) -> None:
        tried.append(path.name)
        if len(tried) == 2:
            raise EngineFailed("the worker died")

    old = old_device.resolve("ant")
    with pytest.raises(InstallFailed, match="'bee' does not load on this device"):
        take(bundle, old_device, home.trust, trial)
    assert len(tried) == 2
    assert old_device.installed() == [old]
    left = [p for p in old_device.models_dir.rglob("*") if p.is_file() and "lock" not in p.name]
    assert sorted(left) == sorted([old.path, old.folder / "installed.toml"])


def test_a_profile_that_is_none_is_refused_before_anything_is_written(
    home: Home, bundle: Path, device: Library
) -> None:
    def check(text: str, place: str) -> str:
        raise SettingsError("n_ctx is 1")

    for bad in (check, lambda text, place: "other"):
        with pytest.raises(BundleRefused) as caught:
            install_bundle(bundle, device, home.trust, check_profile=bad)
        assert caught.value.param == PROFILE
    assert not device.models_dir.exists()


def test_a_full_disk_is_told_before_anything_is_written(
    home: Home, bundle: Path, device: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InstallFailed, match="has 1000 free"):
        take(bundle, device, home.trust)
    assert not device.models_dir.exists()


def test_what_changes_between_verifying_and_copying_is_refused(
    home: Home, bundle: Path, old_device: Library, tmp_path: Path
) -> None:
    path = tmp_path / "stick.eab"
    data = bytearray(bundle.read_bytes())
    path.write_bytes(data)
    data[data.index(b"GGUF") + 5000] ^= 1

    def progress(stage: str, done_bytes: int, total_bytes: int | None) -> None:
        if stage == "space":
            path.write_bytes(data)

    old = old_device.resolve("ant")
    with pytest.raises(InstallFailed, match="changed while it was installed"):
        install_bundle(
            path, old_device, home.trust, check_profile=lambda *_: "shed", progress=progress
        )
    assert old_device.installed() == [old]


def test_a_damaged_model_is_not_bundled(home: Home, stories: Path, tmp_path: Path) -> None:
    library = Library(tmp_path / "models", tmp_path / "shipped")
    path = install_file(stories, library, model_id="ant").path
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    bad = Home(tmp_path, library, home.catalog, home.key)
    with pytest.raises(BundleRefused, match="is recorded"):
        bad.bundle(tmp_path / "bad.eab", models=("ant",))
    assert not list(tmp_path.glob("*.eab*"))
    assert not list(tmp_path.glob(".*"))


def test_a_bundle_is_not_overwritten_and_has_a_plain_name(home: Home, bundle: Path) -> None:
    with pytest.raises(InstallFailed, match="exists"):
        home.bundle(bundle)
    with pytest.raises(BundleRefused, match="lower-case"):
        home.bundle(bundle.with_name("x.eab"), name="../x")


def test_a_folder_a_pipe_and_an_absent_file_are_refused(home: Home, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.eab")
    for name in ("", "pipe.eab", "absent.eab"):
        with pytest.raises(BundleRefused), open_bundle(tmp_path / name, home.trust):
            pass
