"""The installation of one model into the library: lock, stage, place, record, approve, tidy.

`installer.py` says what each step is for and why an interruption at any point does no harm.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.catalog_file import Bundled, Entry, Source, Variant
from edgeagent.catalog.chat_template import ChatTemplate
from edgeagent.catalog.digest import Progress, sha256_of
from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.install import fetch
from edgeagent.catalog.install.staging import StagedFile, StagedModel, Staging, Trial
from edgeagent.catalog.install_record import RECORD, InstalledModel, read_record
from edgeagent.catalog.model_library import Library
from edgeagent.durable import replace_text, way_out
from edgeagent.durable import sync_file as _sync_file
from edgeagent.durable import sync_folder as _sync_folder
from edgeagent.errors import InstallFailed
from edgeagent.types.template import TemplateFacts

UNKNOWN = "unknown"


class Installation:
    """Installs one model, on one thread: call `run`, or within `locked` first `prepare` and then `commit`.

    `origin`: where the bytes are from, for the record, if the source does not say it.
    """

    def __init__(
        self,
        library: Library,
        entry: Entry,
        variant: Variant,
        sources: tuple[Source | Bundled, ...],
        trial: Trial | None,
        progress: Progress,
        template: ChatTemplate | None = None,
        *,
        origin: str | None = None,
    ) -> None:
        self._library, self._entry, self._variant = library, entry, variant
        self._origin = origin
        self._progress, self._template = progress, template
        self._found: TemplateFacts | None = None
        self._folder = library.folder(entry.id)
        self.staging = Staging(library, entry, variant, sources, trial, progress, template)

    def run(self) -> InstalledModel:
        with self.locked():
            return self.commit(self.prepare())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from installing this model. Raises: InstallFailed, for disk errors too."""
        try:
            with self._lock():
                yield
        except OSError as error:
            raise InstallFailed(
                f"Model {self._entry.id!r} cannot be installed in {self._library.models_dir} "
                f"({error}): {way_out(error)}"
            ) from error

    def prepare(self) -> InstalledModel | StagedModel:
        """Stage the model; where exactly this model is installed already, return it instead."""
        model = self._already_installed()
        if model is None:
            return self.staging.stage()
        if not self._has_template(model):
            self._found = self.staging.try_loading(model.path, self._template)
        return model

    def commit(self, ready: InstalledModel | StagedModel) -> InstalledModel:
        """Install what `prepare` returned; from then on it is served."""
        if isinstance(ready, InstalledModel):
            # An earlier run may have been stopped after the record and before tidying.
            if not self._has_template(ready):
                ready = self._replace_template(ready)
            self._approve(ready)
            self._tidy(ready)
            return ready
        self._approve(model := self._place(ready))
        self._progress("tidy", 0, None)
        self._tidy(model)
        self._progress("done", model.size_bytes, model.size_bytes)
        return model

    # ---- before

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Allow one installation of this model at a time in all processes. The kernel frees it on exit."""
        path = self.staging.root / f"{self._folder.name}.lock"
        busy = f"Model {self._entry.id!r} is being installed by another process: wait for it"
        with exclusive_lock(path, InstallFailed(busy)):
            yield

    def _already_installed(self) -> InstalledModel | None:
        """The installed model, if its files are those that would be installed."""
        model = read_record(self._folder)
        pinned = self._variant.sha256
        if model is None or pinned is None or model.sha256 != pinned:
            return None
        beside = model.beside
        if set(self._variant.extra_files) != set(self._variant.extra_sha256):
            return None
        if {
            Path(name).name: digest for name, digest in beside.items()
        } != self._variant.extra_sha256:
            return None
        recorded = {model.file: pinned} | beside
        found = {name: sha256_of(model.folder / name, self._progress) for name in recorded}
        return model if found == recorded else None

    def _has_template(self, model: InstalledModel) -> bool:
        """Whether the model has the requested chat template; without a request, the one in its own file."""
        sha256 = self._template.sha256 if self._template is not None else None
        return model.template_file_sha256 == sha256

    # ---- commit

    def _place(self, staged: StagedModel) -> InstalledModel:
        """Move the files to their names, then commit by renaming the record into place."""
        files, facts = staged.files, staged.facts
        self._folder.mkdir(exist_ok=True)
        _sync_folder(self._library.models_dir)
        prefix = self._prefix(files)
        (self._folder / prefix).mkdir(exist_ok=True)
        for file in files:
            _sync_file(file.path)
            self._progress("place", 0, None)
            file.path.replace(self._folder / prefix / file.name)
        _sync_folder(self._folder / prefix)
        model = InstalledModel(
            id=self._entry.id,
            file=prefix + files[0].name,
            quant=self._quant(facts),
            size_bytes=files[0].size_bytes,
            sha256=files[0].sha256,
            source=self._origin or fetch.describe(staged.source),
            installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            template_sha256=facts.template_sha256 if facts else None,
            template_file=prefix + staged.template_file if staged.template_file else None,
            extra={prefix + file.name: file.sha256 for file in files[1:]},
            template=staged.template,
            engine=self._variant.engine,
            **self._assistant(prefix),
            folder=self._folder,
        )
        self._record(model)
        return model

    def _assistant(self, prefix: str) -> dict[str, Any]:
        """What the record of an assistant says whose intents are one of its own files."""
        entry = self._entry
        if entry.tools not in self._variant.extra_files:
            return {}
        return {
            "tools": f"{prefix}{entry.tools}",
            "thresholds": dict(entry.thresholds),
            "larger": entry.larger,
        }

    def _replace_template(self, model: InstalledModel) -> InstalledModel:
        """Give the installed model another chat template: write its file, then the record that names it."""
        file, extra = None, {}
        if (template := self._template) is not None:
            file, extra = template.file, {template.file: template.sha256}
            replace_text(self._folder / file, template.text)
        model = msgspec.structs.replace(
            model, template_file=file, extra=extra, template=self._found
        )
        self._record(model)
        return model

    def _record(self, model: InstalledModel) -> None:
        self.staging.folder.mkdir(exist_ok=True)
        draft = self.staging.folder / RECORD
        draft.write_text(model.to_toml(), encoding="utf-8")
        _sync_file(draft)
        self._progress("record", 0, None)
        draft.replace(self._folder / RECORD)
        _sync_folder(self._folder)

    def _approve(self, model: InstalledModel) -> None:
        """Approve exactly these files, so that the daemon serves them without hashing them again."""
        approvals = self._library.approvals
        if approvals is None:
            return
        approvals.adopt(self._library.installed())
        approvals.approve(
            model.id, model.sha256, model.template_sha256, "installed",
            template_file_sha256=model.template_file_sha256, beside=model.beside,
        )  # fmt: skip
        own = {model.file: model.sha256} if model.sha256 is not None else {}
        for name, sha256 in (own | model.beside).items():
            path = (model.folder / name).absolute()
            approvals.keep_digest(path, identity_of(path.stat()), sha256)

    def _quant(self, facts: ModelFacts | None) -> str:
        stated = facts.quant if facts else None
        return stated or UNKNOWN if self._variant.quant == UNKNOWN else self._variant.quant

    def _prefix(self, files: list[StagedFile]) -> str:
        """A subfolder for the new files if they have the names of the old ones; otherwise empty.

        An old file stays unchanged until the record no longer names it.
        """
        old = read_record(self._folder)
        if old is None:
            return ""
        names = set(old.digests()) | {old.file}
        is_taken = any(file.name in names for file in files)
        digest = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:8]
        return f"{digest}/" if is_taken else ""

    def _tidy(self, model: InstalledModel) -> None:
        """Delete what no record names. A failure here only costs disk space."""
        kept = {self._folder / name for name in (RECORD, *model.digests())}
        kept |= {path.parent for path in kept}
        for path in self._folder.iterdir():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        self.staging.discard()
