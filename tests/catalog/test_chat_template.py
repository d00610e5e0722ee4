"""Chat templates installed beside a model: on disk, in the record, among the approvals."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeagent.catalog.approvals import Approvals
from edgeagent.catalog.chat_template import (
    MAX_TEMPLATE_BYTES,
    ChatTemplate,
    installed_template,
    read_template,
)
from edgeagent.catalog.install.installer import install_file, set_template
from edgeagent.catalog.install_record import InstalledModel, read_record
from edgeagent.catalog.integrity import Integrity
from edgeagent.catalog.model_library import Library
from edgeagent.errors import InstallFailed, ModelAltered, ModelUnusable
from edgeagent.types.template import TemplateFacts

ONE, TWO = ChatTemplate("{{ messages }} eins\r\n"), ChatTemplate("{{ messages }} zwei")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "models").mkdir()
    return Library(tmp_path / "models", tmp_path / "shipped", tmp_path / "state")


def integrity_of(library: Library) -> Integrity:
    assert library.approvals is not None
    return Integrity(library, library.approvals)


def trial(path: Path, template: str | None = None) -> TemplateFacts:
    assert path.is_file()
    return TemplateFacts(source="installed" if template else "model", problem=template)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no text"),
        (b" \n\t", "no text"),
        (b"a\0b", "NUL"),
        (b"{{ messages }}\xff", r"not UTF-8 text \(byte 14\)"),
        (b"x" * (MAX_TEMPLATE_BYTES + 1), f"more than {MAX_TEMPLATE_BYTES} bytes"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_template_is_refused(tmp_path, data, said):
    file = tmp_path / "x.jinja"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InstallFailed, match=said):
        read_template(file)


def test_a_byte_order_mark_is_no_part_of_a_template(tmp_path):
    (tmp_path / "x.jinja").write_bytes(b"\xef\xbb\xbf{{ messages }}")
    assert read_template(tmp_path / "x.jinja").text == "{{ messages }}"


def test_a_template_is_installed_changed_and_taken_back(library, stories):
    model = install_file(stories, library, model_id="tale", trial=trial, template=ONE)
    assert model.template == TemplateFacts(source="installed", problem=ONE.text)
    assert read_record(model.folder) == model
    assert installed_template(model) == ONE == integrity_of(library).template(model)
    library.verify("tale")

    stamp = model.path.stat().st_mtime_ns
    changed = set_template(model, library, TWO, trial=trial)
    assert integrity_of(library).template(library.resolve("tale")) == TWO
    assert changed.path.stat().st_mtime_ns == stamp and changed.source == model.source
    assert sorted(path.name for path in model.folder.iterdir()) == sorted(
        [TWO.file, "installed.toml", "tale.gguf"]
    )

    own = install_file(stories, library, model_id="tale", trial=trial)
    assert (own.template_file, own.extra, own.template) == (None, {}, TemplateFacts(source="model"))
    assert integrity_of(library).template(own) is None
    assert not list(own.folder.glob("*.jinja"))


def test_a_template_that_fails_its_trial_leaves_the_old_one(library, stories):
    model = install_file(stories, library, model_id="tale", trial=trial, template=ONE)

    def failing(path: Path, template: str) -> TemplateFacts:
        raise ModelUnusable("line 3")

    with pytest.raises(InstallFailed, match="line 3"):
        set_template(model, library, TWO, trial=failing)
    found = library.resolve("tale")
    assert found == model and integrity_of(library).template(found) == ONE


def test_a_template_that_was_altered_added_or_taken_away_is_refused(library, stories):
    model = install_file(stories, library, model_id="tale", trial=trial, template=ONE)
    integrity = integrity_of(library)
    file = model.folder / ONE.file
    file.write_text(TWO.text)
    with pytest.raises(ModelAltered, match="chat template"):
        integrity.template(library.resolve("tale"))
    with pytest.raises(ModelUnusable, match="sha256"):
        library.verify("tale")
    # Whoever can write the folder can write the record in it too: the approval is elsewhere.
    for changes in (
        {"extra": {ONE.file: TWO.sha256}},
        {"extra": {}, "template_file": None},
    ):
        altered = msgspec.structs.replace(model, **changes)
        (model.folder / "installed.toml").write_text(altered.to_toml())
        with pytest.raises(ModelAltered, match="chat template"):
            integrity.template(library.resolve("tale"))
    install_file(stories, library, model_id="plain", trial=trial)
    (library.folder("plain") / ONE.file).write_text(ONE.text)
    added = msgspec.structs.replace(
        library.resolve("plain"), template_file=ONE.file, extra={ONE.file: ONE.sha256}
    )
    with pytest.raises(ModelAltered, match="chat template"):
        integrity.template(added)


def test_a_link_in_place_of_a_template_is_not_followed(library, stories, tmp_path):
    model = install_file(stories, library, model_id="tale", trial=trial, template=ONE)
    (tmp_path / "elsewhere").write_text(ONE.text, newline="")
    (model.folder / ONE.file).unlink()
    (model.folder / ONE.file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelAltered, match="cannot be read"):
        integrity_of(library).template(model)


def test_a_record_that_names_a_template_without_its_digest_is_none(library, stories):
    model = install_file(stories, library, model_id="tale", trial=trial, template=ONE)
    text = msgspec.structs.replace(model, extra={}).to_toml()
    (model.folder / "installed.toml").write_text(text)
    assert read_record(model.folder) is None


def test_what_was_installed_before_there_were_approvals_is_adopted_with_its_template(
    library, stories
):
    before = Library(library.models_dir, library.shipped_dir)
    install_file(stories, before, model_id="tale", template=ONE)
    integrity = integrity_of(library)
    integrity.adopt()
    assert integrity.template(library.resolve("tale")) == ONE


def test_an_approval_of_an_older_version_says_that_there_is_no_installed_template(library, stories):
    model = install_file(stories, library, model_id="tale", template=ONE)
    assert isinstance(library.approvals, Approvals)
    library.approvals.approve("tale", model.sha256, None, "approved")
    with pytest.raises(ModelAltered, match="models approve"):
        integrity_of(library).template(model)


def test_a_model_that_was_dropped_in_is_to_be_installed_first(library, stories):
    model = InstalledModel.bare("bare", stories)
    with pytest.raises(InstallFailed, match="--chat-template FILE"):
        set_template(model, library, ONE)
