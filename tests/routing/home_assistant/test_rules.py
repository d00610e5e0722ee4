"""The mapping file: the shipped one is sound, and what is wrong with another is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import SettingsError
from edgeagent.routing import SHIPPED_RULES
from edgeagent.routing.home_assistant.rules import read_rules


def test_every_sentence_of_the_shipped_mapping_compiles():
    book = read_rules(SHIPPED_RULES)
    for rule in book.rules:
        for template in rule.templates:
            assert (
                template.expression.fullmatch("nothing of this kind ") is None
                or not template.needed
            )
    assert {
        "HassTurnOn",
        "HassTurnOff",
        "HassGetState",
        "HassSetPosition",
        "HassLightSet",
    } <= book.tools


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules = 5", "is not a mapping"),
        ("[[rules]]\ntools = ['x']\nsentences = ['go']\nsentence = 'x'", "is not a mapping"),
        ("[[rules]]\ntools = ['x']\nsentences = ['(go']", "'(go'"),
        ("[[rules]]\ntools = ['x']\nsentences = ['go {x:miles}']", "miles"),
        ("[[rules]]\ntools = ['x']\nsentences = ['<go> on']", "go"),
        ("rules = [", "is not a mapping"),
    ],
)
def test_a_mapping_that_is_wrong_is_refused_by_name(tmp_path: Path, text, said):
    path = tmp_path / "tools.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        read_rules(path)


def test_a_mapping_of_ones_own_is_used(tmp_path: Path):
    path = tmp_path / "tools.toml"
    path.write_text("[[rules]]\ntools = ['sing']\nsentences = ['sing {song:text}']\n")
    assert read_rules(path).tools == {"sing"}
