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


def test_the_readme_fits_on_a_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_table_of_the_package_has_an_answer_to_many_questions():
    assert len(NAMED) >= 40


@pytest.mark.parametrize("path", sorted(set(NAMED)))
def test_a_file_that_the_table_names_is_there(path: str):
    assert (ROOT / "edgeagent" / path).exists()
