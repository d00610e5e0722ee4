"""Typed access to a header's metadata: each value has the requested type, or is refused.

`HeaderMetadata` knows the architecture prefix, so `n_layers = fields.count("block_count")` reads
`llama.block_count` of a llama model. A missing optional key is None; a value of the wrong type is never
returned.
"""

from __future__ import annotations

import math
import re

from edgeagent.catalog.gguf.byte_cursor import WAY_OUT
from edgeagent.catalog.gguf.header import ArrayValue, Header
from edgeagent.errors import GGUFRefused

# llama.cpp's value for "no such token".
NO_TOKEN = 0xFFFFFFFF
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class HeaderMetadata:
    """The metadata of one header, read by name and type. Raises only GGUFRefused."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.metadata = header.metadata
        name = self.text("general.architecture")
        if name is None:
            raise self.refused("has no general.architecture", "name a model file")
        if not _ARCHITECTURE.fullmatch(name):
            raise self.refused(f"names the architecture {name[:80]!r}")
        self.architecture = name

    def refused(self, what: str, way_out: str = WAY_OUT) -> GGUFRefused:
        return GGUFRefused(f"{self.header.path.name!r} {what}: {way_out}")

    def key(self, name: str) -> str:
        """The full key: `.block_count` is prefixed by the architecture, `general.name` is not."""
        return f"{self.architecture}{name}" if name.startswith(".") else name

    def text(self, name: str) -> str | None:
        key = self.key(name)
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.refused(f"has {_shown(value)} in {key!r}, a string is expected")
        return value

    def flag(self, name: str) -> bool | None:
        key = self.key(name)
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.refused(f"has {_shown(value)} in {key!r}, true or false is expected")
        return value

    def count(self, name: str, low: int, high: int) -> int | None:
        """A whole number of low..high, or None if the key is missing."""
        key = self.key(name)
        value = self.metadata.get(key)
        return None if value is None else self._in_range(key, value, low, high)

    def required(self, name: str, low: int, high: int) -> int:
        value = self.count(name, low, high)
        if value is None:
            raise self.refused(f"has no {self.key(name)!r}, which every model states")
        return value

    def per_layer(self, name: str, n_layers: int, low: int, high: int) -> tuple[int, ...] | None:
        """One whole number for each layer; a file may give one for all of them."""
        key = self.key(name)
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, ArrayValue):
            return (self._in_range(key, value, low, high),) * n_layers
        if value.n_items != n_layers or value.values is None:
            raise self.refused(f"has {value.n_items} values in {key!r} for {n_layers} layers")
        return tuple(self._in_range(key, item, low, high) for item in value.values)

    def number(self, name: str) -> float | None:
        """A finite floating-point number, or None if the key is missing."""
        key = self.key(name)
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, float) or not math.isfinite(value):
            raise self.refused(f"has {_shown(value)} in {key!r}, a finite number is expected")
        return value

    def array(self, name: str, item_types: tuple[str, ...]) -> ArrayValue | None:
        key = self.key(name)
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, ArrayValue) or value.item_type not in item_types:
            wanted = " or ".join(item_types)
            raise self.refused(f"has {_shown(value)} in {key!r}, an array of {wanted} is expected")
        return value

    def _in_range(self, key: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refused(f"has {_shown(value)} in {key!r}, a whole number is expected")
        if not low <= value <= high:
            raise self.refused(f"has {value} in {key!r}, it must be {low} to {high}")
        return value


def _shown(value: object) -> str:
    if isinstance(value, ArrayValue):
        return f"an array of {value.n_items} {value.item_type}"
    return repr(value)[:80]
