"""Exports a trained decoder as a GGUF file for llama.cpp.

Matrices are written in f16 and norms in f32; `quantize` then makes the smaller file that is shipped. The
chat template renders only the last text of the user, which is all that the model was trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from edgeagent.catalog.assistant_intents import described
from edgeagent.errors import ForgeFailed
from edgeagent.forge.datasets import DOMAINS, OUT_OF_SCOPE, Corpus
from edgeagent.forge.decoder import Block, Decoder
from edgeagent.forge.tokenizer import ASSISTANT, CONTROL, END, USER, AssistantTokenizer

CHAT_TEMPLATE = (
    "{%- set ns = namespace(text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}{%- set ns.text = message.content -%}{%- endif -%}"
    "{%- endfor -%}"
    f"{USER}{{{{ ns.text }}}}{ASSISTANT}"
)
PARTS = {
    "attn_norm": "attn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.output": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


@dataclass(frozen=True)
class ModelInfo:
    """The descriptive metadata of a file."""

    name: str
    description: str
    licence: str = "apache-2.0"
    version: str = "1"


def write_gguf(
    decoder: Decoder, vocabulary: AssistantTokenizer, about: ModelInfo, path: Path
) -> None:
    """Write the decoder in f16. Raises: ForgeFailed if the file cannot be written."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(partial, "llama")
        _add_shape(writer, decoder)
        _add_about(writer, about)
        _add_vocabulary(writer, vocabulary)
        _add_tensors(writer, decoder)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    except OSError as exc:
        raise ForgeFailed(f"{path} cannot be written ({exc.strerror}): check the folder.") from exc


def _add_shape(writer: gguf.GGUFWriter, decoder: Decoder) -> None:
    shape = decoder.shape
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_about(writer: gguf.GGUFWriter, about: ModelInfo) -> None:
    writer.add_name(about.name)
    writer.add_description(about.description)
    writer.add_license(about.licence)
    writer.add_version(about.version)
    writer.add_languages(["en"])


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: AssistantTokenizer) -> None:
    tokens, merges = vocabulary.pieces()
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    for number, token in enumerate(vocabulary.special):
        is_control = token in CONTROL
        kinds[number] = gguf.TokenType.CONTROL if is_control else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    end = vocabulary.id_of(END)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, decoder: Decoder) -> None:
    writer.add_tensor("token_embd.weight", _f16(decoder.token_embd.weight))
    for number, block in enumerate(decoder.blocks):
        assert isinstance(block, Block)
        for ours, theirs in PARTS.items():
            weight = block.get_submodule(ours).weight
            value = _f32(weight) if weight.dim() == 1 else _f16(weight)
            writer.add_tensor(f"blk.{number}.{theirs}.weight", value)
    writer.add_tensor("output_norm.weight", _f32(decoder.output_norm.weight))


def _f16(weight: object) -> np.ndarray:
    return weight.detach().numpy().astype(np.float16)  # type: ignore[attr-defined, no-any-return]


def _f32(weight: object) -> np.ndarray:
    return weight.detach().numpy().astype(np.float32)  # type: ignore[attr-defined, no-any-return]


def write_tools(corpus: Corpus, path: Path) -> None:
    """Write the file of intents for the daemon (`models/edge-assistant.json`): the names of each domain,
    and the slots of those that have any."""
    body = {
        "out_of_scope": OUT_OF_SCOPE,
        "domains": {domain: list(corpus.names[domain]) for domain in DOMAINS},
        "tools": {
            intent: {"description": described(intent), "slots": list(slots)}
            for intent, slots in corpus.slot_names.items()
        },
    }
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
