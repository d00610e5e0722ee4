"""The general trunk of a domain model: a small sentence encoder, to which a linear classifier on its vectors
is added. It knows broad English, and fills no slots.

Weights are copied as they are stored. Needs the package gguf, and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.engine.intents.intent_classifier import BIAS, LABELS, WEIGHT
from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.trunk import Floats

_MISSING = "Training needs gguf: run pip install 'edgeagent[intents]'."
_OWN = ("general.name", "general.description", "general.architecture", LABELS)


@dataclass(frozen=True)
class EncoderTrunk:
    """A file of a sentence encoder in memory. `tensors`: name to the stored array and its GGML type."""

    path: Path
    fields: Mapping[str, tuple[Any, Any, Any]]
    tensors: Mapping[str, tuple[np.ndarray[Any, Any], Any]]

    @classmethod
    def read(cls, path: Path) -> EncoderTrunk:
        """Raises: ForgeFailed for a file that is no BERT encoder, or without the package gguf."""
        try:
            import gguf
        except ImportError as exc:
            raise ForgeFailed(_MISSING) from exc
        try:
            reader = gguf.GGUFReader(path)
            fields = {n: f for n, f in reader.fields.items() if not n.startswith("GGUF.")}
            if fields["general.architecture"].contents() != "bert":
                raise ValueError("its architecture is not bert")
            tensors = {
                t.name: (np.array(t.data), t.tensor_type)
                for t in reader.tensors if t.name not in (WEIGHT, BIAS)
            }  # fmt: skip
        except (OSError, ValueError, KeyError) as exc:
            raise ForgeFailed(
                f"{path} cannot be the trunk of a domain model ({exc}): name a sentence encoder."
            ) from exc
        wanted = {
            name: (field.contents(), field.types[0], field.types[-1])
            for name, field in fields.items()
            if name not in _OWN
        }
        return cls(path, wanted, tensors)

    quant, family = "Q4_0", "bert"

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def n_embd(self) -> int:
        return int(self.fields["bert.embedding_length"][0])

    def dense(self, name: str) -> Floats:
        """A tensor as float32."""
        from gguf.quants import dequantize

        data, kind = self.tensors[name]
        return np.asarray(dequantize(data, kind), np.float32)

    @property
    def n_params(self) -> int:
        from gguf.quants import quant_shape_from_byte_shape

        shapes = (
            d.shape if d.dtype != np.uint8 else quant_shape_from_byte_shape(d.shape, kind)
            for d, kind in self.tensors.values()
        )
        return sum(int(np.prod(shape)) for shape in shapes)

    def write(
        self,
        target: Path,
        labels: Sequence[str],
        rows: Floats,
        *,
        name: str,
        description: str,
        weights: Mapping[str, Floats] | None = None,
    ) -> None:
        """Write a model with a classifier: `rows` are float32 [n_labels, n_embd + 1], the bias last. Without
        labels it is the encoder alone. `weights` replace tensors.

        Raises: ForgeFailed if the file cannot be written.
        """
        import gguf
        from gguf.quants import quantize

        assert rows.shape == (len(labels), self.n_embd + 1)
        tensors = dict(self.tensors)
        for tensor, weight in (weights or {}).items():
            kind = tensors[tensor][1]
            tensors[tensor] = (quantize(np.ascontiguousarray(weight, np.float32), kind), kind)
        plain = gguf.GGMLQuantizationType.F32
        if len(labels):
            tensors[WEIGHT] = (np.ascontiguousarray(rows[:, :-1], np.float32), plain)
            tensors[BIAS] = (np.ascontiguousarray(rows[:, -1], np.float32), plain)
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            writer = gguf.GGUFWriter(partial, "bert")
            writer.add_name(name)
            writer.add_description(description)
            for key, (value, type_, item) in self.fields.items():
                is_array = type_ == gguf.GGUFValueType.ARRAY
                writer.add_key_value(key, value, type_, item if is_array else None)
            if len(labels):
                writer.add_array(LABELS, list(labels))
            for tensor, (data, kind) in tensors.items():
                writer.add_tensor(tensor, data, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            partial.replace(target)
        except OSError as exc:
            raise ForgeFailed(
                f"{target} cannot be written ({exc.strerror or exc}): check the disk."
            ) from exc
        finally:
            partial.unlink(missing_ok=True)
