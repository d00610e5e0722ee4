"""Which model files may be served, by digest: those that were installed or approved on this device.

    <state_dir>/approvals.json      model id -> digest of its file and of its chat template
    <state_dir>/digests.json        path -> computed digest, and the identity of the hashed file

Both are outside the models directory: permission to put files there must not include permission to approve
them. The second file avoids hashing a file again whose device, inode, size, mtime and ctime are unchanged.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from edgeagent.catalog.install_record import InstalledModel
from edgeagent.durable import read_json, replace_text
from edgeagent.errors import InstallFailed
from edgeagent.types.engine_config import FileIdentity

# More than any device has models; a state directory outlives many models.
_MAX_DIGESTS = 500
_MOST_BYTES = 64 << 20

How = Literal["installed", "approved", "first use", "found at the first start"]


class Approval(Struct, frozen=True, kw_only=True):
    """`sha256` None: installed without a digest; the first computed digest is accepted.
    `template_file_sha256`: of the chat template that was installed in place of the file's own. `beside`:
    digests of the other files of the model, by name.
    """

    sha256: str | None
    template_sha256: str | None = None
    template_file_sha256: str | None = None
    how: How
    approved_at: str
    beside: dict[str, str] = {}


class Digest(Struct, frozen=True, array_like=True):
    """The digest of a file with this identity."""

    identity: FileIdentity
    sha256: str


def identity_of(stat: os.stat_result) -> FileIdentity:
    """Identifies one state of a file: a change of content changes at least the last value."""
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Approvals:
    """The two files of one state directory. Any thread and process; changes are made under a lock."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir
        self._approvals = state_dir / "approvals.json"
        self._digests = state_dir / "digests.json"

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever approved on this device."""
        return not self._approvals.exists()

    def get(self, model_id: str) -> Approval | None:
        """Raises: InstallFailed if the file cannot be read: lost approvals must not look like none."""
        return self._read_approvals().get(model_id)

    def approve(
        self,
        model_id: str,
        sha256: str | None,
        template_sha256: str | None,
        how: How,
        *,
        template_file_sha256: str | None = None,
        beside: Mapping[str, str] = MappingProxyType({}),
    ) -> Approval:
        """Serve exactly these files under this id from now on. Raises: InstallFailed."""
        made = _approval(sha256, template_sha256, how, template_file_sha256, beside)
        with self._changing():
            self._write(self._approvals, self._read_approvals() | {model_id: made})
        return made

    def adopt(self, models: Iterable[InstalledModel]) -> None:
        """Approve the installed models if nothing was ever approved; otherwise do nothing.

        Raises: InstallFailed.
        """
        if self.is_new:
            with self._changing():
                if self.is_new:
                    found = {m.id: _of_record(m) for m in models if not m.unmanaged}
                    self._write(self._approvals, found)

    def forget(self, model_id: str) -> None:
        """Raises: InstallFailed."""
        if not self.is_new:
            with self._changing():
                known = self._read_approvals()
                if known.pop(model_id, None) is not None:
                    self._write(self._approvals, known)

    def digest(self, path: Path, identity: FileIdentity) -> str | None:
        """The digest of this file in this state, if it was computed before."""
        kept = self._read_digests().get(str(path))
        return kept.sha256 if kept is not None and kept.identity == identity else None

    def keep_digest(self, path: Path, identity: FileIdentity, sha256: str) -> None:
        """Store a digest. A failure only costs time later."""
        with suppress(OSError, InstallFailed), self._changing():
            known = self._read_digests()
            known.pop(str(path), None)
            known[str(path)] = Digest(identity, sha256)
            for oldest in list(known)[:-_MAX_DIGESTS]:
                del known[oldest]
            self._write(self._digests, known)

    def _read_approvals(self) -> dict[str, Approval]:
        try:
            return read_json(self._approvals, _MOST_BYTES, dict[str, Approval])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as exc:
            raise InstallFailed(
                f"The approvals of models cannot be read from {self._approvals} ({exc}): restore it, or "
                "delete it to approve all models that are installed now."
            ) from exc

    def _read_digests(self) -> dict[str, Digest]:
        try:
            return read_json(self._digests, _MOST_BYTES, dict[str, Digest])
        except (OSError, msgspec.MsgspecError):
            return {}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Allow one process at a time to change the files. Raises: InstallFailed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ".approvals.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as exc:
            raise InstallFailed(
                f"Approvals cannot be written to {self._folder} ({exc.strerror}): run as the user "
                "of the daemon, or name its --state-dir."
            ) from exc

    @staticmethod
    def _write(path: Path, content: object) -> None:
        replace_text(path, msgspec.json.format(msgspec.json.encode(content), indent=1).decode())


def _of_record(model: InstalledModel) -> Approval:
    found = model.template_file_sha256
    how: How = "found at the first start"
    return _approval(model.sha256, model.template_sha256, how, found, model.beside)


def _approval(
    sha256: str | None,
    template_sha256: str | None,
    how: How,
    template_file_sha256: str | None,
    beside: Mapping[str, str],
) -> Approval:
    return Approval(
        sha256=sha256,
        template_sha256=template_sha256,
        template_file_sha256=template_file_sha256,
        how=how,
        approved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        beside=dict(beside),
    )
