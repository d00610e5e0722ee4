"""Pairs of prompts and answers: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.errors import ForgeFailed
from edgeagent.forge.adapters.pairs import Pair, digest_of, read_pairs, split

ROWS = [f"say {n}" for n in range(20)]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "prompt,answer\n" + "".join(f"{row},yes\n" for row in ROWS)),
        ("a.csv", "id,Question,Answer\n" + "".join(f'1,"{row}"," yes "\n' for row in ROWS)),
        ("a.tsv", "prompt\tcompletion\n" + "".join(f"{row}\tyes\n" for row in ROWS)),
        ("a.jsonl", "".join(f'{{"prompt": "{row}", "answer": "yes"}}\n' for row in ROWS)),
        (
            "a.jsonl",
            "".join(f'{{"question": "{r}", "completion": "yes"}}\n\n' for r in ROWS + ROWS),
        ),
    ],
)
def test_each_prompt_is_read_once(tmp_path: Path, name: str, text: str) -> None:
    found = read_pairs(written(tmp_path, name, text))
    assert [(pair.prompt, pair.answer) for pair in found] == [(row, "yes") for row in ROWS]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.csv", "", "no columns"),
        ("a.csv", "a,b\nc,d\n", "no columns"),
        ("a.csv", "prompt,answer\nonly\n", ":2: the row has no answer"),
        ("a.csv", "prompt,answer\na,\n", ":2: the answer is empty"),
        ("a.csv", 'prompt,answer\n"a,b\n', "no CSV"),
        ("a.csv", "prompt,answer\na,b\na,c\n", ":3: the prompt of line 2 has another answer"),
        ("a.csv", "prompt,answer\na,b\n", "has 1 different prompts, 8 to"),
        ("a.csv", f"prompt,answer\n{'x' * 20_001},b\n", "20001 characters"),
        ("a.jsonl", '{"prompt": "a", "anwser": "b"}\n', ":1: no"),
        ("a.jsonl", "[" * 5000 + "\n", ":1: no"),
        ("a.jsonl", '{"prompt": 1}\n', ":1: no"),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, part: str
) -> None:
    with pytest.raises(ForgeFailed, match=part):
        read_pairs(written(tmp_path, name, text))


def test_other_bytes_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt,answer\n\xff\xfe,b\n")
    with pytest.raises(ForgeFailed, match="not UTF-8"):
        read_pairs(tmp_path / "a.csv")
    with pytest.raises(ForgeFailed, match="cannot be read"):
        read_pairs(tmp_path / "b.csv")


def test_a_tenth_is_held_out_and_always_the_same() -> None:
    pairs = [Pair(row, "yes") for row in ROWS]
    made = split(pairs, 1)
    assert len(made.held) == 2 and {*made.train, *made.held} == {*pairs}
    assert split(pairs, 1) == made and split(pairs, 2) != made
    assert digest_of(pairs) == digest_of(list(pairs)) != digest_of(pairs[::-1])
