"""Installs LoRA adapters: copied, checked against their base model, loaded once on trial, then recorded.

An adapter is a folder of the models directory like a model's, whose record names the model that it changes
(`base`). The record is written last; an adapter of the same id stays until then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edgeagent.catalog.approvals import identity_of
from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.gguf.adapter_header import inspect_adapter
from edgeagent.catalog.gguf.model_facts_reader import inspect
from edgeagent.catalog.install_record import RECORD, InstalledModel
from edgeagent.catalog.model_ids import check_id, id_of_file
from edgeagent.catalog.model_library import STAGING, Library
from edgeagent.durable import replace_text, sync_file, sync_folder
from edgeagent.errors import EdgeAgentError, GGUFRefused, InstallFailed

MAX_BYTES = 1 << 30
MAX_ADAPTERS = 16  # of one model: each takes memory as long as the model is loaded

# Loads the base model with an adapter, in a process that may crash.
AdapterTrial = Callable[[Path, Path], None]


def install_adapter(
    path: Path,
    base: InstalledModel,
    library: Library,
    *,
    adapter_id: str | None,
    trial: AdapterTrial,
) -> InstalledModel:
    """Install the adapter in the file at `path` for a model. Raises: InstallFailed; ModelNotFound for a
    malformed id."""
    adapter_id = adapter_id or id_of_file(path.name)
    if adapter_id is None:
        raise InstallFailed(f"{path.name!r} gives no id: name one with --as.")
    check_place(check_id(adapter_id), base, library)
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise InstallFailed(
                f"{path.name!r} has {size_bytes} bytes, an adapter has at most {MAX_BYTES}: take one of a "
                "lower rank."
            )
        return _install(path, adapter_id, base, library, trial)
    except OSError as exc:
        raise InstallFailed(
            f"Adapter {adapter_id!r} cannot be installed in {library.models_dir} ({exc}): check the path, "
            "the permissions and the disk."
        ) from exc


def check_place(adapter_id: str, base: InstalledModel, library: Library) -> None:
    """Raises: InstallFailed where an adapter of this id cannot be one of the model."""
    if base.base is not None:
        raise InstallFailed(f"{base.id!r} is an adapter itself: name the model that it is for.")
    there = {model.id for model in library.installed()}
    others = {adapter.id: adapter for adapter in library.adapters()}
    own = [one for one in others.values() if one.base == base.id and one.id != adapter_id]
    if adapter_id in there:
        raise InstallFailed(f"A model is called {adapter_id!r}: choose another id with --as.")
    if adapter_id in others and others[adapter_id].base != base.id:
        raise InstallFailed(
            f"Adapter {adapter_id!r} is one of {others[adapter_id].base!r}: remove it, or choose another id "
            "with --as."
        )
    if len(own) >= MAX_ADAPTERS:
        raise InstallFailed(
            f"Model {base.id!r} has {len(own)} adapters, at most {MAX_ADAPTERS} are loaded with it: remove "
            "one."
        )


def _install(
    path: Path, adapter_id: str, base: InstalledModel, library: Library, trial: AdapterTrial
) -> InstalledModel:
    folder = library.folder(adapter_id)
    staging = library.models_dir / STAGING / f"{folder.name}@adapter"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        staged = staging / "adapter.gguf"
        shutil.copyfile(path, staged)
        _check(staged, base)
        _try(base, staged, trial)
        sha256 = sha256_of(staged)
        sync_file(staged)
        folder.mkdir(exist_ok=True)
        target = folder / f"adapter-{sha256[:8]}.gguf"
        staged.replace(target)
        sync_folder(folder)
        sync_folder(library.models_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    adapter = InstalledModel(
        id=adapter_id, file=target.name, size_bytes=target.stat().st_size, sha256=sha256,
        source=f"adapter file {path.name}", base=base.id, folder=folder,
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    replace_text(folder / RECORD, adapter.to_toml())
    if library.approvals is not None:
        library.approvals.adopt([*library.installed(), *library.adapters()])
        library.approvals.approve(adapter_id, sha256, None, "installed")
        library.approvals.keep_digest(target.absolute(), identity_of(target.stat()), sha256)
    for other in folder.glob("adapter-*.gguf"):
        if other != target:
            other.unlink()
    return adapter


def _try(base: InstalledModel, staged: Path, trial: AdapterTrial) -> None:
    try:
        trial(base.path, staged)
    except EdgeAgentError as exc:
        raise InstallFailed(f"{base.id!r} does not load with the adapter: {exc.message}") from exc


def _check(staged: Path, base: InstalledModel) -> None:
    """Raises: InstallFailed for an adapter that does not suit the model."""
    try:
        if (task := inspect(base.path).task) != "generate":
            raise InstallFailed(
                f"Model {base.id!r} does not generate text (task {task}): adapters are for models that do."
            )
        inspect_adapter(staged, base.path)
    except GGUFRefused as exc:
        raise InstallFailed(f"The adapter does not suit {base.id!r}: {exc.message}") from exc
