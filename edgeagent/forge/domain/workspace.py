"""The folder of one domain model: its data, unfinished work, the made files and their versions.

<state>/forge/<name>/
  examples.jsonl       the examples that were read, with answers and tools
  plan.json            how it is trained; another plan begins anew
  work/                what was computed so far
  model/               NAME.gguf, NAME.json (intents), NAME.scope (gate), README.md (card), catalog.toml,
                       figures.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgeagent.catalog.catalog_file import Entry, parse_catalog
from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.catalog.model_ids import is_id
from edgeagent.durable import read_json, replace_text, sync_folder, way_out
from edgeagent.errors import ForgeFailed, SettingsError
from edgeagent.forge.domain.example import Domain
from edgeagent.forge.domain.readers.jsonl_reader import read_jsonl
from edgeagent.forge.domain.trunk_file import Floats

Method = Literal["head", "torch"]
logger = logging.getLogger(__name__)

_MAX_NAME = 64
_MAX_PLAN_BYTES = 64 << 20
_MAX_EXAMPLES_BYTES = 128 << 20  # more than what `example.MAX_EXAMPLES` texts can take
N_KEPT = 3  # versions


def check_name(name: str) -> str:
    """Raises: ForgeFailed for a name that cannot be an id without an owner."""
    if "/" in name or len(name) > _MAX_NAME or not is_id(name):
        raise ForgeFailed(
            f"{name[:120]!r} is not the name of a model: use lower-case letters, digits, '.', '_' and '-', "
            f"at most {_MAX_NAME} characters, beginning with a letter or digit."
        )
    return name


@dataclass(frozen=True)
class Plan:
    """What decides the result: the data, the base model, the teacher's, by their digests, and the seed."""

    seed: int
    method: Method
    data: str
    base: str
    teacher: str
    minutes: float


class Workspace:
    """Files of one model. Whoever changes them holds `alone`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder / check_name(name), name
        self.work = self.folder / "work"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time. Raises: ForgeFailed where another one is at work, or for a full disk."""
        busy = ForgeFailed(
            f"{self.name} is being made by another command: wait until it has ended."
        )
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                held.enter_context(exclusive_lock(self.folder / ".lock", busy))
            except OSError as exc:
                raise ForgeFailed(
                    f"{self.folder} cannot be written ({exc}): {way_out(exc)}."
                ) from exc
            yield

    @property
    def model(self) -> Path:
        """The folder of the version that is being made, else of the last one."""
        numbers = self._numbers()
        is_open = self.work.is_dir()
        return self._version(max(numbers, default=0) + is_open)

    def _version(self, number: int) -> Path:
        return self.folder / "versions" / str(number)

    def _numbers(self) -> list[int]:
        """The numbers of finished versions, ascending."""
        found = (self.folder / "versions").glob("*/done")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())

    @property
    def gguf(self) -> Path:
        return self.model / f"{self.name}.gguf"

    @property
    def intents(self) -> Path:
        return self.model / f"{self.name}.json"

    @property
    def scope(self) -> Path:
        """The scope gate, which not every model has."""
        return self.model / f"{self.name}.scope"

    @property
    def card(self) -> Path:
        return self.model / "README.md"

    @property
    def is_there(self) -> bool:
        return (self.folder / "plan.json").is_file()

    def begin(self, plan: Plan, domain: Domain) -> bool:
        """Take up this plan; False if unfinished work on it goes on. Raises: ForgeFailed."""
        told = json.dumps(asdict(plan), indent=1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self.folder / "plan.json"
            is_same = path.is_file() and path.read_text(encoding="utf-8") == told
            goes_on = is_same and self.work.is_dir()
            if not is_same:
                shutil.rmtree(self.work, ignore_errors=True)
                write_text(path, told)
            self.work.mkdir(exist_ok=True)
            self.model.mkdir(parents=True, exist_ok=True)
            write_text(self.model / "examples.jsonl", to_lines(domain))
        except OSError as exc:
            raise ForgeFailed(
                f"{self.folder} cannot be written ({exc.strerror}): check the disk and --state-dir."
            ) from exc
        return not goes_on

    def finish(self, sha256: str) -> None:
        """A version is installed: this is the current one. Older ones than the last three are removed."""
        is_new, folder = self.work.is_dir(), self.model
        if is_new:
            (folder / "done").touch()
            sync_folder(folder)
        write_text(self.folder / "current", sha256)
        if is_new:
            shutil.rmtree(self.work, ignore_errors=True)
        for number in self._numbers()[:-N_KEPT]:
            shutil.rmtree(self._version(number), ignore_errors=True)

    def settle(self, served: str | None) -> None:
        """Take the version with this digest, which is installed, as the current one: a command may have been
        killed between the two."""
        if served is not None and self.version_of(served) is not None:
            write_text(self.folder / "current", served)

    def discard(self) -> None:
        """Give up the version that is being made."""
        if self.work.is_dir():
            shutil.rmtree(self.model, ignore_errors=True)
            shutil.rmtree(self.work, ignore_errors=True)

    def plan(self) -> Plan:
        """The last plan. Raises: ForgeFailed."""
        path = self.folder / "plan.json"
        try:
            return read_json(path, _MAX_PLAN_BYTES, Plan)
        except (OSError, msgspec.MsgspecError) as exc:
            raise ForgeFailed(f"{path} cannot be read ({exc}): run `forge new` again.") from exc

    def examples(self) -> Domain:
        """The examples of the current version. Raises: ForgeFailed."""
        path = self._version(self._current()) / "examples.jsonl"
        return read_jsonl(path, max_bytes=_MAX_EXAMPLES_BYTES)

    def _entries(self) -> list[tuple[int, Entry]]:
        """The finished versions with their catalog entries, ascending; damaged ones are left out."""
        found = []
        for number in self._numbers():
            path = self._version(number) / "catalog.toml"
            try:
                entries = parse_catalog(path.read_text(encoding="utf-8"), str(path))
                found.append((number, entries[self.name]))
            except (OSError, UnicodeDecodeError, SettingsError, KeyError) as exc:
                logger.warning("version_damaged path=%s error=%s", path, type(exc).__name__)
        return found

    def version_of(self, sha256: str) -> int | None:
        found = [n for n, entry in self._entries() if entry.variants[0].sha256 == sha256]
        return max(found, default=None)

    def _current(self) -> int:
        """Raises: ForgeFailed where the served version is not whole."""
        number = self._served()
        if number is None:
            raise ForgeFailed(
                f"The files of {self.name}'s current version in {self.folder} are damaged or missing: "
                f"`edgeagent forge rollback {self.name}` serves the version before, and `edgeagent forge new "
                f"{self.name}` makes a new one."
            )
        return number

    def _served(self) -> int | None:
        path = self.folder / "current"
        sha256 = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        return self.version_of(sha256)

    def current_gguf(self) -> Path:
        number = self._current()
        file = next(entry for n, entry in self._entries() if n == number).variants[0].file
        return self._version(number) / file

    def previous(self) -> Entry:
        """The version before the current one; where the files of that one are damaged, the last one that is
        whole. Raises: ForgeFailed if there is none."""
        current = self._served()
        before = [entry for n, entry in self._entries() if current is None or n < current]
        if not before:
            said = f"before {current}" if current is not None else "that is whole"
            raise ForgeFailed(f"{self.name} has no version {said}: there is no way back.")
        return before[-1]

    def load(self, name: str) -> Floats | None:
        """An array of the work, None if there is none that is whole."""
        try:
            found = np.load(self.work / f"{name}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return np.asarray(found, np.float32)

    def save(self, name: str, array: Floats) -> None:
        partial = self.work / f".{name}.partial"
        with partial.open("wb") as file:
            np.save(file, array)
        partial.replace(self.work / f"{name}.npy")


def write_text(path: Path, text: str) -> None:
    """Replace a file by one rename: no kill and no power cut leaves half of it. Raises: ForgeFailed."""
    try:
        replace_text(path, text)
    except OSError as exc:
        raise ForgeFailed(f"{path} cannot be written ({exc}): {way_out(exc)}.") from exc


def digest_of(domain: Domain) -> str:
    return hashlib.sha256(to_lines(domain).encode()).hexdigest()


def to_lines(domain: Domain) -> str:
    """A domain as JSON lines, which `readers.jsonl_reader` reads; slots are marked by their places."""
    lines: list[dict[str, Any]] = []
    for intent in sorted({*domain.answers, *domain.tools}):
        told = dict(domain.tools.get(intent, {}))
        if intent in domain.answers:
            told["answer"] = domain.answers[intent]
        lines.append({"intent": intent} | told)
    for example in domain.examples:
        marks = [[s.name, s.start, s.end] for s in example.slots]
        lines.append(
            {"text": example.text, "intent": example.intent} | ({"spans": marks} if marks else {})
        )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
