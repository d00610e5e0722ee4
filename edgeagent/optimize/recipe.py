"""A recipe: everything that makes a quantized file from its source, to the byte. Kept as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from edgeagent.catalog.gguf.ggml_types import FILE_TYPES, GGML_TYPES
from edgeagent.catalog.toml_text import to_toml
from edgeagent.durable import open_regular, replace_text
from edgeagent.errors import InvalidParameter

# Types of activations while they are multiplied, and of tables of numbers: no matrix of a file has them.
_NO_WEIGHTS = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}
_TENSOR_TYPES = {kind.name for kind in GGML_TYPES.values()} - _NO_WEIGHTS
_MOST_BYTES = 16 << 20
# They are shown in terminals.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class SourceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file that is quantized. Without a digest any file will do."""

    name: Annotated[str, msgspec.Meta(max_length=255, pattern=_PRINTABLE)] = ""
    sha256: _Digest | None = None


class QuantizationTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mixture of types, layers that are left out, the digest of the importance matrix, if any, and the
    tensors that are rounded without it."""

    file_type: str
    dropped_layers: tuple[int, ...] = ()
    importance_sha256: _Digest | None = None
    without_importance: tuple[str, ...] = ()


class MadeByTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The llama.cpp that made the file; another one may give other bytes."""

    llama_cpp: str = ""


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    quantization: QuantizationTable
    source: SourceTable = SourceTable()
    made_by: MadeByTable = MadeByTable()
    tensors: dict[str, str] = {}


@dataclass(frozen=True)
class Recipe:
    """`tensors`: types of single tensors, by their names in the result, before those of `file_type`. `plain`:
    the tensors that are rounded without the importance matrix, by the same names."""

    file_type: str
    tensors: dict[str, str] = field(default_factory=dict)
    dropped_layers: tuple[int, ...] = ()
    source_name: str = ""
    source_sha256: str | None = None
    importance_sha256: str | None = None
    llama_cpp: str = ""
    plain: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises: InvalidParameter for a type that does not exist."""
        if self.file_type not in FILE_TYPES.values():
            raise InvalidParameter(
                f"There is no quantization {self.file_type!r}: use one of "
                f"{', '.join(FILE_TYPES.values())}."
            )
        for name, kind in self.tensors.items():
            if kind not in _TENSOR_TYPES:
                raise InvalidParameter(
                    f"Tensor {name!r} has the type {kind!r}: use one of {', '.join(sorted(_TENSOR_TYPES))}."
                )
        if list(self.dropped_layers) != sorted(set(self.dropped_layers)):
            raise InvalidParameter(
                f"The dropped layers {list(self.dropped_layers)} are not in ascending order: sort them."
            )

    def check_names(self, tensors: Collection[str], layers: Collection[int]) -> None:
        """`tensors` of the result, `layers` of the source. Raises: InvalidParameter for others."""
        unknown = sorted({*self.tensors, *self.plain} - set(tensors))
        if unknown:
            raise InvalidParameter(
                f"The file has no tensor {unknown[0]!r} ({len(unknown)} unknown in all): take names that "
                "`edgeagent quantize --dry-run` shows."
            )
        if self.dropped_layers and set(self.dropped_layers) >= set(layers):
            raise InvalidParameter(
                f"All {len(layers)} layers of the model are left out: keep one at least."
            )
        missing = sorted(set(self.dropped_layers) - set(layers))
        if missing:
            raise InvalidParameter(
                f"The model has {len(layers)} layers, and no layer {missing[0]} to leave out."
            )


def write_recipe(recipe: Recipe, path: Path) -> None:
    tables = _Tables(
        QuantizationTable(
            recipe.file_type, recipe.dropped_layers, recipe.importance_sha256, recipe.plain
        ),
        SourceTable(recipe.source_name, recipe.source_sha256),
        MadeByTable(recipe.llama_cpp),
        recipe.tensors,
    )
    replace_text(path, to_toml(msgspec.to_builtins(tables)))


def read_recipe(path: Path) -> Recipe:
    """Raises: InvalidParameter."""
    try:
        with open_regular(path, _MOST_BYTES) as file:
            tables = msgspec.convert(tomllib.loads(file.read().decode()), _Tables)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise InvalidParameter(
            f"The recipe {path} cannot be read ({exc}): see `edgeagent quantize --help`."
        ) from exc
    found = Recipe(
        tables.quantization.file_type, tables.tensors, tables.quantization.dropped_layers,
        tables.source.name, tables.source.sha256, tables.quantization.importance_sha256,
        tables.made_by.llama_cpp, tables.quantization.without_importance,
    )  # fmt: skip
    found.check()
    return found
