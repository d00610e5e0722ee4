"""Vocabularies and layers that are cut: texts round-trip, logits stay, files load."""

from __future__ import annotations

import itertools
import json
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.catalog.gguf.header import read_header
from edgeagent.engine.llama.model import Llama
from edgeagent.optimize.magnitude import without_smallest
from edgeagent.optimize.recipe import read_recipe
from edgeagent.optimize.vocabulary import NORMAL, Vocabulary, parts_of, pruned
from edgeagent.optimize.width import LayerShape, Scores, Width, steps, whole
from edgeagent.types.engine_config import EngineConfig
from tests.commands import run_here

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
ASSISTANT = ROOT / "models/edge-assistant-s/edge-assistant-s.Q8_0.gguf"
TALES = ROOT / "tests/data/tales260K.gguf"
TEXT = ROOT / "LICENSE"

MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("in", "g"), ("the", "i"), ("thei", "r")]
TOKENS = ["<end>", "t", "h", "e", "i", "n", "g", "r", *("".join(pair) for pair in MERGES)]
WORDS = st.text("theingr", max_size=12)
SMALL = Vocabulary(TOKENS, [3] + [NORMAL] * (len(TOKENS) - 1), MERGES)


def split(text, tokens, merges):
    """Byte-pair encoding by the book."""
    ranks, symbols = {pair: rank for rank, pair in enumerate(merges)}, list(text)
    while True:
        pairs = [(ranks[p], i) for i, p in enumerate(itertools.pairwise(symbols)) if p in ranks]
        if not pairs:
            return symbols
        rank, _ = min(pairs)
        merged, i = [], 0
        while i < len(symbols):
            if tuple(symbols[i : i + 2]) == merges[rank]:
                merged.append("".join(merges[rank]))
                i += 2
            else:
                merged.append(symbols[i])
                i += 1
        symbols = merged


def test_every_token_on_the_way_to_a_token_is_found():
    ranks = {pair: rank for rank, pair in enumerate(MERGES)}
    assert parts_of("their", ranks) == {*"their", "th", "the", "thei", "their"}
    assert parts_of("tn", ranks) == {"t", "n"}


def test_single_bytes_and_special_tokens_are_always_kept():
    found = pruned(SMALL, [TOKENS.index("the")])
    kept = [TOKENS[i] for i in found.ids]
    assert kept == ["<end>", "t", "h", "e", "i", "n", "g", "r", "th", "the"]
    assert [MERGES[i] for i in found.merges] == [("t", "h"), ("th", "e")]


@settings(max_examples=80)
@given(st.lists(WORDS.filter(bool), min_size=1, max_size=4), WORDS)
def test_texts_of_the_domain_are_split_as_before_and_others_stay_whole(texts, other):
    used = {TOKENS.index(token) for text in texts for token in split(text, TOKENS, MERGES)}
    found = pruned(SMALL, used)
    merges = [MERGES[i] for i in found.merges]
    for text in texts:
        assert split(text, TOKENS, merges) == split(text, TOKENS, MERGES)
    assert "".join(split(other, TOKENS, merges)) == other
    assert set(split(other, TOKENS, merges)) <= {TOKENS[i] for i in found.ids}


def loaded(path):
    return Llama(
        EngineConfig(model_id="m", path=str(path), n_ctx=64, n_seq=1, n_prefixes=0, n_threads=1)
    )


def logits_of(llama, tokens):
    llama.clear()
    llama.batch.clear()
    llama.batch.add(0, array("i", tokens), 0, n_outputs=1)
    return llama.decode()[0].copy()


def test_a_smaller_vocabulary_splits_texts_alike_and_gives_the_same_logits(tmp_path):
    path = tmp_path / "small.gguf"
    done = run_here("prune", "vocabulary", ASSISTANT, path, "--text", TEXT)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size < 0.85 * ASSISTANT.stat().st_size
    before, after = loaded(ASSISTANT), loaded(path)
    try:
        assert (
            after.n_vocab < before.n_vocab
            and f"{after.n_vocab} of {before.n_vocab} tokens" in done.stdout
        )
        text = TEXT.read_text()
        old = list(before.tokens_of(text, add_special=False, parse_special=False))
        new = list(after.tokens_of(text, add_special=False, parse_special=False))
        assert after.detokenize(new) == text == before.detokenize(old)
        pieces = [before.text_of(token) for token in old]
        assert [after.text_of(token) for token in new] == pieces
        other = "¿Dónde está mi tarjeta? 我的卡在哪里 zyxwv"
        strange = list(after.tokens_of(other, add_special=False, parse_special=False))
        assert after.detokenize(strange) == other
        assert before.text_of(before.eos) == after.text_of(after.eos)
        old_ids = dict(zip(new, old, strict=True))
        kept = sorted(old_ids)
        for start in (0, 300, 900):
            one = logits_of(before, old[start : start + 32])
            two = logits_of(after, new[start : start + 32])
            assert np.array_equal(one[[old_ids[i] for i in kept]], two[kept])
    finally:
        before.close()
        after.close()


def test_a_vocabulary_without_merges_is_refused(tmp_path):
    done = run_here("prune", "vocabulary", TALES, tmp_path / "out.gguf", "--text", TEXT)
    assert done.returncode == 2 and "only byte-pair vocabularies" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_layers_that_are_missed_least_are_left_out(tmp_path):
    path = tmp_path / "shallow.gguf"
    arguments = ("--text", TEXT, "--ctx", 64, "--chunks", 4, "--threads", 1)
    done = run_here("prune", "layers", TALES, path, *arguments, "--n", 2)
    assert done.returncode == 0, done.stderr
    n_layers = read_header(TALES).metadata["llama.block_count"]
    assert read_header(path).metadata["llama.block_count"] == n_layers - 2
    dropped = read_recipe(tmp_path / "shallow.gguf.recipe.toml").dropped_layers
    assert len(dropped) == 2 and all(f"Layer {layer} left out" in done.stdout for layer in dropped)
    # What was measured with silent layers is what the file without them does.
    told = float(done.stdout.splitlines()[1].rpartition(" ")[2].rstrip("."))
    measured = run_here(
        "evaluate",
        path,
        "--against",
        TALES,
        *arguments,
        "--runs",
        0,
        "--json",
        tmp_path / "out.json",
    )
    assert measured.returncode == 0
    found = json.loads((tmp_path / "out.json").read_text())["models"][1]["kl_divergence"]["mean"]
    assert found == pytest.approx(told, rel=0.02)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out.json",
        "shallow.gguf",
        "shallow.gguf.recipe.toml",
    ]


def test_layers_that_cannot_be_left_out_are_said(tmp_path):
    texts = ("--text", TEXT, "--ctx", 64, "--chunks", 1, "--n", 1, "--max-kld", 1e-9)
    done = run_here("prune", "layers", TALES, tmp_path / "out.gguf", *texts)
    assert done.returncode == 2 and "No layer can be left out" in done.stderr
    assert not (tmp_path / "out.gguf").exists()


SHAPE = LayerShape(
    n_layers=2, n_embd=8, n_heads=4, n_kv_heads=2, head_dim=2, n_ff=64, n_ff_matrices=3
)


def scores(heads=((1, 2, 3, 4), (4, 3, 2, 1))):
    channels = np.stack([np.arange(64.0), np.arange(64.0)[::-1]])
    return Scores(np.array(heads, np.float64), channels)


def test_each_layer_loses_its_own_least_important_channels_and_heads():
    found = {step.what: step.width for step in steps(SHAPE, whole(SHAPE), scores(), 1600)}
    channels = found.pop("32 channels of each layer").channels
    assert channels == (tuple(range(32, 64)), tuple(range(32)))
    assert found["a head of each group"].heads == ((1, 3), (0, 2))
    group = found["a group of heads of each layer"]
    assert group.groups == ((1,), (0,)) and group.heads == ((2, 3), (0, 1))


def test_heads_are_not_offered_where_they_are_more_than_twice_of_what_is_wanted():
    assert [step.what for step in steps(SHAPE, whole(SHAPE), scores(), 60)] == [
        "32 channels of each layer"
    ]


def test_rows_and_columns_of_what_stays_are_those_of_the_heads():
    width = Width(((1,), (0,)), ((2, 3), (0, 1)), ((0, 5), (1, 2)))
    assert list(width.rows("blk.0.attn_q.weight", SHAPE)) == [4, 5, 6, 7]
    assert list(width.rows("blk.0.attn_k.weight", SHAPE)) == [2, 3]
    assert list(width.columns("blk.1.attn_output.weight", SHAPE)) == [0, 1, 2, 3]
    assert list(width.columns("blk.1.ffn_down.weight", SHAPE)) == [1, 2]
    assert width.rows("blk.0.attn_norm.weight", SHAPE) is None is width.rows("output.weight", SHAPE)
    assert list(width.dropped_columns(SHAPE)["blk.0.attn_output.weight"]) == [0, 1, 2, 3]


def test_a_narrower_file_does_what_was_measured_in_memory(tmp_path):
    path = tmp_path / "narrow.gguf"
    done = run_here(
        "prune", "width", TALES, path, "--text", TEXT, "--ctx", 64, "--chunks", 2, "--share", 0.3,
        "--statistics-chunks", 8, "--steps", 2, "--threads", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "narrow.gguf.width.json").read_text())
    header = read_header(path)
    before, after = told["before"], told["after"]
    assert header.metadata["llama.feed_forward_length"] == after["n_ff"]
    assert header.metadata["llama.attention.head_count"] == after["n_heads"]
    assert (after["n_ff"], after["n_heads"]) != (before["n_ff"], before["n_heads"])
    assert told["kl_divergence"] == pytest.approx(told["steps"][-1]["kld"], rel=0.02)
    assert 0.25 < told["steps"][-1]["share"] < 0.35 and path.stat().st_size < TALES.stat().st_size


@pytest.mark.parametrize(
    ("source", "extra", "reason"),
    [
        (TALES, ("--max-kld", 1e-9), "Nothing can be left out"),
        (ASSISTANT, (), "columns can be cut of F16 and F32 only"),
    ],
)
def test_what_cannot_be_made_narrower_leaves_no_file(source, extra, reason, tmp_path):
    texts = (
        "--text",
        TEXT,
        "--ctx",
        64,
        "--chunks",
        1,
        "--share",
        0.2,
        "--steps",
        2,
        "--statistics-chunks",
        2,
    )
    done = run_here("prune", "width", source, tmp_path / "out.gguf", *texts, *extra)
    assert done.returncode == 2 and reason in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_smallest_weights_of_each_row_are_set_to_zero_and_activations_count():
    rows = np.array([[1, -4, 2, 3], [8, 5, -6, 7]], np.float16)
    assert without_smallest(rows, 0.5).tolist() == [[0, -4, 0, 3], [8, 0, 0, 7]]
    heavy = np.array([100, 1, 1, 1], np.float32)
    assert without_smallest(rows, 0.5, heavy).tolist() == [[1, -4, 0, 0], [8, 0, 0, 7]]
    assert without_smallest(rows, 0.1).tolist() == rows.tolist()


def test_a_sparse_file_is_as_large_as_before_and_that_is_said(tmp_path):
    path = tmp_path / "sparse.gguf"
    done = run_here("prune", "magnitude", TALES, path, "--share", 0.25)
    assert done.returncode == 0, done.stderr
    assert "25.0% of" in done.stdout and "dense kernels save nothing" in done.stdout
    assert path.stat().st_size == pytest.approx(TALES.stat().st_size, rel=0.001)
    refused = run_here("prune", "magnitude", ASSISTANT, tmp_path / "no.gguf", "--share", 0.25)
    assert refused.returncode == 2 and "in F16 and F32 files only" in refused.stderr
