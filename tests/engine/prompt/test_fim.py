"""Prompts with a gap, on a vocabulary that has marks for one and on one that has none."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.engine.llama.model import Llama
from edgeagent.engine.prompt.rendered_prompt import PromptBuilder
from edgeagent.errors import UnsupportedParameter
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.prompt import Prompt
from tests.catalog.mutants import U32, Key, take_apart

MARKS = {"pre": 300, "suf": 301, "mid": 302}


def loaded(path: Path) -> Llama:
    return Llama(EngineConfig(model_id="m", path=str(path), n_ctx=64, n_seq=1))


@pytest.fixture(scope="module")
def taught(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    """stories260K, with three of its tokens named as the marks of a gap."""
    parts = take_apart(stories)
    keys = [
        Key(f"tokenizer.ggml.fim_{name}_token_id".encode(), U32, struct.pack("<I", token))
        for name, token in MARKS.items()
    ]
    path = tmp_path_factory.mktemp("fim") / "taught.gguf"
    path.write_bytes(replace(parts, keys=(*parts.keys, *keys)).encode())
    llama = loaded(path)
    yield llama
    llama.close()


def test_a_prompt_with_a_gap_is_what_stands_before_and_behind_each_after_its_mark(taught):
    builder = PromptBuilder(taught, None, 1.0, "taught")
    built = list(builder.build(Prompt(text="def add(", suffix="return a + b <s>"), None).tokens)
    assert built[0] == taught.bos and built[-1] == MARKS["mid"]
    first, second = built.index(MARKS["pre"]), built.index(MARKS["suf"])
    assert first == 1 < second
    assert taught.detokenize(built[first + 1 : second]).strip() == "def add("
    behind = taught.detokenize(built[second + 1 : -1]).strip()
    assert behind == "return a + b <s>", "what looks like a special token is text"
    assert taught.bos not in built[1:]


def test_an_empty_suffix_is_none(taught):
    builder = PromptBuilder(taught, None, 1.0, "taught")
    plain = builder.build(Prompt(text="Once"), None).tokens
    assert builder.build(Prompt(text="Once", suffix=""), None).tokens == plain


def test_a_model_that_was_not_taught_refuses_by_name(stories: Path):
    llama = loaded(stories)
    try:
        builder = PromptBuilder(llama, None, 1.0, "stories")
        with pytest.raises(UnsupportedParameter, match="stories") as caught:
            builder.build(Prompt(text="a", suffix="b"), None)
        assert caught.value.param == "suffix"
    finally:
        llama.close()
