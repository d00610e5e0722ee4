"""The linear classifier in the file of a sentence encoder that was taught intents.

Its tensors are the ones that llama.cpp has for classifiers, `cls.output`; the labels of its rows are in the
metadata. llama.cpp computes the vector of a text, this module the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.catalog.gguf.header import ArrayValue, Header, read_header
from edgeagent.errors import ModelUnusable
from edgeagent.types.intents import IntentQuestion

WEIGHT, BIAS, LABELS = "cls.output.weight", "cls.output.bias", "bert.classifier.output_labels"
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, eq=False)
class IntentClassifier:
    """`weight`: float32 [n_labels, n_embd], `bias`: float32 [n_labels], for vectors of length 1."""

    model_id: str
    numbers: dict[str, int]
    weight: Floats
    bias: Floats

    @classmethod
    def read(cls, path: Path, model_id: str) -> IntentClassifier | None:
        """None for a file without one. Raises: GGUFRefused; ModelUnusable for one that is not whole."""
        header = read_header(path)
        labels = header.metadata.get(LABELS)
        if not isinstance(labels, ArrayValue) or labels.values is None:
            return None
        weight, bias = _array(header, WEIGHT), _array(header, BIAS)
        if weight is None or bias is None:
            return None
        n = len(labels.values)
        names = {str(name): i for i, name in enumerate(labels.values)}
        if weight.ndim != 2 or len(weight) != n or bias.shape != (n,) or len(names) != n:
            raise ModelUnusable(
                f"The classifier of {model_id} has {n} labels for rows of shape {weight.shape} and "
                f"{bias.shape}: make the model again."
            )
        return cls(model_id, names, weight, bias)

    def scores(self, vector: Floats, question: IntentQuestion) -> np.ndarray[Any, Any]:
        """The logits of the candidates for the vector of a text, out-of-scope last.

        Raises: ModelUnusable for a candidate that it does not know.
        """
        names = [*(c.name for c in question.candidates), question.out_of_scope]
        missing = [name for name in names if name not in self.numbers]
        if missing:
            raise ModelUnusable(
                f"{self.model_id} has no intent {missing[0]!r}: its file and its list of tools do not belong "
                "together; install both anew."
            )
        ids = [self.numbers[name] for name in names]
        return np.asarray(self.weight[ids] @ vector + self.bias[ids])


def _array(header: Header, name: str) -> Floats | None:
    """A tensor of numbers in float32; None where there is none."""
    for tensor in header.tensors:
        if tensor.name == name and tensor.type.name == "F32":
            with header.path.open("rb") as file:
                file.seek(header.data_offset + tensor.offset)
                found = np.frombuffer(file.read(tensor.n_bytes), "<f4")
            return found.reshape(tensor.shape[::-1])
    return None
