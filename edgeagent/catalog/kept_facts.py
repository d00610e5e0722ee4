"""The facts of model files, kept from one start of the daemon to the next.

    <state_dir>/facts.json      path -> facts, and the identity of the file that they were read from

Reading a header takes a process of its own (`gguf/inspection`) and 0.1 s of a core, for each model before the
first one is loaded. It is read again when the file has changed, and by another version of edgeagent. A
worker that loads a file of this identity need not read its header.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.gguf.inspection import inspect_apart
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.durable import read_json, replace_text
from edgeagent.types.engine_config import FileIdentity
from edgeagent.types.version import VERSION

_MAX_FILES = 500
_MOST_BYTES = 16 << 20
# The bound for one file as JSON, which indentation makes up to four times as long. Ordinary models take 1 to
# 3 kB; a header may have strings of 4 MB.
_MOST_BYTES_EACH = 8 << 10


class FileFacts(Struct, frozen=True, array_like=True):
    """The facts of a file with this identity."""

    identity: FileIdentity
    facts: ModelFacts


class _Contents(Struct, frozen=True):
    version: str
    files: dict[str, FileFacts]


class KeptFacts:
    """The file of one state directory. Any thread and process."""

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
            found = FileFacts(identity, facts)
            if len(msgspec.json.encode(found)) <= _MOST_BYTES_EACH:
                self._keep(path, found)
        return facts

    def knows(self, path: Path, identity: FileIdentity) -> bool:
        """Whether a file of this identity at `path` was found to be a sound model."""
        with self._lock:
            kept = self._all().get(str(path.absolute()))
        return kept is not None and kept.identity == identity

    def _keep(self, path: Path, found: FileFacts) -> None:
        # A failure only costs time later. JSON has no paths that are not UTF-8.
        with self._lock, suppress(OSError, UnicodeEncodeError), self._changing():
            files = self._read()
            files.pop(str(path), None)
            files[str(path)] = found
            for oldest in list(files)[:-_MAX_FILES]:
                del files[oldest]
            content = msgspec.json.encode(_Contents(VERSION, files))
            replace_text(self._path, msgspec.json.format(content, indent=1).decode())
            self._known = files

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one thread of one process change the file. Raises: OSError, also without a state directory."""
        # The directory itself is locked by the daemon as long as it lives (`daemon.instance_lock`).
        with self._path.with_name(".facts.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _all(self) -> dict[str, FileFacts]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, FileFacts]:
        try:
            contents = read_json(self._path, _MOST_BYTES, _Contents)
        except (OSError, msgspec.MsgspecError):
            return {}
        return contents.files if contents.version == VERSION else {}


def _identity(path: Path) -> FileIdentity | None:
    try:
        return identity_of(path.stat())
    except OSError:
        return None
