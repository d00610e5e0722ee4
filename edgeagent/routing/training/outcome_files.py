"""Files that tell for texts how well each model answered them.

CSV with a header, or a JSON object per line: a column `prompt` (or `text`, `question`, `input`) and a column
for each model with True, False or a number from 0 to 1. A column `domain` is as `metadata.domain` of a
request. RouteLLM publishes its benchmarks in this form.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.errors import InvalidParameter

Floats = NDArray[np.float64]
DOMAIN_NAME = "domain"
PROMPT_NAMES = ("prompt", "text", "question", "input")
MAX_CELL = 16 << 20
_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Outcomes:
    """Texts, the file of each, and the quality of each model on each, 0 to 1: float64 [n]. `domains` of the
    texts where the files have a column of them."""

    texts: list[str]
    groups: NDArray[np.int64]
    group_names: list[str]
    quality: Mapping[str, Floats]
    domains: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Pair:
    """Outcomes of a small and a large model."""

    texts: list[str]
    groups: NDArray[np.int64]
    group_names: list[str]
    small: Floats
    large: Floats
    small_name: str
    large_name: str
    middle: Floats | None = None
    domains: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.texts)


def read_outcomes(paths: Sequence[Path]) -> Outcomes:
    """All rows of some files; models that not every file has are left out.

    Raises: InvalidParameter for a file that is not of this form.
    """
    texts: list[str] = []
    groups: list[int] = []
    columns: list[dict[str, list[float]]] = []
    domains: list[str | None] = []
    for number, path in enumerate(paths):
        found, inside, quality = _read(path)
        texts += found
        domains += inside
        groups += [number] * len(found)
        columns.append(quality)
    names = [name for name in columns[0] if all(name in one for one in columns)] if columns else []
    if len(names) < 2:
        raise InvalidParameter(
            f"{paths[0] if paths else 'No file'}: the files have {len(names)} models in common, and two are "
            "needed: give files with columns of the same two models."
        )
    joined = {name: np.array([value for one in columns for value in one[name]]) for name in names}
    has_domains = any(domain is not None for domain in domains)
    return Outcomes(
        texts,
        np.array(groups),
        [path.stem for path in paths],
        joined,
        domains if has_domains else None,
    )


def pair_of(found: Outcomes, small: str | None, large: str | None, middle: str | None) -> Pair:
    """The small and the large model: those named, else the two with the lowest and the highest mean.

    Raises: InvalidParameter for a model without a column, and for a large one that is not better.
    """
    for name in (small, large, middle):
        if name is not None and name not in found.quality:
            raise InvalidParameter(
                f"No column for the model {name!r}: the files have {', '.join(found.quality)}."
            )
    by_mean = sorted(found.quality, key=lambda name: float(found.quality[name].mean()))
    small = small or next(name for name in by_mean if name not in (large, middle))
    large = large or next(name for name in reversed(by_mean) if name not in (small, middle))
    if found.quality[large].mean() <= found.quality[small].mean():
        raise InvalidParameter(
            f"The larger model {large!r} is not better than {small!r} on these files, so that there is "
            "nothing to route: exchange them with --small and --large, or give other data."
        )
    return Pair(
        found.texts, found.groups, found.group_names, found.quality[small], found.quality[large],
        small, large, found.quality[middle] if middle is not None else None, found.domains,
    )  # fmt: skip


def _read(path: Path) -> tuple[list[str], list[str | None], dict[str, list[float]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            is_json = path.suffix in (".jsonl", ".ndjson", ".json")
            rows = _json_rows(file, path) if is_json else _csv_rows(file)
            return _columns(list(rows), path)
    except OSError as exc:
        raise InvalidParameter(f"{path}: {exc.strerror}. Give a readable file.") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidParameter(f"{path} is no CSV in UTF-8: {exc}. Correct the file.") from exc


def _csv_rows(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(MAX_CELL)
    return iter(csv.DictReader(file))


def _json_rows(file: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise InvalidParameter(f"{path}:{number} is no JSON: {exc}. Correct the line.") from exc
        if not isinstance(row, dict):
            raise InvalidParameter(f"{path}:{number} is no JSON object: write one on each line.")
        yield row


def _columns(
    rows: list[dict[str, Any]], path: Path
) -> tuple[list[str], list[str | None], dict[str, list[float]]]:
    if not rows:
        raise InvalidParameter(
            f"{path} has no rows: give a file with a header and at least one row."
        )
    prompt = next((name for name in PROMPT_NAMES if name in rows[0]), None)
    if prompt is None:
        raise InvalidParameter(
            f"{path} has no column {', '.join(PROMPT_NAMES)}: rename that of the texts."
        )
    texts = [str(row.get(prompt) or "") for row in rows]
    names = [name for name in rows[0] if name not in (None, prompt, DOMAIN_NAME)]
    quality: dict[str, list[float]] = {}
    for name in names:
        values = [_quality(row.get(name)) for row in rows]
        if all(value is not None for value in values):
            quality[name] = [value for value in values if value is not None]
    domains = [str(row[DOMAIN_NAME]) if row.get(DOMAIN_NAME) else None for row in rows]
    return texts, domains, quality


def _quality(cell: Any) -> float | None:
    """A value from 0 to 1; None for anything else, such as the text of an answer."""
    if isinstance(cell, bool | int | float):
        value = float(cell)
    elif isinstance(cell, str) and cell.strip().lower() in _WORDS:
        value = _WORDS[cell.strip().lower()]
    else:
        try:
            value = float(str(cell))
        except ValueError:
            return None
    return value if 0.0 <= value <= 1.0 else None
