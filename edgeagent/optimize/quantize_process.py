"""Child process that quantizes one file: a `QuantizeJob` on standard input, a `QuantizeResult` as output.

It writes files, so it is not confined; the header of its source was read in a confined process before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeagent.catalog.gguf.header import Header, read_header
from edgeagent.engine.llama.bindings import build
from edgeagent.engine.llama.quantization import Quantization, planned_types, quantize
from edgeagent.errors import EdgeAgentError
from edgeagent.optimize.imatrix_file import read_imatrix
from edgeagent.optimize.quantize import (
    QuantizeJob,
    QuantizeResult,
    check_space,
    layers_of,
    predicted_bytes,
    renamed_layers,
)
from edgeagent.optimize.recipe import Recipe

Array = np.ndarray[Any, Any]


def run(job: QuantizeJob) -> QuantizeResult:
    source = Path(job.source)
    header = read_header(source)
    for recipe in job.recipes:
        names = renamed_layers(header, recipe.dropped_layers)
        recipe.check_names(names.values(), layers_of(header))
    columns = {name: np.frombuffer(data, np.float32) for name, data in job.columns.items()}
    if job.importance:
        columns = read_imatrix(Path(job.importance)).columns()
    hows = [
        Quantization(
            r.file_type, r.tensors, weighted(columns, header, r), r.dropped_layers, job.n_threads
        )
        for r in job.recipes
    ]
    types = [planned_types(source, how) for how in hows]
    if job.target is not None:
        target = Path(job.target)
        size = predicted_bytes(header, types[0], job.recipes[0].dropped_layers)
        check_space(target.parent, size)
        quantize(source, target, hows[0])
    return QuantizeResult(types=types, llama_cpp=build())


def weighted(columns: Mapping[str, Array], header: Header, recipe: Recipe) -> dict[str, Array]:
    """The importance of columns by the names of the source, without tensors that are rounded plainly."""
    names = renamed_layers(header, recipe.dropped_layers)
    plain = frozenset(recipe.plain)
    return {name: values for name, values in columns.items() if names.get(name) not in plain}


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=QuantizeJob)
    try:
        found = run(job)
    except EdgeAgentError as exc:
        found = QuantizeResult(error=exc.message)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
