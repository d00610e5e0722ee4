"""Which texts a person should look at, and what an update keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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


def test_three_versions_are_kept_and_the_one_before_is_found(tmp_path: Path):
    workspace = Workspace(tmp_path, "bot")
    domain = domain_of(("hello", "greet"), ("bye", "leave"))
    for version in range(1, 6):
        plan = Plan(version, "head", "", "", "", 1.0)
        assert workspace.begin(plan, domain)
        assert not workspace.begin(plan, domain), "unfinished work goes on"
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
