"""The header reader: real files are read, everything else is refused and nothing worse."""

from __future__ import annotations

import os
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.gguf.header import ArrayValue, HeaderLimits, read_header
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.errors import GGUFRefused
from tests.catalog.mutants import ARR, STR, U32, Key, Parts, array, mutants, scalar
from tests.conftest import n_examples

ONE_FILE = settings(
    max_examples=n_examples(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def lies(path: Path) -> str | None:
    """The refusal, or None where the file passes. Any other exception fails the test."""
    try:
        inspect(path)
    except GGUFRefused as refusal:
        return refusal.message
    return None


def with_keys(parts: Parts, *keys: Key) -> Parts:
    names = {key.name for key in keys}
    return replace(parts, keys=(*(k for k in parts.keys if k.name not in names), *keys))


def u32(name: str, value: int) -> Key:
    return Key(name.encode(), U32, scalar(U32, value))


def test_a_real_model_is_described(stories: Path) -> None:
    facts = inspect(stories)
    assert (facts.architecture, facts.n_layers, facts.n_embd) == ("llama", 5, 64)
    assert facts.n_head == (8,) * 5
    assert facts.n_head_kv == (4,) * 5
    assert (facts.key_length, facts.n_ctx_train, facts.n_vocab) == (8, 2048, 512)
    assert (facts.bos_id, facts.eos_id, facts.tokenizer) == (1, 2, "llama")
    assert facts.n_params == 260_032
    assert facts.weights_bytes == sum(facts.bytes_by_type.values()) == 1_040_128
    assert not facts.has_chat_template
    assert facts.task == "generate"


def test_a_quantized_chat_model_is_described(smollm: Path) -> None:
    facts = inspect(smollm)
    assert (facts.n_layers, facts.n_vocab, facts.quant) == (30, 49_152, "Q4_1")
    assert facts.n_params == 134_515_008
    assert facts.bytes_by_type["Q4_1"] == 66_355_200
    assert facts.rope["freq_base"] == 100_000.0
    assert facts.template_sha256 is not None
    assert facts.template_sha256.startswith("872be49d")


def test_the_header_agrees_with_the_gguf_package(stories: Path) -> None:
    ours, theirs = read_header(stories), gguf.GGUFReader(stories)
    assert ours.data_offset == theirs.data_offset
    assert {t.name: (t.shape, t.n_bytes, ours.data_offset + t.offset) for t in ours.tensors} == {
        t.name: (tuple(t.shape), t.n_bytes, t.data_offset) for t in theirs.tensors
    }
    for field in theirs.fields.values():
        if not field.name.startswith("GGUF.") and field.types[0] != gguf.GGUFValueType.ARRAY:
            assert ours.metadata[field.name] == field.contents()


def test_a_vocabulary_is_counted_and_not_kept(stories: Path) -> None:
    assert read_header(stories).metadata["tokenizer.ggml.tokens"] == ArrayValue(
        "string", 512, None, n_distinct=512
    )


def test_the_type_table_is_the_one_of_the_gguf_package() -> None:
    theirs = {
        int(kind): (kind.name, *size)
        for kind, size in gguf.GGML_QUANT_SIZES.items()
        if int(kind) in GGML_TYPES
    }
    assert theirs == {kind: tuple(ours) for kind, ours in GGML_TYPES.items() if kind in theirs}
    assert len(theirs) >= 30


def test_taking_apart_and_putting_together_changes_nothing(
    stories: Path, parts: Parts, tmp_path: Path
) -> None:
    path = tmp_path / "same.gguf"
    path.write_bytes(parts.encode())
    assert replace(inspect(path), file_bytes=0) == replace(inspect(stories), file_bytes=0)


def test_every_structured_mutant_is_described_or_refused(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "mutant.gguf"
    n_all = n_refused = 0
    for _, data in mutants(parts):
        path.write_bytes(data)
        n_all += 1
        n_refused += lies(path) is not None
    assert n_all >= 500
    assert n_refused >= n_all // 2


DEADLY = [
    (u32("llama.block_count", 0), "llama.block_count"),
    (u32("llama.block_count", 513), "llama.block_count"),
    (u32("llama.block_count", 4), "says it has 4 layers"),
    (u32("llama.attention.head_count", 0), "llama.attention.head_count"),
    (u32("llama.attention.head_count", 7), "must divide"),
    (u32("llama.attention.head_count_kv", 0), "llama.attention.head_count_kv"),
    (u32("llama.attention.head_count_kv", 3), "must divide"),
    (u32("llama.context_length", 0), "llama.context_length"),
    (u32("llama.embedding_length", 65), "embedding has 65"),
    (u32("llama.expert_count", 4), "uses none"),
    (u32("llama.expert_count", 4_000_000), "llama.expert_count"),
    (u32("llama.expert_used_count", 2), "llama.expert_used_count"),
    (u32("llama.vocab_size", 511), "lists 512"),
    (u32("llama.rope.dimension_count", 7), "must be even"),
    (u32("tokenizer.ggml.bos_token_id", 512), "token 512"),
    (u32("split.count", 3), "one of 3 parts"),
    (Key(b"llama.attention.layer_norm_rms_epsilon", 6, scalar(6, float("nan"))), "finite"),
    (Key(b"llama.attention.layer_norm_rms_epsilon", 6, scalar(6, 0.0)), "above 0"),
    (Key(b"llama.rope.freq_base", 6, scalar(6, float("inf"))), "finite"),
    (Key(b"llama.rope.freq_base", 6, scalar(6, -1.0)), "above 0"),
    (Key(b"llama.rope.scaling.type", STR, scalar(STR, "bent")), "rope scaling"),
    (Key(b"llama.block_count", STR, scalar(STR, "5")), "whole number"),
    (Key(b"tokenizer.ggml.scores", ARR, array(6, [0.0] * 511)), "511 values"),
    (Key(b"tokenizer.ggml.token_type", ARR, array(0, [1] * 512)), "array of i32"),
    (Key(b"tokenizer.ggml.tokens", ARR, array(STR, ["same"] * 512)), "only 1 differ"),
    (Key(b"tokenizer.ggml.tokens", ARR, array(STR, [])), "0 tokens"),
    (u32("general.alignment", 16), "alignment 16"),
    (Key(b"tokenizer.ggml.model", STR, scalar(STR, "bert")), "without a seperator token"),
    (Key(b"tokenizer.ggml.model", STR, scalar(STR, "rwkv")), "rwkv tokenizer"),
    (u32("llama.attention.key_length", 64), "key-value heads of 64"),
    (Key(b"general.type", STR, scalar(STR, "adapter")), "LoRA adapter"),
    (Key(b"general.architecture", STR, scalar(STR, "../etc")), "architecture"),
]


@pytest.mark.parametrize(("key", "said"), DEADLY, ids=[said for _, said in DEADLY])
def test_a_deadly_value_is_refused_by_name(
    parts: Parts, tmp_path: Path, key: Key, said: str
) -> None:
    path = tmp_path / "deadly.gguf"
    path.write_bytes(with_keys(parts, key).encode())
    assert said in (lies(path) or "passed")


def test_a_tensor_that_the_engine_has_no_kernel_for_is_refused(
    parts: Parts, tmp_path: Path
) -> None:
    """Each of these ended the process of llama.cpp at the first decoded token."""
    path = tmp_path / "deadly.gguf"
    for name, kind in ((b"token_embd.weight", 26), (b"blk.4.ffn_norm.weight", 1)):
        tensors = tuple(
            replace(tensor, type=kind) if tensor.name == name else tensor
            for tensor in parts.tensors
        )
        path.write_bytes(replace(parts, tensors=tensors).encode())
        assert "cannot compute with" in (lies(path) or "passed")


ORDINARY = [
    Key(b"llama.attention.head_count_kv", ARR, array(U32, [4, 4, 4, 4, 4])),
    Key(b"llama.feed_forward_length", ARR, array(U32, [172] * 5)),
    u32("tokenizer.ggml.padding_token_id", 0xFFFFFFFF),
    u32("llama.attention.sliding_window", 512),
    u32("llama.expert_count", 0),
    u32("llama.attention.key_length", 8),
    Key(b"llama.rope.scaling.type", STR, scalar(STR, "yarn")),
    Key(b"future.unknown_key", STR, scalar(STR, "whatever")),
    Key(b"general.name", STR, scalar(STR, b"\xff\xfe not UTF-8")),
    Key(b"tokenizer.ggml.tokens", ARR, array(STR, ["", "", *(f"t{i}" for i in range(510))])),
]


@pytest.mark.parametrize("key", ORDINARY, ids=[key.name.decode() for key in ORDINARY])
def test_what_ordinary_models_contain_passes(parts: Parts, tmp_path: Path, key: Key) -> None:
    path = tmp_path / "ordinary.gguf"
    path.write_bytes(with_keys(parts, key).encode())
    assert lies(path) is None


def test_a_terminal_cannot_be_driven_by_a_model_name(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "named.gguf"
    path.write_bytes(
        with_keys(parts, Key(b"general.name", STR, scalar(STR, "a\x1b[2J\nb"))).encode()
    )
    assert inspect(path).name == "a[2Jb"


def write_model(path: Path, architecture: str, **lengths: int | list[int]) -> None:
    """A tiny model of another architecture, written by the gguf package."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    for name, value in lengths.items():
        key = f"{architecture}.{name.replace('__', '.')}"
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_uint32(key, value)
    writer.add_token_list([f"<{i}>" for i in range(16)])
    writer.add_tokenizer_model("gpt2")
    writer.add_tensor("token_embd.weight", np.zeros((16, 32), np.float32))
    for layer in range(2):
        kind = "ssm_in" if architecture == "mamba" else "attn_qkv"
        writer.add_tensor(f"blk.{layer}.{kind}.weight", np.zeros((96, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("architecture", "lengths"),
    [
        ("mamba", {"attention__head_count": 0, "feed_forward_length": 0, "ssm__conv_kernel": 4}),
        ("bert", {"attention__head_count": 4, "pooling_type": 1}),
        ("gemma3", {"attention__head_count": 3, "attention__key_length": 16}),
        ("lfm2", {"attention__head_count": 4, "attention__head_count_kv": [0, 2]}),
        ("granitemoe", {"attention__head_count": 4, "expert_count": 8, "expert_used_count": 2}),
        ("phi3", {"attention__head_count": 4, "attention__sliding_window": 64}),
    ],
)
def test_other_architectures_pass(
    tmp_path: Path, architecture: str, lengths: dict[str, int | list[int]]
) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, architecture, **lengths)
    facts = inspect(path)
    assert facts.architecture == architecture
    assert (facts.task == "embed") == (architecture == "bert")


def test_a_file_cut_anywhere_is_refused(stories: Path, tmp_path: Path) -> None:
    whole = stories.read_bytes()
    path = tmp_path / "cut.gguf"
    cuts = [*range(400), *range(400, 14_200, 97), *range(14_200, len(whole), 30_011)]
    for n_bytes in [*cuts, len(whole) - 1]:
        path.write_bytes(whole[:n_bytes])
        assert lies(path) is not None, n_bytes


def test_a_file_cut_in_half_is_refused_with_the_numbers(stories: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(stories.read_bytes()[:600_000])
    message = lies(path) or ""
    assert "has 600000 bytes" in message
    assert "install it again" in message


@ONE_FILE
@given(st.data())
def test_changed_bytes_are_described_or_refused(
    stories: Path, tmp_path: Path, data: st.DataObject
) -> None:
    changed = bytearray(stories.read_bytes())
    places = st.integers(0, 14_175)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        changed[at] = value
    path = tmp_path / "flipped.gguf"
    path.write_bytes(changed)
    lies(path)


@ONE_FILE
@given(st.binary(max_size=600))
def test_any_bytes_behind_the_magic_are_refused(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + tail)
    assert lies(path) is not None


@pytest.mark.parametrize("n", [2**31, 2**40, 2**63, 2**64 - 1])
def test_a_count_is_never_believed(parts: Parts, tmp_path: Path, n: int) -> None:
    path = tmp_path / "counts.gguf"
    huge = Key(b"huge", ARR, struct.pack("<IQ", STR, n))
    for lie in (
        replace(parts, n_keys=n),
        replace(parts, n_tensors=n),
        with_keys(parts, huge),
        with_keys(parts, Key(b"long", STR, struct.pack("<Q", n))),
    ):
        path.write_bytes(lie.encode())
        assert str(n) in (lies(path) or "passed")


def test_a_large_vocabulary_takes_little_memory(parts: Parts, tmp_path: Path) -> None:
    tokens = Key(b"tokenizer.ggml.tokens", ARR, array(STR, [f"token{i}" for i in range(80_000)]))
    scores = Key(b"tokenizer.ggml.scores", ARR, array(6, [0.0] * 80_000))
    path = tmp_path / "large.gguf"
    path.write_bytes(with_keys(parts, tokens, scores).encode())
    tracemalloc.start()
    try:
        header = read_header(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert header.metadata["tokenizer.ggml.scores"] == ArrayValue("f32", 80_000)
    # The strings as Python objects would take 8 MB.
    assert peak_bytes < 5 * 1024 * 1024


def test_a_header_beyond_the_bound_is_refused(parts: Parts, stories: Path) -> None:
    limits = HeaderLimits(max_header_bytes=4096)
    with pytest.raises(GGUFRefused, match="more than 4096 bytes, the limit"):
        read_header(stories, limits)


def test_a_named_pipe_a_folder_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "absent.gguf", Path("a\0b")):
        assert lies(path) is not None
