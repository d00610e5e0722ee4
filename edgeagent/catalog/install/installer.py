"""Installs models so that either the old state or the new one always works, whenever we are stopped.

    1. space     is there room in the models directory, may we write there?
    2. fetch     into .staging/, hashed while written; an interrupted download continues
    3. check     size and sha256 as pinned, then the header (gguf/model_facts_reader.py)
    4. trial     the caller loads the file in a worker, because this floor may not
    5. place     the file gets its name in the model's folder, beside existing files
    6. record    installed.toml is replaced by one rename: from here on the new model is served
    7. tidy      the previous model's files and the staging folder are deleted

Only step 6 is visible to other processes. Files, then the folder, are flushed to disk before it, so a
power cut cannot leave a record of missing files.

Source: stage, verify, commit by rename, after RAUC and OSTree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from edgeagent.catalog.catalog_file import (
    URL,
    Bundled,
    Catalog,
    Entry,
    HuggingFace,
    LocalPath,
    Source,
    Variant,
)
from edgeagent.catalog.chat_template import ChatTemplate
from edgeagent.catalog.digest import Progress, no_progress
from edgeagent.catalog.install import fetch, https, huggingface
from edgeagent.catalog.install.installation import UNKNOWN, Installation
from edgeagent.catalog.install.model_reference import (
    FileReference,
    FolderReference,
    HubReference,
    Reference,
    UrlReference,
    chosen_file,
    file_in_folder,
)
from edgeagent.catalog.install.staging import Trial
from edgeagent.catalog.install.wheel_download import FetchFailed
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.model_ids import check_id, folder_name, id_of_file
from edgeagent.catalog.model_library import Library
from edgeagent.errors import InstallFailed

Stated = TypeVar("Stated")
# Called with a model's name and size before it is fetched; raises InstallFailed if it is too large.
Fits = Callable[[str, int], None]


def no_bound(name: str, size_bytes: int) -> None:
    """Accepts any size."""


def install(
    model_id: str,
    library: Library,
    catalog: Catalog,
    *,
    quant: str | None = None,
    offline: bool = False,
    file: Path | None = None,
    fits: Fits = no_bound,
    trial: Trial | None = None,
    template: ChatTemplate | None = None,
    progress: Progress = no_progress,
) -> InstalledModel:
    """Install a model of the catalog and return its record.

    `file` takes the bytes from this machine (a USB stick) instead of the network, with the same pinned
    digest. `trial(path)` loads the file in a process that may crash and raises an EdgeAgentError if that
    fails; `trial(path, text)` does so with `template`, which replaces the model's own chat template. Its
    result is stored in the record. `progress(stage, done_bytes, total_bytes)` is called often; `fits` is
    called with the size first.

    Raises: ModelNotFound for an unknown id or quant; InstallFailed for everything else, with the
    previously installed model still in place.
    """
    entry = catalog.entry(check_id(model_id))
    variant = entry.variant(quant)
    sources = variant.sources if file is None else (LocalPath(path=str(file)),)
    if offline:
        sources = _without_network(entry, variant, sources)
    if variant.size_bytes is not None:
        fits(f"{entry.id} {variant.quant}", variant.size_bytes)
    return Installation(library, entry, variant, sources, trial, progress, template).run()


def install_file(
    path: Path,
    library: Library,
    *,
    model_id: str | None = None,
    fits: Fits = no_bound,
    trial: Trial | None = None,
    template: ChatTemplate | None = None,
    progress: Progress = no_progress,
) -> InstalledModel:
    """Install a GGUF file that is in no catalog, under `model_id` or an id derived from its name.

    Raises: ModelNotFound for a malformed id, InstallFailed for everything else.
    """
    model_id = model_id or id_of_file(path.name)
    if model_id is None or path.suffix.lower() != ".gguf":
        raise InstallFailed(
            f"{path.name!r} does not have a model's file name: rename it to NAME.gguf"
        )
    if not path.is_file():
        raise InstallFailed(
            f"File {path} does not exist: check the path, or see `edgeagent models catalog`."
        )
    fits(path.name, path.stat().st_size)
    file = f"{folder_name(model_id)}.gguf"
    source = LocalPath(path=str(path))
    variant = Variant(quant=UNKNOWN, file=file, sources=(source,))
    entry = unknown_entry(model_id, path.stem, variant)
    return Installation(library, entry, variant, (source,), trial, progress, template).run()


def install_reference(
    reference: Reference,
    library: Library,
    *,
    model_id: str | None = None,
    offline: bool = False,
    fits: Fits = no_bound,
    trial: Trial | None = None,
    template: ChatTemplate | None = None,
    progress: Progress = no_progress,
) -> InstalledModel:
    """Install a model that is in no catalog, from a file, a folder, an address or a repository.

    The server is asked for size and digest before anything is fetched, and the file must match them.
    `fits` is called with the size and raises if it is too large.

    Raises: ModelNotFound for a malformed id, InstallFailed for everything else.
    """
    match reference:
        case FileReference(path):
            return install_file(
                path, library, model_id=model_id, fits=fits, trial=trial, template=template,
                progress=progress,
            )  # fmt: skip
        case FolderReference(path):
            file = file_in_folder(path)
            if file is not None:
                return install_file(
                    file, library, model_id=model_id, fits=fits, trial=trial, template=template,
                    progress=progress,
                )  # fmt: skip
            name = f"{path.resolve().name}.gguf"
            source: Source = LocalPath(path=str(path), convert="minilm")
            size, sha256 = None, None
        case UrlReference(url, name):
            _check_online(url, offline)
            facts = _stated(lambda: https.facts_of(url))
            source, size, sha256 = URL(url=url), facts.size_bytes, facts.sha256
        case HubReference(repo, _, _, revision):
            _check_online(f"hf.co/{repo}", offline)
            found = chosen_file(reference, _stated(lambda: huggingface.files_of(repo, revision)))
            name = found.path.rpartition("/")[2]
            source = HuggingFace(repo=repo, file=found.path, revision=revision)
            size, sha256 = found.size_bytes or None, found.sha256
    if size is not None:
        fits(name, size)
    model_id = model_id or id_of_file(name)
    if model_id is None:
        raise InstallFailed(
            f"No valid id can be derived from {name[:120]!r}: choose one with --as ID."
        )
    target = f"{folder_name(model_id)}.gguf"
    variant = Variant(quant=UNKNOWN, file=target, sources=(source,), size_bytes=size, sha256=sha256)
    entry = unknown_entry(model_id, name.removesuffix(".gguf"), variant)
    return Installation(library, entry, variant, (source,), trial, progress, template).run()


def _check_online(what: str, offline: bool) -> None:
    if offline:
        raise InstallFailed(
            f"{what} needs the network, but 'offline' is set: copy the file from a connected machine "
            "and give its path, or give --online."
        )


def _stated(ask: Callable[[], Stated]) -> Stated:
    try:
        return ask()
    except FetchFailed as error:
        raise InstallFailed(error.message) from error


def install_entry(
    entry: Entry,
    library: Library,
    *,
    trial: Trial | None = None,
    progress: Progress = no_progress,
) -> InstalledModel:
    """Install the first variant of an entry that is in no catalog, from its own sources.

    An assistant whose `tools` are one of its `extra_files` is served by a running daemon at once. Raises:
    InstallFailed.
    """
    variant = entry.variants[0]
    return Installation(library, entry, variant, variant.sources, trial, progress).run()


def unknown_entry(model_id: str, name: str, variant: Variant) -> Entry:
    """A catalog entry for a model that is in no catalog."""
    return Entry(
        id=model_id, name=name, family=UNKNOWN, n_params=0, task="chat",
        licence=UNKNOWN, variants=(variant,),
    )  # fmt: skip


def set_template(
    model: InstalledModel,
    library: Library,
    template: ChatTemplate,
    *,
    trial: Trial | None = None,
    progress: Progress = no_progress,
) -> InstalledModel:
    """Give an installed model another chat template; nothing is fetched. A model that comes with edgeagent
    is copied for that. Raises: InstallFailed."""
    if model.unmanaged or model.sha256 is None:
        raise InstallFailed(
            f"Model {model.id!r} was dropped in and not installed: `edgeagent models install "
            f"{model.path} --chat-template FILE` installs it with a template"
        )
    source = LocalPath(path=str(model.path))
    variant = Variant(
        quant=model.quant or UNKNOWN, file=Path(model.file).name, sources=(source,),
        size_bytes=model.size_bytes, sha256=model.sha256,
    )  # fmt: skip
    entry = unknown_entry(model.id, model.id, variant)
    return Installation(library, entry, variant, (source,), trial, progress, template).run()


def install_requantized(
    model: InstalledModel,
    library: Library,
    file: Path,
    quant: str,
    figures: str,
    *,
    trial: Trial | None = None,
    template: ChatTemplate | None = None,
    progress: Progress = no_progress,
) -> InstalledModel:
    """Replace an installed model by a requantized copy of it; the record has what was measured of that
    (`figures`). Raises: InstallFailed."""
    source = LocalPath(path=str(file))
    stem = Path(model.file).stem.removesuffix(f".{model.quant}").removesuffix(f"-{model.quant}")
    variant = Variant(quant=quant, file=f"{stem}.{quant}.gguf", sources=(source,))
    entry = unknown_entry(model.id, model.id, variant)
    origin = f"requantized from {model.quant or UNKNOWN} of {model.source}: {figures}"
    return Installation(
        library, entry, variant, (source,), trial, progress, template, origin=origin
    ).run()


def install_together(
    wanted: Sequence[tuple[Entry, Variant, Bundled]],
    library: Library,
    *,
    trial: Trial | None = None,
    progress: Progress = no_progress,
) -> list[InstalledModel]:
    """Install several models; the first is moved into place only when all are fetched, checked and tried.

    So if one fails, every old model stays as it was, and only a few renames can be interrupted. Needs disk
    space for all of them at once. Raises: InstallFailed.
    """
    installs = [
        Installation(library, entry, variant, (source,), trial, progress)
        for entry, variant, source in wanted
    ]
    with ExitStack() as locks:
        for one in installs:
            locks.enter_context(one.locked())
        try:
            ready = [one.prepare() for one in installs]
        except Exception:
            for one in installs:
                one.staging.discard()
            raise
        return [one.commit(model) for one, model in zip(installs, ready, strict=True)]


def _without_network(
    entry: Entry, variant: Variant, sources: tuple[Source, ...]
) -> tuple[Source, ...]:
    local = tuple(source for source in sources if not isinstance(source, fetch.NETWORK))
    if local:
        return local
    origin = fetch.describe(variant.sources[0])
    raise InstallFailed(
        f"Model {entry.id!r} comes from {origin}, but 'offline' is set: copy {variant.file!r}"
        f" from a connected machine, then 'edgeagent models install {entry.id} --file PATH'"
    )
