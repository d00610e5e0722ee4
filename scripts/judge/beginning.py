"""Begins with a judge that was written before, to learn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgeagent.forge.domain.trunk_file import dequantized, opened
from scripts.judge.training import Judge
from scripts.judge.writing import tensor_name


def begin_from(judge: Judge, file: Path) -> None:
    """Take the weights of a GGUF file that `writing.write` made. What only learning needs stays as it is.

    Raises: ValueError, and nothing is taken, if the file is none or has other parts.
    """
    try:
        held = {tensor.name: tensor for tensor in opened(file).tensors}
    except (OSError, ValueError, IndexError) as exc:
        raise ValueError(f"{file} cannot be read as a GGUF file: {exc}") from exc
    state = judge.state_dict()
    wanted = {name: ours for name in state if (ours := tensor_name(name)) is not None}
    others = held.keys() ^ set(wanted.values())
    if others:
        raise ValueError(
            f"{file} is no judge: {min(others)} is one of {len(others)} parts that differ"
        )
    for name, ours in wanted.items():
        tensor = held[ours]
        values = np.array(dequantized(tensor.data, tensor.tensor_type))
        if values.size != state[name].numel():
            raise ValueError(f"{file} is no judge of this size: {ours} has {values.size} numbers")
        state[name] = torch.from_numpy(values).reshape(state[name].shape)
    judge.load_state_dict(state)
