"""Sizes in bytes, as people write them: "600MB", "1.5GiB", "700000000"."""

from __future__ import annotations

import re

import click

UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "k": 2**10, "m": 2**20, "g": 2**30,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
MAX_BYTES = 1 << 50
LEAST_WITHOUT_UNIT = 1e6  # a smaller number without a unit is a mistake
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


class Size(click.ParamType[int]):
    """An option's value in bytes: MB and GB are powers of ten, MiB, GiB, M and G of two."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a size: write a number and a unit, as 600MB or 1.5GiB")
        number, unit = found[1], found[2]
        if not unit and float(number) < LEAST_WITHOUT_UNIT:
            self.fail(f"{value!r} would be bytes: write a unit, as {number}MB")
        if unit.lower() not in UNITS:
            self.fail(f"{value!r} has the unit {unit!r}, known are kB, MB, GB, KiB, MiB and GiB")
        size = float(number) * UNITS[unit.lower()]
        if not 1 <= size <= MAX_BYTES:
            self.fail(f"{value!r} is {size:.0f} bytes, it must be 1 to {MAX_BYTES} (1 PiB)")
        return int(size)


def megabytes(n_bytes: int) -> str:
    """A size for people, such as "1,234.5 MB"."""
    return f"{n_bytes / 1e6:,.1f} MB"
