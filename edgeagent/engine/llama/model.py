"""llama.cpp behind names of our own.

Everything here is called by the engine thread, except `tokenize`, `text_of`, `vocabulary` (any thread:
the vocabulary is read-only) and `abort` (any thread: it writes one byte).
"""

from __future__ import annotations

import ctypes
import re
from array import array
from typing import Any

import numpy as np

from edgeagent.engine.llama import bindings
from edgeagent.engine.llama.adapters import Adapters
from edgeagent.engine.llama.barrier_waits import BarrierWaits
from edgeagent.engine.llama.batch import Batch, run_batch
from edgeagent.engine.llama.bindings import lib
from edgeagent.errors import EngineFailed, ModelUnusable
from edgeagent.types.engine_config import DRAFT_OUTPUTS, EngineConfig

KV_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}
# With keys and values of one float type, llama.cpp divides the attention of a step with one token
# among its threads by cells, so that rounding, and with quantized weights the text, depends on where
# the cells lie. With values in bf16 it does not; then a text is the same alone, in a batch, and from
# a cached prefix. Decode at 100 tokens of depth: 0.88-0.95 of f16, prefill 0.75 (EPYC Zen 5, 2 cores).
BF16 = 30
BITS_PER_VALUE = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
FLASH = {"auto": -1, "off": 0, "on": 1}


class Llama:
    """One loaded model and its context. `close()` may be called twice."""

    def __init__(self, config: EngineConfig) -> None:
        bindings.start()
        self._kv_type = config.kv_type
        self._n_threads = config.n_threads
        self._waits = BarrierWaits()
        self.wait_briefly = self._waits.shorten
        self._model = self._load_model(config)
        self._flag = ctypes.create_string_buffer(b"0", 2)
        self.context: Any = None
        self._more_contexts: list[Any] = []
        try:
            self._vocab = lib.llama_model_get_vocab(self._model)
            self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
            self.n_ctx_train = int(lib.llama_model_n_ctx_train(self._model))
            recurrent = lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(
                self._model
            )
            self.can_trim = not recurrent
            self.adapters = Adapters(self._model, config.adapters)
            self.context = self._create_context(config)
        except BaseException:
            self.close()
            raise
        self.memory = lib.llama_get_memory(self.context)
        self.n_ctx = int(lib.llama_n_ctx(self.context))
        self._pieces: dict[int, bytes] = {}
        self._special()
        self._batch = Batch(int(lib.llama_n_batch(self.context)))

    def _load_model(self, config: EngineConfig) -> Any:
        params = lib.llama_model_default_params()
        # A name that a ctypes structure lacks is set without an error and without effect, so it is
        # load_mode that counts; what is repacked lies in memory twice while the file is mapped.
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if config.use_mmap else lib.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = 0
        params.use_extra_bufts = config.repack
        bindings.last_errors.clear()
        model = lib.llama_model_load_from_file(config.path.encode(), params)
        if not model:
            raise ModelUnusable(_refused(config))
        return model

    def _context_params(self, config: EngineConfig) -> Any:
        """The llama_context_params of `config`. A subclass may change them."""
        params = lib.llama_context_default_params()
        params.n_ctx = config.n_ctx
        self.spare_id = config.n_seq + (config.n_prefixes if self.can_trim else 0)
        params.n_seq_max = self.spare_id + self.can_trim
        params.n_batch = params.n_ubatch = config.n_batch
        # Logits are asked for once per sequence; drafted tokens, and a prompt that is scored piece by piece,
        # take what is left.
        n_outputs = params.n_seq_max
        if config.is_drafting and self.can_trim:
            n_outputs = max(n_outputs, config.n_seq + DRAFT_OUTPUTS)
        params.n_outputs_max = self.max_outputs = min(config.n_batch, n_outputs)
        params.n_threads = params.n_threads_batch = config.n_threads
        params.type_k = params.type_v = KV_TYPES[config.kv_type]
        if config.reproducible and config.kv_type == "f16":
            params.type_v = BF16
        params.flash_attn_type = FLASH[config.flash_attention]
        params.kv_unified = True
        # A full-size cache for sliding-window layers, so that a prefix can be shared at any length.
        params.swa_full = True
        params.no_perf = True
        self._make_abortable(params)
        return params

    def new_context(
        self, config: EngineConfig, setting: str, flag: Any = None, **changes: int
    ) -> Any:
        """One more context of the model, until `close`, whose size `engine.<setting>` gives. Its steps end
        when `flag`, two characters of C, reads 1; without one, when those of the first context do. `changes`
        are parameters that differ. Raises: ModelUnusable."""
        params = self._context_params(config)
        self._make_abortable(params, flag)
        for name, value in changes.items():
            setattr(params, name, value)
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise ModelUnusable(
                f"No further context of {params.n_ctx} tokens could be made for {config.model_id}: lower "
                f"engine.{setting}, or set it to 0."
            )
        self._more_contexts.append(context)
        return context

    def _create_context(self, config: EngineConfig) -> Any:
        context = lib.llama_init_from_model(self._model, self._context_params(config))
        if not context:
            raise ModelUnusable(
                f"No context of {config.n_ctx} tokens ({config.kv_type}) could be made for "
                f"{config.model_id}: lower engine.n_ctx or n_seq, or choose flash_attention auto with a "
                "quantized KV type."
            )
        return context

    def _make_abortable(self, params: Any, flag: Any = None) -> None:
        # libc's atoi on a one-byte string: C code that reads the flag without taking the GIL.
        libc = ctypes.CDLL(None)
        params.abort_callback = ctypes.cast(libc.atoi, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(
            self._flag if flag is None else flag, ctypes.c_void_p
        )

    def _special(self) -> None:
        self.bos = _token(lib.llama_vocab_bos(self._vocab))
        self.eos = _token(lib.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self.end_tokens = frozenset(
            token for token in range(self.n_vocab) if lib.llama_vocab_is_eog(self._vocab, token)
        )

    # --- facts

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self._model, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    @property
    def n_params(self) -> int:
        return int(lib.llama_model_n_params(self._model))

    @property
    def weights_bytes(self) -> int:
        return int(lib.llama_model_size(self._model))

    def chat_template(self) -> str | None:
        text = lib.llama_model_chat_template(self._model, None)
        return text.decode("utf-8", "replace") if text else None

    def meta(self, key: str) -> str | None:
        """A metadata value of the GGUF as text; `{arch}` stands for the architecture's name."""
        buffer = ctypes.create_string_buffer(256)
        if "{arch}" in key:
            key = key.replace("{arch}", self.meta("general.architecture") or "")
        n = lib.llama_model_meta_val_str(self._model, key.encode(), buffer, 256)
        return buffer.value.decode("utf-8", "replace") if n >= 0 else None

    @property
    def n_heads(self) -> int:
        return max(1, int(lib.llama_model_n_head(self._model)))

    def kv_bytes(self) -> int:
        """Size of keys and values of all cells, in the context's KV type."""
        head_dim = int(lib.llama_model_n_embd(self._model)) // self.n_heads
        key = int(self.meta("{arch}.attention.key_length") or head_dim)
        value = int(self.meta("{arch}.attention.value_length") or head_dim)
        rows = int(lib.llama_model_n_layer(self._model)) * int(
            lib.llama_model_n_head_kv(self._model)
        )
        return int(rows * (key + value) * self.n_ctx * BITS_PER_VALUE[self._kv_type] / 8)

    # --- vocabulary

    def tokenize(self, text: str, *, add_special: bool) -> array[int]:
        """Token ids, int32 [n]. Special tokens written in the text are recognised. `add_special` is as in
        `with_bos`; an EOS that a vocabulary would append is left away, since the text is to be continued."""
        tokens = self.tokens_of(text, add_special=False, parse_special=True)
        return self.with_bos(tokens) if add_special else tokens

    def with_bos(self, tokens: array[int]) -> array[int]:
        """The tokens behind the model's own BOS where its vocabulary asks for one, and not twice."""
        if self.adds_bos and self.bos is not None and (not tokens or tokens[0] != self.bos):
            tokens.insert(0, self.bos)
        return tokens

    def tokens_of(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]:
        """Token ids, int32 [n], with all that the model puts around a text, or without."""
        data = text.encode("utf-8", "surrogatepass")
        capacity = len(data) + 8
        buffer = (ctypes.c_int32 * capacity)()
        n = int(
            lib.llama_tokenize(
                self._vocab, data, len(data), buffer, capacity, add_special, parse_special
            )
        )
        if n < 0:
            raise EngineFailed(
                f"A text of {len(data)} bytes gave more than {capacity} tokens; shorten it."
            )
        return array("i", bytes(memoryview(buffer).cast("B")[: 4 * n]))

    def detokenize(self, tokens: list[int]) -> str:
        """The text of token ids, special ones by their names. Any thread."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        capacity = 16 * len(tokens) + 64
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            n = int(
                lib.llama_detokenize(self._vocab, ids, len(tokens), buffer, capacity, False, True)
            )
            if n >= 0:
                return buffer.raw[:n].decode("utf-8", "replace")
            capacity = -n

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._spell(token, special=False)
        return piece

    def _spell(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(512)  # one for each call: more than one thread asks
        n = lib.llama_token_to_piece(self._vocab, token, buffer, 512, 0, special)
        return buffer.raw[: max(0, n)]

    def attributes(self, token: int) -> int:
        """What kind of token it is: bits of llama.h's enum llama_token_attr. Any thread."""
        return int(lib.llama_vocab_get_attr(self._vocab, token))

    def text_of(self, token: int) -> str:
        """A token as its own name, special ones included: for templates."""
        return self._spell(token, special=True).decode("utf-8", "replace")

    def vocabulary(self) -> list[bytes]:
        """Every token as the bytes it adds to a text; those that add none, and those that end it, as
        0xFF and their name. 2.7 MB for 49,152 tokens: for a caller who keeps it only for a moment."""
        return [
            piece
            if (piece := self._spell(token, special=False)) and token not in self.end_tokens
            else b"\xff" + self._spell(token, special=True)
            for token in range(self.n_vocab)
        ]

    @property
    def fim_marks(self) -> tuple[int, int, int]:
        """The tokens before a prefix, a suffix and the middle that joins them; below 0 where the
        vocabulary has none."""
        vocabulary = self.vocab_address
        return (
            int(lib.llama_vocab_fim_pre(vocabulary)),
            int(lib.llama_vocab_fim_suf(vocabulary)),
            int(lib.llama_vocab_fim_mid(vocabulary)),
        )

    @property
    def vocab_address(self) -> int:
        """Where llama.cpp's vocabulary lies. It is read-only, for any thread."""
        return int(ctypes.cast(self._vocab, ctypes.c_void_p).value or 0)

    @property
    def tokenize_address(self) -> int:
        """Where llama.cpp's tokenizer lies, for native code that calls it."""
        return int(ctypes.cast(lib.llama_tokenize, ctypes.c_void_p).value or 0)

    # --- KV cache

    def copy(self, src: int, dst: int, n: int) -> None:
        lib.llama_memory_seq_cp(self.memory, src, dst, 0, n)

    def trim(self, seq_id: int, n: int) -> None:
        if not lib.llama_memory_seq_rm(self.memory, seq_id, n, -1) and n > 0:
            raise EngineFailed(f"Sequence {seq_id} could not be cut back to {n} tokens.")

    @property
    def has_sliding_window(self) -> bool:
        return int(lib.llama_model_n_swa(self._model)) > 0

    # --- decoding

    def abort(self) -> None:
        """Interrupt a running `decode` within about 20 ms. Safe from any thread."""
        self._flag[0] = b"1"

    def arm(self) -> None:
        """Forget an earlier `abort`. Called before the batch is made public as running."""
        self._flag[0] = b"0"

    @property
    def batch(self) -> Batch:
        return self._batch

    def decode(self) -> np.ndarray[Any, Any]:
        """Run the batch. Returns logits: float32 [n_outputs, n_vocab], valid until the next call.

        Raises: Aborted; EngineFailed when llama.cpp reports an error.
        """
        return run_batch(self.context, self._batch, self.n_vocab)

    def warm_up(self) -> None:
        """Compute one token and drop it, so that the weights are in memory before the first request.

        On one thread: the daemon uses other cores while it starts, and two threads that wait for each other
        take 0.57 s beside two busy processes, one 0.02 (SmolLM2-135M, 2 cores of a Zen 4).
        """
        n_threads = self._n_threads
        self.set_threads(1)
        self._batch.clear()
        self._batch.add(0, array("i", [self.bos or 0]), 0, n_outputs=1)
        self.decode()
        self.clear()
        self.set_threads(n_threads)

    def clear(self) -> None:
        """Drop all sequences."""
        lib.llama_memory_clear(self.memory, False)

    def set_threads(self, n_threads: int) -> None:
        """Compute with this many threads from the next step on."""
        if n_threads == self._n_threads:
            return
        self._n_threads = n_threads
        lib.llama_set_n_threads(self.context, n_threads, n_threads)

    def close(self) -> None:
        self._waits.close()
        for context in [*self._more_contexts, self.context]:
            if context:
                lib.llama_free(context)
        self._more_contexts, self.context = [], None
        if self._model:
            lib.llama_model_free(self._model)
            self._model = None


def _token(token: int) -> int | None:
    return None if token < 0 else int(token)


def _refused(config: EngineConfig) -> str:
    """Why llama.cpp did not load a model, by its own messages, with the way out."""
    said = next((line for line in bindings.last_errors if "error loading model" in line), "")
    reason = said.partition("error loading model")[2].partition(": ")[2].strip().rstrip(".")[:300]
    found = re.search(r"unknown (?:model )?architecture: '([^']*)'", " ".join(bindings.last_errors))
    if found is not None:
        return (
            f"llama.cpp {bindings.build()} does not know models of the architecture {found[1][:80]!r}: take "
            "a model of another architecture, or a newer edgeagent."
        )
    why = f" ({reason})" if reason else ""
    return (
        f"llama.cpp cannot load {config.model_id}{why}: get the file anew, or take another "
        "quantization."
    )
