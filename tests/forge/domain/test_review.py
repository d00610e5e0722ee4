"""Which texts a person should look at, and what an update keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain import example
from edgeagent.forge.domain.example import Domain, Place
from edgeagent.forge.domain.merging import merged
from edgeagent.forge.domain.review import nearest_intents, open_texts, ranked
from edgeagent.forge.domain.served_evaluation import Choice
from edgeagent.forge.domain.workspace import Plan, Workspace, to_lines


def domain_of(*examples: tuple[str, str], answers: dict[str, str] | None = None) -> Domain:
    domain = Domain(answers=answers or {})
    for line, (text, intent) in enumerate(examples, start=1):
        domain.add(text, intent, Place(Path("a.csv"), line))
    return domain


def test_known_and_empty_texts_are_left_out():
    known = domain_of(("Hello there", "greet")).examples
    texts = {"hello there!": None, "  a  b ": -1, "A B": 1, "": None, "x" * 501: None}
    assert open_texts(texts, known) == {"a b": -1}


def test_bad_ratings_close_calls_and_disagreement_come_first():
    texts = {"sure": None, "close": None, "odd": None, "bad": -1}
    choices = [
        Choice("a", 0.99, 0.98, {}), Choice("a", 0.5, 0.05, {}),
        Choice("a", 0.9, 0.85, {}), Choice("a", 0.99, 0.98, {}),
    ]  # fmt: skip
    items = ranked(texts, choices, ["a", "a", "b", "a"], 3)
    assert [item.text for item in items] == ["bad", "close", "odd"]
    assert items[0].why == "rated badly, margin 0.98"
    assert items[2].why == "the nearest example is b, margin 0.85"


def test_the_nearest_example_is_by_angle():
    known = domain_of(("one", "a"), ("two", "b")).examples
    texts = np.array([[0, 3], [2, 0.1]], np.float32)
    examples = np.array([[9, 0], [0, 0.1]], np.float32)
    assert nearest_intents(texts, examples, known) == ["b", "a"]


def test_new_examples_correct_old_ones():
    old = domain_of(("hello", "greet"), ("bye", "greet"), answers={"greet": "Hi."})
    new = domain_of(("Bye!", "leave"), ("see you", "leave"), answers={"leave": "Bye."})
    both = merged(old, new)
    assert [(e.text, e.intent) for e in both.examples] == [
        ("hello", "greet"), ("Bye!", "leave"), ("see you", "leave"),
    ]  # fmt: skip
    assert both.answers == {"greet": "Hi.", "leave": "Bye."}


def write_version(workspace: Workspace, domain: Domain, version: int) -> None:
    """All but its end."""
    assert workspace.begin(Plan(version, "head", "", "", "", 1.0), domain)
    (workspace.model / "catalog.toml").write_text(
        f"""[models.bot]
        name = "bot"
        family = "llama"
        n_params = 1
        task = "assistant"
        licence = "own"
        [[models.bot.variants]]
        quant = "Q8_0"
        file = "bot.Q8_0.gguf"
        sha256 = "{str(version) * 64}"
        sources = [{{kind = "path", path = "x"}}]
        """
    )


def test_three_versions_are_kept_and_the_one_before_is_found(tmp_path: Path):
    workspace = Workspace(tmp_path, "bot")
    domain = domain_of(("hello", "greet"), ("bye", "leave"))
    for version in range(1, 6):
        write_version(workspace, domain, version)
        plan = workspace.plan()
        assert not workspace.begin(plan, domain), "unfinished work goes on"
        workspace.finish(str(version) * 64)
        assert workspace.plan() == plan
    assert sorted(path.name for path in (workspace.folder / "versions").iterdir()) == [
        "3",
        "4",
        "5",
    ]
    assert workspace.previous().variants[0].sha256 == "4" * 64
    assert to_lines(workspace.examples()) == to_lines(domain)
    workspace.begin(Plan(9, "head", "", "", "", 1.0), domain)
    workspace.discard()
    workspace.finish("4" * 64)
    assert workspace.version_of("4" * 64) == 4
    assert workspace.current_gguf() == workspace.folder / "versions" / "4" / "bot.Q8_0.gguf"


def two_versions(folder: Path) -> tuple[Workspace, Domain]:
    workspace = Workspace(folder, "bot")
    domain = domain_of(("hello", "greet"), ("bye\u2028bye", "leave"))
    for version in (1, 2):
        write_version(workspace, domain, version)
        workspace.finish(str(version) * 64)
    return workspace, domain


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("versions/2/catalog.toml", b"[models.bot"),
        ("versions/2/catalog.toml", b"\xff\xfe"),
        ("versions/2/catalog.toml", b"[models]"),
        ("current", b"\xff" * 64),
    ],
)
def test_of_a_damaged_version_the_last_whole_one_is_the_way_back(
    tmp_path: Path, file: str, content: bytes
):
    workspace, domain = two_versions(tmp_path)
    assert to_lines(workspace.examples()) == to_lines(domain)
    (workspace.folder / file).write_bytes(content)
    whole = "1" if "versions" in file else "2"
    assert workspace.previous().variants[0].sha256 == whole * 64
    with pytest.raises(ForgeFailed, match="damaged or missing: `edgeagent forge rollback bot`"):
        workspace.examples()
    workspace.settle("1" * 64)  # of the model that is installed
    assert to_lines(workspace.examples()) == to_lines(domain)


def test_a_version_that_was_installed_before_a_kill_is_the_current_one(tmp_path: Path):
    workspace, domain = two_versions(tmp_path)
    write_version(workspace, domain, 3)
    (workspace.model / "done").touch()  # and killed
    workspace.settle("3" * 64)
    assert workspace.previous().variants[0].sha256 == "2" * 64
    workspace.settle(None)  # the model was removed
    assert workspace.previous().variants[0].sha256 == "2" * 64


def test_one_command_at_a_time_changes_a_model(tmp_path: Path):
    workspace = Workspace(tmp_path, "bot")
    with workspace.alone():
        with pytest.raises(ForgeFailed, match="being made by another command"), workspace.alone():
            raise AssertionError
        with Workspace(tmp_path, "other").alone():
            pass
    with workspace.alone():
        pass


def test_an_update_is_bounded_as_a_first_training_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(example, "MAX_EXAMPLES", 3)
    old = domain_of(("hello", "greet"), ("bye", "leave"))
    assert len(merged(old, domain_of(("hi", "greet"))).examples) == 3
    with pytest.raises(ForgeFailed, match="more than 3 examples"):
        merged(old, domain_of(("hi", "greet"), ("good day", "greet")))
