"""A judge learns on from the file that was made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.judge.beginning import begin_from
from scripts.judge.training import Judge
from scripts.judge.writing import write

PAIRS = [("When is it open?", "Open from 9 to 5."), ("When is it open?", "Dogs are welcome here.")]


@pytest.fixture(scope="module")
def written(minilm_published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Judge, Path]:
    torch.manual_seed(1)
    judge = Judge(minilm_published)
    with torch.no_grad():
        judge.out.weight.mul_(10)  # so that the two texts differ by more than 8 bits lose
    file = tmp_path_factory.mktemp("judge") / "judge.gguf"
    write(judge, minilm_published, file, scale=2.0, shift=0.5)
    return judge, file


def test_what_it_tells_is_the_same_and_is_calibrated(
    written: tuple[Judge, Path], minilm_published: Path
) -> None:
    judge, file = written
    torch.manual_seed(2)
    other = Judge(minilm_published)
    begin_from(other, file)
    wanted = 2 * np.array(judge.logits(PAIRS)) + 0.5
    assert abs(wanted[0] - wanted[1]) > 0.1
    np.testing.assert_allclose(other.logits(PAIRS), wanted, atol=0.05)


def test_written_again_it_is_the_same_file(
    written: tuple[Judge, Path], minilm_published: Path, tmp_path: Path
) -> None:
    _, file = written
    other = Judge(minilm_published)
    begin_from(other, file)
    write(other, minilm_published, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


def test_another_file_is_refused_and_changes_nothing(
    stories: Path, minilm_published: Path, tmp_path: Path
) -> None:
    judge = Judge(minilm_published)
    before = judge.out.weight.clone()
    text = tmp_path / "judge.gguf"
    text.write_text("no model")
    for file in (stories, text, tmp_path / "absent.gguf"):
        with pytest.raises(ValueError, match=file.name):
            begin_from(judge, file)
    assert torch.equal(judge.out.weight, before)
