"""What a BERT that ranks makes of its first token: a layer with tanh, where the file has one, then a score.

CTranslate2 computes the layers below it; this is small enough for numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.engine.embedding.bert_weights import tensor_floats

Array = np.ndarray[Any, Any]
NAMES = ("cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias")


class RankHead:
    """The head of one file. Raises: ModelUnusable, GGUFRefused."""

    def __init__(self, path: Path) -> None:
        dense, self._dense_bias, out, out_bias = tensor_floats(path, NAMES)
        self._dense = None if dense is None else np.atleast_2d(dense)
        self._out = None if out is None else np.atleast_2d(out)
        self._out_bias = out_bias

    def scores(self, states: Array) -> Array:
        """Logits, float32 [n_texts, n_scores], of first tokens [n_texts, width]."""
        if self._dense is not None:
            states = states @ self._dense.T
            if self._dense_bias is not None:
                states = states + self._dense_bias
            states = np.tanh(states)
        if self._out is not None:
            states = states @ self._out.T
            if self._out_bias is not None:
                states = states + self._out_bias
        return np.asarray(states, np.float32)
