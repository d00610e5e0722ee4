"""The installed models: what counts as one, what is found by which id, and what never is."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.catalog.install.installer import install_file
from edgeagent.catalog.install_record import RECORD, InstalledModel
from edgeagent.catalog.model_library import Library, shipped_models_dir
from edgeagent.errors import InstallFailed, ModelNotFound, ModelUnusable


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "models").mkdir()
    (tmp_path / "shipped").mkdir()
    return Library(tmp_path / "models", tmp_path / "shipped")


def put(root: Path, model_id: str, stories: Path, name: str = RECORD) -> InstalledModel:
    folder = root / model_id.replace("/", "__")
    folder.mkdir()
    shutil.copy(stories, folder / "model.gguf")
    data = stories.read_bytes()
    model = InstalledModel(
        id=model_id,
        file="model.gguf",
        quant="F32",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        source='quoted "source" \\ with ünicode\n',
        folder=folder,
    )
    (folder / name).write_text(model.to_toml())
    return model


def test_a_model_is_read_back_as_it_was_recorded(library: Library, stories: Path) -> None:
    model = put(library.models_dir, "owner/tiny", stories)
    assert library.resolve("owner/tiny") == model
    assert library.resolve("owner/tiny").path.read_bytes() == stories.read_bytes()


def test_models_are_listed_by_id_and_an_installed_one_hides_a_shipped_one(
    library: Library, stories: Path
) -> None:
    put(library.shipped_dir, "b", stories, "model.toml")
    put(library.shipped_dir, "a", stories, "model.toml")
    put(library.models_dir, "b", stories)
    assert [model.id for model in library.installed()] == ["a", "b"]
    assert library.resolve("b").folder == library.models_dir / "b"


def test_a_file_dropped_in_is_found_and_marked(library: Library, stories: Path) -> None:
    shutil.copy(stories, library.models_dir / "My Own.Q8_0.GGUF")
    model = library.resolve("my-own.q8_0")
    assert model.unmanaged
    assert model.sha256 is None
    assert model.size_bytes == stories.stat().st_size
    library.remove("my-own.q8_0")
    assert library.installed() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / RECORD).unlink(),
        lambda folder: (folder / RECORD).write_text("not = toml = at all"),
        lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "model.gguf").unlink(),
        lambda folder: (folder / "model.gguf").write_bytes(b"GGUF"),
        lambda folder: folder.rename(folder.with_name("other")),
        lambda folder: folder.rename(folder.with_name(".hidden")),
    ],
)
def test_what_is_not_whole_is_no_model(library: Library, stories: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    put(library.models_dir, "tiny", stories)
    spoil(library.models_dir / "tiny")
    assert library.installed() == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"good"', '"bad"'),
        ('id = "tiny"', 'id = "../tiny"'),
        ('"model.gguf"', '"../tiny/model.gguf"'),
        ('"model.gguf"', '"/etc/hostname"'),
        ('"model.gguf"', '"."'),
        ('id = "tiny"', "id = 5"),
    ],
)
def test_a_record_that_lies_is_no_model(
    library: Library, stories: Path, old: str, new: str
) -> None:
    put(library.models_dir, "tiny", stories)
    record = library.models_dir / "tiny" / RECORD
    record.write_text(record.read_text().replace(old, new, 1))
    assert library.installed() == []


def test_links_are_not_followed(library: Library, stories: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    put(outside, "linked", stories)
    (library.models_dir / "linked").symlink_to(outside / "linked")
    (library.models_dir / "bare.gguf").symlink_to(stories)
    model = put(library.models_dir, "tiny", stories)
    model.path.unlink()
    model.path.symlink_to(stories)
    assert library.installed() == []


def test_an_unknown_model_is_answered_with_the_nearest_and_the_command(
    library: Library, stories: Path
) -> None:
    put(library.models_dir, "stories-260k", stories)
    with pytest.raises(ModelNotFound) as caught:
        library.resolve("story-260k")
    assert "did you mean 'stories-260k'" in caught.value.message
    assert "edgeagent models install story-260k" in caught.value.message


def test_a_missing_directory_holds_no_models(tmp_path: Path) -> None:
    library = Library(tmp_path / "absent", tmp_path / "absent-too")
    assert library.installed() == []
    with pytest.raises(ModelNotFound, match="edgeagent models install"):
        library.resolve("tiny")


def test_a_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(InstallFailed, match=r"set models\.dir"):
        Library(tmp_path / "models", tmp_path / "absent").installed()


def test_verify_reads_every_byte_and_reports_progress(library: Library, stories: Path) -> None:
    put(library.models_dir, "tiny", stories)
    seen: list[tuple[str, int, int | None]] = []
    facts = library.verify("tiny", lambda *step: seen.append(step))
    assert facts is not None
    assert facts.n_layers == 5
    assert seen[-1] == ("verify", stories.stat().st_size, stories.stat().st_size)


def test_one_flipped_bit_is_found(library: Library, stories: Path) -> None:
    path = put(library.models_dir, "tiny", stories).path
    data = bytearray(path.read_bytes())
    data[1_000_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelUnusable, match="recorded is"):
        library.verify("tiny")


def test_a_removed_model_is_gone_and_a_shipped_one_stays(library: Library, stories: Path) -> None:
    put(library.models_dir, "tiny", stories)
    put(library.shipped_dir, "ours", stories, "model.toml")
    library.remove("tiny")
    assert not (library.models_dir / "tiny").exists()
    with pytest.raises(InstallFailed, match="read-only"):
        library.remove("ours")
    assert library.resolve("ours").path.exists()


def test_a_part_of_other_models_is_listed_apart() -> None:
    library = Library(Path("/nonexistent"))
    parts = [model.id for model in library.parts()]
    assert parts == ["edge-encoder"]
    assert not {model.id for model in library.installed()} & set(parts)
    assert library.verify("edge-encoder") is not None


def test_the_shipped_models_of_a_checkout_are_found() -> None:
    assert (shipped_models_dir() / "catalog.toml").is_file()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(), st.text(st.sampled_from("./_a~%"), max_size=9)))
def test_no_id_reaches_outside(library: Library, model_id: str) -> None:
    secret = library.models_dir.parent / "secret.gguf"
    secret.write_bytes(b"GGUF")
    for use in (library.resolve, library.verify, library.remove, library.folder):
        try:
            result = use(model_id)
        except ModelNotFound:
            continue
        assert isinstance(result, Path)
        assert result.parent == library.models_dir
    assert secret.exists()


def test_a_dropped_in_file_does_not_take_the_place_of_an_installed_model(
    library: Library, stories: Path
):
    installed = install_file(stories, library, model_id="story")
    (library.models_dir / "story.gguf").write_bytes(stories.read_bytes())
    assert library.resolve("story") == installed
    library.remove("story")
    assert library.resolve("story").unmanaged
