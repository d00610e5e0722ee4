"""Random LoRA adapters for the tests: small changes of the attention of a model."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write_adapter(
    path: Path, base: Path, seed: int, *, rank: int = 4, alpha: float = 8.0, spoil: str = ""
) -> None:
    """An adapter of `rank` for the queries and outputs of all layers. `spoil` "values": with a NaN in it."""
    reader = gguf.GGUFReader(base)
    architecture = str(reader.fields["general.architecture"].contents())
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for tensor in reader.tensors:
        if not tensor.name.endswith(("attn_q.weight", "attn_output.weight")):
            continue
        n_in, n_out = (int(n) for n in tensor.shape)
        down = draw.normal(0, n_in**-0.5, (rank, n_in)).astype(np.float32)
        up = draw.normal(0, 0.5, (n_out, rank)).astype(np.float32)
        if spoil == "values":
            up[0, 0] = np.nan
        writer.add_tensor(f"{tensor.name}.lora_a", down)
        writer.add_tensor(f"{tensor.name}.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
