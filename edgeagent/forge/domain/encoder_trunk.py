"""The general trunk of a domain model: a small sentence encoder, to which a linear classifier on its vectors
is added. It knows broad English, and fills no slots.

Weights are copied as they are stored. Needs the package gguf, and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeagent.engine.intents.intent_classifier import BIAS, LABELS, WEIGHT
from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.trunk_file import Floats, TrunkFile, opened, replaced, write_gguf

_OWN = ("general.name", "general.description", "general.architecture", LABELS)


@dataclass(frozen=True, kw_only=True)
class EncoderTrunk(TrunkFile):
    """The file of a sentence encoder."""

    @classmethod
    def read(cls, path: Path) -> EncoderTrunk:
        """Raises: ForgeFailed for a file that is no BERT encoder, or without the package gguf."""
        try:
            reader = opened(path)
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
        return cls(path=path, fields=wanted, tensors=tensors)

    quant, family = "Q4_0", "bert"

    @property
    def n_embd(self) -> int:
        return int(self.fields["bert.embedding_length"][0])

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

        assert rows.shape == (len(labels), self.n_embd + 1)
        tensors = replaced(self.tensors, weights)
        plain = gguf.GGMLQuantizationType.F32
        if len(labels):
            tensors[WEIGHT] = (np.ascontiguousarray(rows[:, :-1], np.float32), plain)
            tensors[BIAS] = (np.ascontiguousarray(rows[:, -1], np.float32), plain)

        def add(writer: gguf.GGUFWriter) -> None:
            writer.add_name(name)
            writer.add_description(description)
            if len(labels):
                writer.add_array(LABELS, list(labels))

        write_gguf(target, "bert", self.fields, tensors, add)
