"""What the READMEs promise of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT.joinpath("edgeagent", "README.md").read_text(encoding="utf-8")
NAMED = re.findall(
    r"`([a-z_0-9/]+(?:\.py|/))`", TABLE.partition("## Where is what")[2].partition("\n## ")[0]
)


DOCUMENTS = (
    "README.md", "edgeagent/README.md", "scripts/README.md", "scripts/faults/README.md",
    "scripts/benchmarks/RESULTS.md", "tests/README.md",
)  # fmt: skip
FROM_ROOT = re.compile(r"`((?:tests|scripts)/[a-z_0-9/]+(?:\.py|\.md|/)?)[ :`]")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_test_or_script_that_a_document_names_is_there(name: str):
    named = FROM_ROOT.findall((ROOT / name).read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_test_that_stands_for_a_line_of_the_surface_is_there():
    text = (ROOT / "tests" / "README.md").read_text("utf-8")
    named = re.findall(r"`([a-z_]+/[a-z_/]+\.py)(?:::([a-z_0-9]+))?`", text)
    assert len(named) > 40
    for path, test in named:
        file = ROOT / path if path.startswith("scripts/") else ROOT / "tests" / path
        assert file.exists(), path
        assert not test or f"def {test}(" in file.read_text("utf-8"), f"{path}::{test}"


def test_the_readme_fits_on_a_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_table_of_the_package_has_an_answer_to_many_questions():
    assert len(NAMED) >= 40


@pytest.mark.parametrize("path", sorted(set(NAMED)))
def test_a_file_that_the_table_names_is_there(path: str):
    assert (ROOT / "edgeagent" / path).exists()
