"""Converts a published model that is not GGUF: at present BERT sentence encoders.

all-MiniLM-L6-v2 is published as safetensors; the engine reads only GGUF. The tensors keep their values
(matrices as F16, biases and norms as F32) and get the names that llama.cpp's `bert` architecture expects.
The GGUF vocabulary marks beginnings of words, while WordPiece marks continuations, so `##ing` becomes
`ing` and `run` becomes `▁run`.

Needs the `convert` extra (the `gguf` package), which is imported only here and only when used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.install.safetensors import read_tensors
from edgeagent.errors import InstallFailed

_SPECIAL = {"[PAD]": "padding", "[UNK]": "unknown", "[CLS]": "bos", "[SEP]": "seperator",
            "[MASK]": "mask"}  # fmt: skip
# llama.h: enum llama_token_type and llama_pooling_type.
_NORMAL, _CONTROL = 1, 3
_MEAN = 1
_F16 = 1  # llama.h: enum llama_ftype

_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Looked up or added row by row, so the engine needs them unquantized.
_KEEP_F32 = ("position_embd.weight", "token_types.weight")


def convert(converter: str, folder: Path, target: Path) -> None:
    """Write the GGUF file `target` from the files in `folder` with the named converter.

    Raises: InstallFailed if the extra is missing or the files do not suit the converter; OSError.
    """
    if converter != "minilm":
        raise InstallFailed(f"There is no converter {converter!r}, only 'minilm': use that one")
    try:
        import gguf
    except ImportError as error:
        raise InstallFailed(
            "This model must be converted, but the 'gguf' package is missing:"
            " pip install 'edgeagent[convert]'"
        ) from error
    tensors = read_tensors(folder / "model.safetensors")
    writer = gguf.GGUFWriter(target, "bert")
    write_bert_header(writer, folder, _MEAN, _F16)
    for name, array in sorted(tensors.items()):
        new_name = gguf_name(name)
        if new_name is not None:
            small = array.ndim == 1 or new_name in _KEEP_F32
            writer.add_tensor(new_name, array.astype(np.float32 if small else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_bert_header(writer: Any, folder: Path, pooling: int, file_type: int) -> None:
    """The facts and the vocabulary of a published BERT. Raises: InstallFailed."""
    config = _config(folder)
    tokens = _tokens(folder / "vocab.txt")
    writer.add_file_type(file_type)
    _write_facts(writer, config, pooling)
    _write_vocabulary(writer, tokens)


def gguf_name(name: str) -> str | None:
    """The engine's name for a tensor of BertModel, or None if the engine does not need it.

    Raises: InstallFailed for an unexpected tensor.
    """
    stem, _, kind = name.removeprefix("bert.").rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{kind}"
    if stem.startswith("encoder.layer."):
        index, _, rest = stem.removeprefix("encoder.layer.").partition(".")
        if rest in _LAYER_NAMES and index.isdigit():
            return f"blk.{index}.{_LAYER_NAMES[rest]}.{kind}"
    if stem == "pooler.dense" or name.endswith("embeddings.position_ids"):
        # Trained for another task; sentence encoders use the mean of all tokens instead.
        return None
    raise InstallFailed(f"Tensor {name!r} does not belong to a BERT encoder: not converted")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config["model_type"] != "bert" or config.get("hidden_act") != "gelu":
            raise ValueError("only BERT with gelu is converted")
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers",
                    "num_attention_heads", "max_position_embeddings"):  # fmt: skip
            config[key] = int(config[key])
        config["layer_norm_eps"] = float(config["layer_norm_eps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstallFailed(
            f"config.json does not describe a BERT encoder ({error}): install the model again"
        ) from error
    return dict(config)


def _write_facts(writer: Any, config: dict[str, Any], pooling: int) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_uint32("bert.pooling_type", pooling)


def _tokens(path: Path) -> list[str]:
    try:
        tokens = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InstallFailed(f"vocab.txt cannot be read ({error}): install again") from error
    missing = [token for token in _SPECIAL if token not in tokens]
    if missing:
        raise InstallFailed(f"vocab.txt lacks {', '.join(missing)}: it is not a BERT vocabulary")
    return tokens


def _write_vocabulary(writer: Any, tokens: list[str]) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_marked(token) for token in tokens])
    writer.add_token_types([_CONTROL if token in _SPECIAL else _NORMAL for token in tokens])
    writer.add_uint32("tokenizer.ggml.token_type_count", 2)
    for token, role in _SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", tokens.index(token))


def _marked(token: str) -> str:
    if token in _SPECIAL:
        return token
    return token[2:] if token.startswith("##") and len(token) > 2 else f"\u2581{token}"
