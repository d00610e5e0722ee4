"""Writes a judge as a GGUF file that ranks, with matrices of 8 bits.

Its last layer is scaled so that what it says is a probability: of questions whose best passage is given 0.5,
half are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from torch.nn import functional

from edgeagent.catalog.install.convert import write_bert_header
from scripts.judge.training import Judge

_PARTS = {
    "query": "attn_q", "key": "attn_k", "value": "attn_v", "output": "attn_output",
    "attn_norm": "attn_output_norm", "up": "ffn_up", "down": "ffn_down", "norm": "layer_output_norm",
}  # fmt: skip
_OUTER = {
    "words.weight": "token_embd.weight", "positions.weight": "position_embd.weight",
    "kinds.weight": "token_types.weight", "norm.weight": "token_embd_norm.weight",
    "norm.bias": "token_embd_norm.bias",
}  # fmt: skip
_HEAD = {"dense": "cls", "out": "cls.output"}
# Looked up or added row by row, or too small to matter.
_KEPT = ("position_embd.weight", "token_types.weight", "cls.output.weight")


def calibration(logits: Sequence[float], answered: Sequence[bool]) -> tuple[float, float]:
    """What to multiply logits by, and to add, so that they are those of probabilities."""
    values = torch.tensor(logits, dtype=torch.float64)
    wanted = torch.tensor(answered, dtype=torch.float64)
    own = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([own], max_iter=200)

    def loss() -> float:
        optimizer.zero_grad()
        told = functional.binary_cross_entropy_with_logits(values * own[0] + own[1], wanted)
        told.backward()
        return float(told.detach())

    optimizer.step(loss)
    scale, shift = own.tolist()
    return scale, shift


def write(judge: Judge, folder: Path, target: Path, scale: float = 1.0, shift: float = 0.0) -> None:
    """`folder`: all-MiniLM-L6-v2 as it is published, for its facts and vocabulary."""
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name("edge-judge")
    writer.add_license("Apache-2.0")
    write_bert_header(writer, folder, gguf.PoolingType.RANK, gguf.LlamaFileType.MOSTLY_Q8_0)
    for name, tensor in judge.state_dict().items():
        ours = tensor_name(name)
        if ours is None:
            continue
        values = tensor.float().numpy()
        if name == "out.weight":
            values = values * scale
        if name == "out.bias":
            values = values * scale + shift
        is_small = values.ndim == 1 or ours in _KEPT
        kind = gguf.GGMLQuantizationType["F32" if is_small else "Q8_0"]
        values = np.ascontiguousarray(values, np.float32)
        writer.add_tensor(ours, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_name(name: str) -> str | None:
    """The engine's name of a parameter of `Judge`; None: it was for learning only."""
    first, rest = name.split(".", 1)
    if first == "places":
        return None
    if first in _HEAD:
        return f"{_HEAD[first]}.{rest}"
    if rest in _OUTER:
        return _OUTER[rest]
    _, number, part, kind = rest.split(".")
    return f"blk.{number}.{_PARTS[part]}.{kind}"
