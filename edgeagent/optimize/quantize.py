"""Makes a quantized file by a recipe, and says beforehand how large it will be, to the byte.

llama.cpp quantizes in a child process: it ends its process at some files.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.ggml_types import GGML_TYPES
from edgeagent.catalog.gguf.header import Header, TensorInfo
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.errors import EngineDied, InvalidParameter, ModelUnusable
from edgeagent.optimize.client import died_while_measuring
from edgeagent.optimize.partial_file import partial_file
from edgeagent.optimize.recipe import Recipe
from edgeagent.worker import spawn
from edgeagent.worker.client import describe_exit

CHILD = "edgeagent.optimize.quantize_process"
_TYPES = {kind.name: kind for kind in GGML_TYPES.values()}
_ALIGNMENT = 32
FIXED_BYTES = 24  # magic, version, and the numbers of tensors and keys
_ADDED_KEYS = ("general.quantization_version", "general.file_type")
# A source with fewer bits than this has nothing to give any more.
LEAST_SOURCE_BITS = 4.0


class QuantizeJob(msgspec.Struct, frozen=True):
    """What the child is told: make `target` by the first recipe, or only plan all of them.

    `importance`: the path of a matrix. `columns`: one in memory, float32 [n_columns] by tensor.
    """

    source: str
    target: str | None
    recipes: list[Recipe]
    importance: str | None
    n_threads: int = 1
    columns: dict[str, bytes] = {}


class QuantizeResult(msgspec.Struct, frozen=True):
    """What the child says. `types`: of each tensor of each planned result."""

    error: str | None = None
    types: list[dict[str, str]] = []
    llama_cpp: str = ""


def planned(
    source: Path, recipes: Sequence[Recipe], importance: Path | None = None
) -> list[dict[str, str]]:
    """The type of each tensor of each result, without making it. Raises: ModelUnusable."""
    return _child(source, None, list(recipes), importance).types


def quantize(
    source: Path,
    target: Path,
    recipe: Recipe,
    *,
    importance: Path | None = None,
    columns: Mapping[str, bytes] | None = None,
    n_threads: int = 0,
) -> Recipe:
    """Write `target` by a recipe, in one step. Returns the recipe with the digests of what it was made of.
    `columns`: an importance matrix in memory, in place of a file: float32 [n_columns] by tensor.

    Raises: InvalidParameter for another source or matrix than the recipe's, a source of too few bits, a full
    disk, a target that is the source or no file, or another process that writes the same file;
    GGUFRefused, ModelUnusable.
    """
    check_source(source)
    recipe.check()
    digest = sha256_of(source)
    if recipe.source_sha256 not in (None, digest):
        raise InvalidParameter(
            f"{source} is not the file of the recipe: its digest is {digest[:16]}..., expected is "
            f"{str(recipe.source_sha256)[:16]}.... Take {recipe.source_name or 'that file'}."
        )
    matrix = sha256_of(importance) if importance is not None else None
    if recipe.importance_sha256 not in (None, matrix):
        raise InvalidParameter(
            "The recipe needs the importance matrix with the digest "
            f"{str(recipe.importance_sha256)[:16]}...: give it by --imatrix."
        )
    with partial_file(target, source) as partial:
        made = _child(source, partial, [recipe], importance, n_threads, columns or {})
    return replace(
        recipe, source_name=source.name, source_sha256=digest, importance_sha256=matrix,
        llama_cpp=made.llama_cpp,
    )  # fmt: skip


def check_space(folder: Path, n_bytes: int) -> None:
    """Raises: InvalidParameter where a file of that size does not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise InvalidParameter(
            f"The file will have {n_bytes} bytes, but {folder} has {free} free: free space, or choose "
            "another directory."
        )


def check_source(source: Path) -> None:
    """Raises: GGUFRefused, InvalidParameter for what cannot be quantized well."""
    facts = inspect_apart(source)
    bits = 8 * facts.weights_bytes / max(1, facts.n_params)
    if bits < LEAST_SOURCE_BITS:
        raise InvalidParameter(
            f"{source} has {bits:.1f} bits a weight already, at least {LEAST_SOURCE_BITS:g} are needed: take "
            "the F16 file of the model."
        )


def predicted_bytes(header: Header, types: Mapping[str, str], dropped: tuple[int, ...] = ()) -> int:
    """The exact size of the file with tensors of these types. Raises: InvalidParameter for a split file."""
    if isinstance(n := header.metadata.get("split.count"), int) and n > 1:
        raise InvalidParameter(
            f"{header.path} is one of {n} parts of a model: join them first (llama-gguf-split --merge)."
        )
    keys = header.end - FIXED_BYTES - sum(map(entry_bytes, header.tensors))
    keys += sum(16 + len(key) for key in _ADDED_KEYS if key not in header.metadata)
    names = renamed_layers(header, dropped)
    entries, data = 0, 0
    for tensor in header.tensors:
        name = names.get(tensor.name)
        if name is not None:
            entries += entry_bytes(tensor) - len(tensor.name) + len(name)
            data += tensor_bytes(tensor.n_elements, types[name])
    return padded(FIXED_BYTES + keys + entries) + data


def tensor_bytes(n_elements: int, kind: str) -> int:
    """The bytes of a tensor in a file, with what fills it up to the next one."""
    return padded(n_elements // _TYPES[kind].block * _TYPES[kind].n_bytes)


def renamed_layers(header: Header, dropped: tuple[int, ...]) -> dict[str, str]:
    """The names of the tensors that stay when whole layers are left out, by their names in the source."""
    found = {}
    for tensor in header.tensors:
        head, _, rest = tensor.name.partition(".")
        layer, _, tail = rest.partition(".")
        if head != "blk" or not layer.isdecimal():
            found[tensor.name] = tensor.name
        elif int(layer) not in dropped:
            number = int(layer) - sum(1 for one in dropped if one < int(layer))
            found[tensor.name] = f"blk.{number}.{tail}"
    return found


def layers_of(header: Header) -> set[int]:
    """The numbers of the layers of a file."""
    parts = (tensor.name.split(".", 2) for tensor in header.tensors)
    return {int(p[1]) for p in parts if p[0] == "blk" and len(p) > 1 and p[1].isdecimal()}


def entry_bytes(tensor: TensorInfo) -> int:
    """The bytes of what a header says about a tensor."""
    return 8 + len(tensor.name.encode()) + 4 + 8 * len(tensor.shape) + 4 + 8


def padded(n: int) -> int:
    """The next multiple of the alignment."""
    return -(-n // _ALIGNMENT) * _ALIGNMENT


def _child(
    source: Path, target: Path | None, recipes: list[Recipe], importance: Path | None, n_threads: int = 1,
    columns: Mapping[str, bytes] | None = None,
) -> QuantizeResult:  # fmt: skip
    job = QuantizeJob(
        str(source.absolute()), str(target.absolute()) if target else None, recipes,
        str(importance.absolute()) if importance else None, n_threads, dict(columns or {}),
    )  # fmt: skip
    done = spawn.run(CHILD, input=msgspec.json.encode(job), stdin=None, capture_output=True)
    if done.returncode == -signal.SIGKILL:
        raise EngineDied(died_while_measuring(source.name, describe_exit(done.returncode)))
    try:
        found = msgspec.json.decode(done.stdout, type=QuantizeResult)
    except msgspec.MsgspecError as exc:
        raise ModelUnusable(
            f"llama.cpp ended at {source.name} (status {done.returncode}): the file is damaged, or its "
            "architecture is unknown."
        ) from exc
    if found.error is not None:
        raise ModelUnusable(found.error)
    return found
