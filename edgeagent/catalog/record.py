"""`installed.toml`: what is known of one installed model, in the folder beside its file.

It is written last, after everything it describes is on disk; a folder without a readable record
that says `state = "good"` holds no model. Unknown keys are ignored here, so that an older
edgeagent can read what a newer one wrote.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeagent.catalog.ids import is_id

RECORD = "installed.toml"
# A shipped model calls it model.toml: it is part of the release, nobody installed it.
RECORD_NAMES = (RECORD, "model.toml")
_FILE = re.compile(r"(?:[0-9a-f]{8}/)?[^/\0.][^/\0]{0,199}")
_MAX_RECORD_BYTES = 256 * 1024
_TABLES = ("extra", "thresholds")


class InstalledModel(Struct, frozen=True, kw_only=True):
    """One model on disk. Sizes in bytes, `installed_at` in UTC (ISO 8601).

    `template_sha256` pins the chat template: another one in the same weights is another model.
    `thresholds` are those of an assistant model, by domain (`catalog.assistant`).
    `unmanaged` marks a bare file that a user dropped in: nothing is known of it, nothing verified.
    """

    id: str
    file: str
    quant: str = ""
    size_bytes: int = 0
    sha256: str | None = None
    source: str = ""
    installed_at: str = ""
    template_sha256: str | None = None
    state: str = "good"
    extra: dict[str, str] = {}
    thresholds: dict[str, float] = {}
    unmanaged: bool = False
    folder: Path = Path()

    @classmethod
    def bare(cls, model_id: str, path: Path) -> InstalledModel:
        return cls(
            id=model_id,
            file=path.name,
            size_bytes=path.stat().st_size,
            source="dropped in",
            unmanaged=True,
            folder=path.parent,
        )

    @property
    def path(self) -> Path:
        """The model file (of a speech model: its main file; the others lie beside it)."""
        return self.folder / self.file

    def digests(self) -> dict[str, str]:
        """File name -> sha256 of every file that has one recorded."""
        own = {self.file: self.sha256} if self.sha256 else {}
        return own | self.extra

    def to_toml(self) -> str:
        """The record as text. JSON's strings are TOML's, so no writer library is needed."""
        by = "installed" if self.source != "shipped" else "made"
        lines = [f"# Written by edgeagent when this model was {by}."]
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name not in ("folder", "unmanaged", *_TABLES) and value is not None:
                lines.append(f"{name} = {json.dumps(value)}")
        for name in _TABLES:
            if table := getattr(self, name):
                pairs = (f"{json.dumps(k)} = {json.dumps(v)}" for k, v in table.items())
                lines += ["", f"[{name}]", *pairs]
        return "\n".join(lines) + "\n"


def read_record(folder: Path) -> InstalledModel | None:
    """The model in `folder`, or None if there is none, whole and good, of a proper id."""
    for name in RECORD_NAMES:
        path = folder / name
        try:
            if path.stat().st_size > _MAX_RECORD_BYTES:
                continue
            model = parse_record(path.read_text(encoding="utf-8"), folder)
        except (OSError, ValueError, RecursionError, msgspec.ValidationError):
            continue
        if _is_whole(model):
            return model
    return None


def parse_record(text: str, folder: Path) -> InstalledModel:
    """The record that is written in `text`, of a model in `folder`, nothing of it checked on disk.

    Raises: ValueError (which includes TOML's and msgspec's errors), RecursionError.
    """
    tree = {k: v for k, v in tomllib.loads(text).items() if k not in ("folder", "unmanaged")}
    return msgspec.convert(tree | {"folder": folder}, InstalledModel, strict=True)


def _is_whole(model: InstalledModel) -> bool:
    files = [model.file, *model.extra]
    plain = all(_FILE.fullmatch(name) for name in files)
    if not (is_id(model.id) and model.state == "good" and plain):
        return False
    # A link may lead out of the folder; a size that differs means the file was cut or replaced.
    present = all(
        (model.folder / name).is_file() and not (model.folder / name).is_symlink() for name in files
    )
    return present and model.path.stat().st_size == model.size_bytes
