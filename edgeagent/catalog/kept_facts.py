"""The facts of model files, kept from one start of the daemon to the next.

    <state_dir>/facts.json      path -> facts, and the identity of the file that they were read from

Reading them takes a process of its own (`gguf/inspection`): 0.1 s of a core for each model before the first
one can be loaded. A file that was changed, and another version of edgeagent, are read anew. Whoever loads a
model reads its header again.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.durable import open_regular, replace_text
from edgeagent.types.engine_config import FileIdentity
from edgeagent.types.version import VERSION

_MAX_FILES = 500
_MOST_BYTES = 16 << 20


class FileFacts(Struct, frozen=True, array_like=True):
    """The facts of a file with this identity."""

    identity: FileIdentity
    facts: ModelFacts


class _Contents(Struct, frozen=True):
    version: str
    files: dict[str, FileFacts]


class KeptFacts:
    """The file of one state directory. Any thread; of two processes that write, the last one is kept."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "facts.json"
        self._known: dict[str, FileFacts] | None = None
        self._lock = threading.Lock()

    def of(self, path: Path) -> ModelFacts:
        """The facts of the file at `path`. Blocks up to 20 s where they are not known.

        Raises: GGUFRefused for a file that is not a sound model.
        """
        path = path.absolute()
        identity = _identity(path)
        with self._lock:
            kept = self._all().get(str(path))
        if kept is not None and kept.identity == identity:
            return kept.facts
        facts = inspect_apart(path)
        if identity is not None and identity == _identity(path):
            self._keep(path, FileFacts(identity, facts))
        return facts

    def _keep(self, path: Path, found: FileFacts) -> None:
        with self._lock:
            files = self._all()
            files.pop(str(path), None)
            files[str(path)] = found
            for oldest in list(files)[:-_MAX_FILES]:
                del files[oldest]
            if not self._path.parent.is_dir():
                return
            with suppress(OSError):  # a failure only costs time later
                content = msgspec.json.encode(_Contents(VERSION, files))
                replace_text(self._path, msgspec.json.format(content, indent=1).decode())

    def _all(self) -> dict[str, FileFacts]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, FileFacts]:
        try:
            with open_regular(self._path, _MOST_BYTES) as file:
                contents = msgspec.json.decode(file.read(), type=_Contents)
        except (OSError, msgspec.MsgspecError):
            return {}
        return contents.files if contents.version == VERSION else {}


def _identity(path: Path) -> FileIdentity | None:
    try:
        return identity_of(path.stat())
    except OSError:
        return None
