"""`installed.toml`: the record of one installed model, in the folder beside its file.

It is written last, when everything that it describes is on disk; a folder without a readable record with
`state = "good"` holds no model. Unknown keys are ignored, so that an older edgeagent can read records of a
newer one.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from edgeagent.catalog.model_ids import is_id
from edgeagent.catalog.toml_text import to_toml
from edgeagent.types.engine_flags import CacheFlags
from edgeagent.types.template import TemplateFacts

RECORD = "installed.toml"
# Shipped models have a model.toml instead: they come with the release and were not installed.
RECORD_NAMES = (RECORD, "model.toml")
_FILE = re.compile(r"(?:[0-9a-f]{8}/)?[^/\0.][^/\0]{0,199}")
_MAX_RECORD_BYTES = 256 * 1024
# Tables: usually empty, or determined when the model is loaded.
_TABLES = ("extra", "thresholds", "template", "engine")


class InstalledModel(Struct, frozen=True, kw_only=True):
    """One model on disk. Sizes in bytes, `installed_at` in UTC (ISO 8601).

    `template_sha256` pins the chat template in the file: the same weights with another template are
    another model. `template_file` is a template installed in its place, one of the files in `extra`;
    `template` describes the features of the template in use, None if nobody tried it. `thresholds` are
    those of an assistant model, by domain (`catalog.assistant_intents`). A model of one's own that is an
    assistant has its intents in the file `tools`, one of those in `extra`, and names its `larger` model;
    others are in the catalog, which a running daemon does not read again. `unmanaged` marks a bare file
    that a user dropped in: nothing about it is known or verified. A LoRA adapter
    names the model that it changes in `base`. A model with `is_part` is a part of others: it is found by its
    id, listed nowhere, and no client may name it. `engine`: how it is loaded, from the catalog's variant,
    unless the settings or `edgeagent tune` say otherwise.
    """

    id: str
    file: str
    quant: str = ""
    size_bytes: int = 0
    sha256: str | None = None
    source: str = ""
    installed_at: str = ""
    template_sha256: str | None = None
    template_file: str | None = None
    state: str = "good"
    extra: dict[str, str] = {}
    tools: str | None = None
    larger: str | None = None
    thresholds: dict[str, float] = {}
    template: TemplateFacts | None = None
    base: str | None = None
    is_part: bool = False
    engine: CacheFlags | None = None
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
        """The model file (for a speech model, its main file; the others are beside it)."""
        return self.folder / self.file

    def digests(self) -> dict[str, str]:
        """File name -> sha256 of every file with a recorded digest."""
        own = {self.file: self.sha256} if self.sha256 else {}
        return own | self.extra

    @property
    def beside(self) -> dict[str, str]:
        """Digests of the model's other files, by name, without its chat template."""
        return {name: sha for name, sha in self.extra.items() if name != self.template_file}

    @property
    def template_file_sha256(self) -> str | None:
        """The recorded digest of the installed chat template; None if there is none."""
        return self.extra.get(self.template_file) if self.template_file is not None else None

    def to_toml(self) -> str:
        """The record as text."""
        by = "installed" if self.source != "shipped" else "made"
        tree: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name not in ("folder", "unmanaged", *_TABLES)
        }
        if not self.is_part:
            del tree["is_part"]
        tree |= {name: table for name in _TABLES[:2] if (table := getattr(self, name))}
        if self.template is not None:
            tree["template"] = msgspec.to_builtins(self.template)
            del tree["template"]["type"]
        if self.engine is not None:
            tree["engine"] = msgspec.to_builtins(self.engine)
        return f"# Written by edgeagent when this model was {by}.\n{to_toml(tree)}"


def read_record(folder: Path) -> InstalledModel | None:
    """The model in `folder`, or None if there is no complete, good model with a valid id."""
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
    """The record in `text`, of a model in `folder`; nothing is checked on disk.

    Raises: ValueError (which includes TOML's and msgspec's errors), RecursionError.
    """
    tree = {k: v for k, v in tomllib.loads(text).items() if k not in ("folder", "unmanaged")}
    tree["template"] = _template(tree.get("template"))
    return msgspec.convert(tree | {"folder": folder}, InstalledModel, strict=True)


def _template(table: object) -> TemplateFacts | None:
    """The recorded features of a chat template; None if another version wrote something unreadable, since
    they can be determined again and the model must not be lost for that."""
    try:
        return msgspec.convert(table, TemplateFacts, strict=True)
    except msgspec.ValidationError:
        return None


def _is_whole(model: InstalledModel) -> bool:
    files = [model.file, *model.extra]
    plain = all(_FILE.fullmatch(name) for name in files)
    if not (is_id(model.id) and model.state == "good" and plain):
        return False
    named = (model.template_file, model.tools)
    if any(name is not None and name not in model.extra for name in named):
        return False
    # A link may lead out of the folder; a different size means that the file was truncated or replaced.
    present = all(
        (model.folder / name).is_file() and not (model.folder / name).is_symlink() for name in files
    )
    return present and model.path.stat().st_size == model.size_bytes
