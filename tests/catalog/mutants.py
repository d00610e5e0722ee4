"""Structured mutants of a GGUF file: one lie each, written so that everything else stays true.

Random byte flips hardly ever kill llama.cpp; a well-formed file with one absurd number does. So
`mutants` takes a good model apart, changes one thing, and puts it together again, several hundred
times. `python -m tests.catalog.mutants model.gguf out/` writes the ones that our header reader lets
pass, for a harness that loads each in a real worker.

The parts are taken with the `gguf` package, not with the reader under test.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gguf

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
_FORMS = {
    U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f",
    BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d",
}  # fmt: skip
_INTS = (0, 1, 2, 3, 7, 512, 513, 65535, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_FLOATS = (0.0, -1.0, 1.0, 1e-45, 1e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", "nonsense", "../../etc/passwd", "\x1b[2J", "é" * 100_000)
_HUGE = (2**16, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Key:
    """One metadata entry; `body` is its encoded value without the type."""

    name: bytes
    type: int
    body: bytes


@dataclass(frozen=True)
class Tensor:
    name: bytes
    dims: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Parts:
    """A GGUF file taken apart. Counts are written as stated, true or not."""

    keys: tuple[Key, ...]
    tensors: tuple[Tensor, ...]
    data: bytes
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None

    def encode(self) -> bytes:
        """The file."""
        return self.head() + self.data

    def head(self) -> bytes:
        """The file up to its data."""
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        out = [self.magic, struct.pack("<IQQ", self.version, n_tensors, n_keys)]
        for key in self.keys:
            out += [text(key.name), struct.pack("<I", key.type), key.body]
        for tensor in self.tensors:
            out += [text(tensor.name), struct.pack("<I", len(tensor.dims))]
            out += [struct.pack(f"<{len(tensor.dims)}Q", *tensor.dims)]
            out += [struct.pack("<IQ", tensor.type, tensor.offset)]
        head = b"".join(out)
        return head + bytes(-len(head) % 32)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def scalar(kind: int, value: float | str | bytes) -> bytes:
    """An encoded value; a number that does not fit its type is cut to its width."""
    if isinstance(value, str | bytes):
        return text(value.encode() if isinstance(value, str) else value)
    if kind in (F32, F64):
        return struct.pack(_FORMS[kind], value)
    width = struct.calcsize(_FORMS[kind])
    return (int(value) % (1 << (8 * width))).to_bytes(width, "little")


def array(kind: int, items: list[float | str], n_items: int | None = None) -> bytes:
    body = b"".join(scalar(kind, item) for item in items)
    return struct.pack("<IQ", kind, len(items) if n_items is None else n_items) + body


def take_apart(path: Path) -> Parts:
    """Read a good little-endian GGUF file."""
    reader = gguf.GGUFReader(path)
    keys = []
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):
            continue
        raw = b"".join(part.tobytes() for part in field.parts)
        name = field.name.encode()
        kind = int(field.types[0])
        keys.append(Key(name, kind, raw[8 + len(name) + 4 :]))
    tensors = tuple(
        Tensor(t.name.encode(), tuple(int(n) for n in t.shape), int(t.tensor_type), offset)
        for t in reader.tensors
        for offset in [int(t.data_offset) - int(reader.data_offset)]
    )
    return Parts(tuple(keys), tensors, Path(path).read_bytes()[int(reader.data_offset) :])


def mutants(parts: Parts) -> Iterator[tuple[str, bytes]]:
    """(name of the lie, bytes of the file), several hundred, in a fixed order."""
    return ((name, lie.encode()) for name, lie in lies(parts))


def lies(parts: Parts) -> Iterator[tuple[str, Parts]]:
    """The mutants, each still apart: of a large model nobody wants hundreds of copies of its data."""
    yield from _of_counts(parts)
    for i, key in enumerate(parts.keys):
        for label, changed in _of_key(key):
            keys = (*parts.keys[:i], *changed, *parts.keys[i + 1 :])
            yield f"{key.name.decode()}: {label}", replace(parts, keys=keys)
    for label, added in _added(parts):
        kept = tuple(key for key in parts.keys if key.name != added.name)
        yield f"added {label}", replace(parts, keys=(*kept, added))
    for i in (0, 1, len(parts.tensors) // 2, len(parts.tensors) - 1):
        for label, changed in _of_tensor(parts, i):
            tensors = (*parts.tensors[:i], *changed, *parts.tensors[i + 1 :])
            name = parts.tensors[i].name.decode()
            yield f"tensor {name}: {label}", replace(parts, tensors=tensors)


def _of_counts(parts: Parts) -> Iterator[tuple[str, Parts]]:
    for magic in (b"GGML", b"FUGG", b"\0\0\0\0"):
        yield f"magic {magic!r}", replace(parts, magic=magic)
    for version in (0, 1, 4, 3 << 24, 2**32 - 1):
        yield f"version {version}", replace(parts, version=version)
    for n in (0, 1, len(parts.keys) - 1, len(parts.keys) + 1, *_HUGE):
        yield f"{n} keys", replace(parts, n_keys=n)
    for n in (0, 1, len(parts.tensors) - 1, len(parts.tensors) + 1, *_HUGE):
        yield f"{n} tensors", replace(parts, n_tensors=n)


def _of_key(key: Key) -> Iterator[tuple[str, tuple[Key, ...]]]:
    yield "removed", ()
    yield "twice", (key, key)
    yield "unknown type", (replace(key, type=99),)
    yield "longer name", (replace(key, name=key.name * 200),)
    yield "renamed", (replace(key, name=key.name + b"\0\n"),)
    if key.type == ARR:
        yield from _of_array(key)
        return
    values: tuple[float | str, ...] = _TEXTS
    if key.type in (F32, F64):
        values = _FLOATS
    elif key.type != STR:
        values = _INTS
    for value in values:
        body = scalar(key.type, value)
        yield f"= {value!r:.30}", (replace(key, body=body),)
    if key.type == STR:
        for n in _HUGE:
            yield f"length {n}", (replace(key, body=struct.pack("<Q", n) + key.body[8:]),)
        yield "not UTF-8", (replace(key, body=text(b"\xff\xfe\x80")),)
    for kind in (U32, I32, F32, U64, BOOL):
        if kind != key.type:
            yield f"as type {kind}", (replace(key, type=kind, body=scalar(kind, 1)),)
    yield "as string", (replace(key, type=STR, body=text(b"8")),)
    yield "as array", (replace(key, type=ARR, body=array(U32, [1, 2])),)


def _of_array(key: Key) -> Iterator[tuple[str, tuple[Key, ...]]]:
    kind, n_items = struct.unpack_from("<IQ", key.body)
    for n in (0, 1, n_items - 1, n_items + 1, *_HUGE):
        body = struct.pack("<IQ", kind, n) + key.body[12:]
        yield f"says {n} items", (replace(key, body=body),)
    item: float | str = "x" if kind == STR else 1
    for n in (0, 1, n_items - 1, n_items + 1):
        yield f"of {n} equal items", (replace(key, body=array(kind, [item] * n)),)
    for other in (U8, I32, F32, STR, BOOL, U64):
        if other != kind:
            items: list[float | str] = ["x" if other == STR else 1] * n_items
            yield f"of type {other}", (replace(key, body=array(other, items)),)
    yield "of arrays", (replace(key, body=struct.pack("<IQ", ARR, 2) + array(U32, [1]) * 2),)
    yield "of unknown type", (replace(key, body=struct.pack("<IQ", 77, 4) + bytes(64)),)
    yield "a number", (replace(key, type=U32, body=scalar(U32, 5)),)


def _added(parts: Parts) -> Iterator[tuple[str, Key]]:
    arch = next(k.body[8:] for k in parts.keys if k.name == b"general.architecture").decode()
    counts = (
        "expert_count", "expert_used_count", "expert_group_count", "attention.key_length",
        "attention.value_length", "attention.sliding_window", "vocab_size", "nextn_predict_layers",
        "rope.scaling.original_context_length", "ssm.conv_kernel", "pooling_type",
    )  # fmt: skip
    for name in counts:
        for value in (0, 1, 2, 3, 64, 1025, 2**31, 2**32 - 1):
            yield f"{name} {value}", Key(f"{arch}.{name}".encode(), U32, scalar(U32, value))
    floats = (
        "rope.freq_base", "rope.scaling.factor", "rope.scaling.attn_factor", "logit_scale",
        "attention.layer_norm_epsilon", "attention.max_alibi_bias",
    )  # fmt: skip
    for name in floats:
        for number in _FLOATS:
            yield f"{name} {number}", Key(f"{arch}.{name}".encode(), F32, scalar(F32, number))
    for scaling in ("yarn", "longrope", "nonsense", ""):
        yield (
            f"scaling {scaling}",
            Key(f"{arch}.rope.scaling.type".encode(), STR, scalar(STR, scaling)),
        )
    for name in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        for items in ([], [0] * 5, [0, 8, 8, 8, 8], [3] * 5, [8] * 4, [8] * 513):
            body = array(U32, list(items))
            yield f"{name} {items!r:.30}", Key(f"{arch}.{name}".encode(), ARR, body)
    for value in (0, 1, 3, 16, 2**31, 2**32 - 1):
        yield f"alignment {value}", Key(b"general.alignment", U32, scalar(U32, value))
        yield f"parts {value}", Key(b"split.count", U16, scalar(U16, value))
    for kind in ("adapter", "mmproj", "vocab", ""):
        yield f"general.type {kind!r}", Key(b"general.type", STR, scalar(STR, kind))
    for model in ("gpt2", "bert", "t5", "rwkv", "none", "no_vocab", "nonsense"):
        yield f"tokenizer {model}", Key(b"tokenizer.ggml.model", STR, scalar(STR, model))


def _of_tensor(parts: Parts, i: int) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    good = parts.tensors[i]
    yield "removed", ()
    yield "twice", (good, good)
    for name in (
        b"",
        b"x" * 63,
        b"x" * 64,
        b"blk.99.attn_q.weight",
        b"blk.4294967296.x",
        b"\xff\0",
    ):
        yield f"named {name[:20]!r}", (replace(good, name=name),)
    for kind in (1, 2, 4, 8, 12, 26, 31, 36, 42, 99, 2**31, 2**32 - 1):
        yield f"type {kind}", (replace(good, type=kind),)
    for dims in ((), (0,), (1,), good.dims[::-1] * 2, (1,) * 5, (2**63, 2), (2**32, 2**32),
                 (2**64 - 1,), (2**33, 2**31, 2, 2), (*good.dims, 0), (*good.dims, 2)):  # fmt: skip
        yield f"shape {dims}", (replace(good, dims=dims),)
    for offset in (0, 1, 31, 32, len(parts.data), len(parts.data) + 32, 2**40, 2**63, 2**64 - 32):
        yield f"offset {offset}", (replace(good, offset=offset),)


def main() -> None:
    """Write the mutants that pass our header check to a folder, and print how many there were."""
    from edgeagent.catalog.gguf.model_facts_reader import inspect
    from edgeagent.errors import GGUFRefused

    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    n_all = n_passed = 0
    for name, data in mutants(take_apart(model)):
        n_all += 1
        path = folder / f"{n_all:04}.gguf"
        path.write_bytes(data)
        try:
            inspect(path)
        except GGUFRefused:
            path.unlink()
            continue
        n_passed += 1
        print(path.name, name.encode("unicode_escape").decode())
    print(f"{n_all} mutants, {n_all - n_passed} refused, {n_passed} passed the header check")


if __name__ == "__main__":
    main()
