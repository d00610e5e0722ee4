"""A model file is served while it is the one that was installed or approved, and no longer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeagent.catalog.approvals import Approvals
from edgeagent.catalog.catalog_file import Catalog, parse_catalog
from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.install.installer import install, install_file
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.integrity import Integrity
from edgeagent.catalog.model_library import Library
from edgeagent.errors import InstallFailed, ModelAltered, ModelNotApproved, ModelUnusable
from tests.commands import run_here


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "models").mkdir()
    return Library(tmp_path / "models", tmp_path / "shipped", tmp_path / "state")


def integrity_of(library: Library, *named: str) -> Integrity:
    assert library.state_dir is not None
    return Integrity(library, Approvals(library.state_dir), frozenset(named))


def drop(library: Library, stories: Path, name: str = "tale") -> Path:
    path = library.models_dir / f"{name}.gguf"
    shutil.copy(stories, path)
    return path


def spoil(path: Path) -> None:
    """Other content of the same size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    hashed: list[str] = []
    hash_ = Integrity._hash

    def counted(self, model, descriptor):
        hashed.append(model.id)
        return hash_(self, model, descriptor)

    monkeypatch.setattr(Integrity, "_hash", counted)
    return hashed


def test_what_was_just_installed_is_served_without_being_hashed_again(
    library, stories, monkeypatch
):
    model = install_file(stories, library, model_id="tale")
    hashed = count_hashing(monkeypatch)
    for _ in range(2):
        assert integrity_of(library).verified(model)[2] == model.size_bytes
    assert hashed == []


def test_a_file_that_was_touched_is_hashed_once_more(library, stories, monkeypatch):
    model = install_file(stories, library, model_id="tale")
    hashed = count_hashing(monkeypatch)
    model.path.touch()
    for _ in range(2):
        integrity_of(library).verified(model)
    assert hashed == ["tale"]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_an_altered_file_of_the_same_size_is_refused(library, stories, is_replaced):
    model = install_file(stories, library, model_id="tale")
    if is_replaced:
        other = library.models_dir / "other"
        shutil.copy(model.path, other)
        spoil(other)
        other.replace(model.path)
    else:
        spoil(model.path)
    with pytest.raises(ModelAltered, match=r"models install tale.*models approve tale"):
        integrity_of(library).verified(model)


def test_a_record_that_was_altered_with_its_file_does_not_help(library, stories):
    model = install_file(stories, library, model_id="tale")
    old = model.sha256
    spoil(model.path)
    record = model.folder / "installed.toml"
    record.write_text(record.read_text().replace(str(old), sha256_of(model.path)))
    found = library.resolve("tale")
    assert found.sha256 != old
    with pytest.raises(ModelAltered):
        integrity_of(library).verified(found)
    with pytest.raises(ModelUnusable, match="approved is"):
        library.verify("tale")


def test_a_dropped_file_waits_and_one_that_the_settings_name_does_not(library, stories):
    drop(library, stories)
    model = library.resolve("tale")
    assert integrity_of(library).standing(model) == "waiting"
    with pytest.raises(ModelNotApproved, match="models approve tale"):
        integrity_of(library).verified(model)
    assert integrity_of(library, "tale").standing(model) == "named"
    integrity_of(library, "tale").verified(model)
    # From then on it is that file, named or not.
    assert integrity_of(library).standing(model) == "approved"
    spoil(model.path)
    with pytest.raises(ModelAltered):
        integrity_of(library, "tale").verified(model)


def test_a_folder_with_a_record_that_appears_later_waits_too(library, stories, tmp_path):
    install_file(stories, library, model_id="tale")
    foreign = Library(tmp_path / "elsewhere", tmp_path / "shipped")
    install_file(stories, foreign, model_id="planted")
    shutil.copytree(foreign.models_dir / "planted", library.models_dir / "planted")
    assert integrity_of(library).standing(library.resolve("planted")) == "waiting"


def test_what_was_installed_before_there_were_approvals_is_adopted_once(library, stories, tmp_path):
    before = Library(library.models_dir, library.shipped_dir)
    install_file(stories, before, model_id="tale")
    drop(library, stories, "bare")
    integrity = integrity_of(library)
    integrity.adopt()
    assert integrity.standing(library.resolve("tale")) == "approved"
    assert integrity.standing(library.resolve("bare")) == "waiting"
    install_file(stories, before, model_id="later")
    integrity.adopt()
    assert integrity.standing(library.resolve("later")) == "waiting"


def test_a_shipped_model_needs_no_approval_and_is_checked_all_the_same(library, stories, tmp_path):
    shipped = Library(library.shipped_dir, tmp_path / "none")
    shipped.models_dir.mkdir()
    model = install_file(stories, shipped, model_id="tale")
    found = library.resolve("tale")
    integrity_of(library).verified(found)
    spoil(model.path)
    with pytest.raises(ModelAltered):
        integrity_of(library).verified(found)


def test_another_chat_template_than_was_approved_is_refused(library, stories):
    model = install_file(stories, library, model_id="tale")
    assert library.approvals is not None
    library.approvals.approve("tale", model.sha256, "a" * 64, "installed")
    integrity = integrity_of(library)
    integrity.check_template(model, "a" * 64)
    for other in ("b" * 64, None):
        with pytest.raises(ModelAltered, match="chat template"):
            integrity.check_template(model, other)


def test_a_removed_model_loses_its_approval(library, stories):
    install_file(stories, library, model_id="tale")
    library.remove("tale")
    drop(library, stories)
    assert integrity_of(library).standing(library.resolve("tale")) == "waiting"


@pytest.mark.parametrize("content", [b"{", b'{"\xff": {}}'])
def test_approvals_that_cannot_be_read_are_not_taken_for_none(library, stories, content: bytes):
    model = install_file(stories, library, model_id="tale")
    (library.state_dir / "approvals.json").write_bytes(content)
    with pytest.raises(InstallFailed, match=r"approvals\.json"):
        integrity_of(library).verified(model)


@pytest.mark.parametrize("content", [b"{", b'{"\xff": []}'])
def test_digests_that_cannot_be_read_are_computed_anew(library, stories, content: bytes):
    model = install_file(stories, library, model_id="tale")
    (library.state_dir / "digests.json").write_bytes(content)
    integrity_of(library).verified(model)


def of_two_files(library: Library, stories: Path) -> InstalledModel:
    """A model that consists of weights and a file beside them, as speech models do."""
    source = library.models_dir.parent / "from"
    source.mkdir()
    shutil.copy(stories, source / "model.bin")
    (source / "config.json").write_text("{}")
    entry = parse_catalog(
        '[models.talk]\nname="T"\nfamily="w"\nn_params=1\ntask="speech"\nlicence="MIT"\n'
        '[[models.talk.variants]]\nquant="F16"\nfile="model.bin"\nextra_files=["config.json"]\n'
        f'sources=[{{kind="path",path="{source / "model.bin"}"}}]\n',
        "test",
    )
    return install("talk", library, Catalog(entry))


def test_every_file_of_a_model_of_several_is_held_to_its_digest(library, stories):
    model = of_two_files(library, stories)
    integrity = integrity_of(library)
    assert integrity.verified_beside(model)["config.json"][2] == 2
    (model.folder / "config.json").write_text("[]")
    integrity.verified(model)  # its weights are as they were
    with pytest.raises(ModelAltered, match=r"config\.json"):
        integrity.verified_beside(model)
    with pytest.raises(ModelUnusable, match="approved"):
        library.verify("talk")


def test_a_record_that_was_rewritten_with_the_file_beside_is_not_believed(library, stories):
    model = of_two_files(library, stories)
    (model.folder / "config.json").write_text("[]")
    record = model.folder / "installed.toml"
    other = sha256_of(model.folder / "config.json")
    record.write_text(record.read_text().replace(model.extra["config.json"], other))
    altered = library.resolve("talk")
    assert altered.extra["config.json"] == other
    with pytest.raises(ModelAltered):
        integrity_of(library).verified_beside(altered)


def test_a_file_that_is_added_beside_the_approved_ones_is_refused(library, stories):
    model = of_two_files(library, stories)
    (model.folder / "vocabulary.txt").write_text("")
    record = model.folder / "installed.toml"
    added = sha256_of(model.folder / "vocabulary.txt")
    record.write_text(record.read_text() + f'"vocabulary.txt" = "{added}"\n')
    with pytest.raises(ModelAltered, match="vocabulary"):
        integrity_of(library).verified_beside(library.resolve("talk"))


def test_approving_a_model_of_several_files_approves_them_all(library, stories):
    model = of_two_files(library, stories)
    (model.folder / "config.json").write_text("[]")
    assert library.state_dir is not None
    where = ("--models-dir", library.models_dir, "--state-dir", library.state_dir)
    done = run_here("models", "approve", "talk", "--yes", *where)
    assert done.returncode == 0, done.stderr
    assert f"approved was {model.extra['config.json']}" in done.stdout
    assert integrity_of(library).verified_beside(library.resolve("talk"))["config.json"][2] == 2
