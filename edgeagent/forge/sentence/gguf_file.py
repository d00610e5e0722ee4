"""Writes a small sentence encoder as a GGUF file of the architecture `bert`, from the file of the one that it
was cut out of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeagent.forge.domain.encoder_trunk import EncoderTrunk
from edgeagent.forge.domain.trunk_file import Floats, Stored, quantized
from edgeagent.forge.sentence.student import Student

_TOKENS, _KINDS = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_ROLES = ("padding", "unknown", "bos", "seperator", "mask", "eos", "cls")
TABLE, PLACES = "token_embd.weight", "position_embd.weight"


def cut(
    whole: EncoderTrunk,
    pieces: Sequence[int],
    layers: Sequence[int],
    n_ctx: int,
    types: Mapping[str, str],
) -> EncoderTrunk:
    """The encoder with these rows of its vocabulary and these layers. `types`: the GGML type of the word
    table ("table"), of the other matrices ("matrix") and of positions ("places")."""
    import gguf

    fields = dict(whole.fields)
    for key in (_TOKENS, _KINDS):
        every, type_, item = fields[key]
        fields[key] = ([every[i] for i in pieces], type_, item)
    number = {old: new for new, old in enumerate(pieces)}
    for role in _ROLES:
        key = f"tokenizer.ggml.{role}_token_id"
        if key in fields:
            fields[key] = (number[fields[key][0]], *fields[key][1:])
    for key, value in (("block_count", len(layers)), ("context_length", n_ctx)):
        fields[f"bert.{key}"] = (value, *fields[f"bert.{key}"][1:])
    fields["general.file_type"] = (int(getattr(gguf.LlamaFileType, f"MOSTLY_{types['matrix']}")),
                                   *fields["general.file_type"][1:])  # fmt: skip
    tensors: dict[str, Stored] = {}
    for name in whole.tensors:
        if name.startswith("blk."):
            _, old, rest = name.split(".", 2)
            for new, layer in enumerate(layers):
                if layer == int(old):
                    tensors[f"blk.{new}.{rest}"] = _stored(whole.dense(name), types["matrix"], rest)
        else:
            dense = whole.dense(name)
            if name == TABLE:
                tensors[name] = _stored(dense[np.array(pieces)], types["table"], name)
            elif name == PLACES:
                tensors[name] = _stored(dense[:n_ctx], types["places"], name)
            else:
                tensors[name] = _stored(dense, "F32", name)
    return replace(whole, fields=fields, tensors=tensors)


def _stored(weight: Floats, type_: str, name: str) -> Stored:
    import gguf

    is_matrix = weight.ndim == 2 and name.endswith(".weight")
    return quantized(weight, getattr(gguf.GGMLQuantizationType, type_ if is_matrix else "F32"))


def weights_of(student: Student, whole: EncoderTrunk) -> dict[str, Floats]:
    """The weights of a student by their names in a file."""
    found: dict[str, Floats] = {}
    for name, value in student.state_dict().items():
        if name == "token_types":
            types = whole.dense("token_types.weight").copy()
            types[0] = value.numpy()
            found["token_types.weight"] = types
        elif not name.startswith("hint."):
            found[name] = value.float().numpy()
    return found
