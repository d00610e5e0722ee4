"""Reads the examples of a domain from a file, or from all files of a directory.

| ending | format |
|---|---|
| `.csv`, `.tsv` | columns `text`, `intent`, `answer` |
| `.jsonl`, `.ndjson` | an object per line |
| `.yml`, `.yaml` | training data of Rasa, or sentence files of Home Assistant |
| `.txt` | a text per line; the name of the file is the intent |
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.readers.csv_reader import read_csv
from edgeagent.forge.domain.readers.home_assistant_reader import (
    Templates,
    draw,
    is_home_assistant,
)
from edgeagent.forge.domain.readers.jsonl_reader import read_jsonl
from edgeagent.forge.domain.readers.rasa_reader import is_rasa, read_rasa
from edgeagent.forge.domain.readers.text_lines import MAX_BYTES, read_lines_file
from edgeagent.forge.domain.readers.yaml_document import read_yaml

_PLAIN = {
    ".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".txt": read_lines_file,
}  # fmt: skip
_YAML = (".yml", ".yaml")
_KEYS = re.compile(
    rb"(?m)^(?:\xef\xbb\xbf)?[\"'{ ]*(?:nlu|responses|intents|lists|expansion_rules)[\"']?\s*:"
)
MAX_FILES = 1000


def read_domain(path: Path, seed: int) -> Domain:
    """Raises: ForgeFailed."""
    files = _files(path)
    domain, templates = Domain(), Templates()
    for file in files:
        if file.suffix.lower() in _PLAIN:
            domain.merge(_PLAIN[file.suffix.lower()](file))
            continue
        if path.is_dir() and not _has_examples(file):
            continue
        root = read_yaml(file)
        if is_rasa(root):
            domain.merge(read_rasa(root))
        elif is_home_assistant(root):
            templates.take(root)
        elif path.is_file():
            raise root.error(
                "the file has neither `nlu` (Rasa) nor `intents` (Home Assistant): name another file."
            )
    if templates.sentences:
        domain.merge(draw(templates, seed))
    if not domain.examples:
        raise ForgeFailed(f"{path} has no examples: add texts with their intents.")
    return domain


def _has_examples(file: Path) -> bool:
    """Whether a YAML file of a directory may be one of ours: others there may be anything."""
    try:
        with file.open("rb") as opened:
            return _KEYS.search(opened.read(MAX_BYTES)) is not None
    except OSError:
        return True  # the reader says what is wrong


def _files(path: Path) -> list[Path]:
    known = ", ".join([*_PLAIN, *_YAML])
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*")
            if file.suffix.lower() in (*_PLAIN, *_YAML) and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )  # fmt: skip
        if not found:
            raise ForgeFailed(f"{path} has no file that ends with {known}: add one.")
        if len(found) > MAX_FILES:
            raise ForgeFailed(
                f"{path} has {len(found)} files, and {MAX_FILES} is the most: name a directory with fewer."
            )
        return found
    if not path.exists():
        raise ForgeFailed(f"{path} does not exist: name a file or a directory with examples.")
    if path.suffix.lower() not in (*_PLAIN, *_YAML):
        raise ForgeFailed(f"{path} ends with none of {known}: rename it by its format.")
    return [path]
