"""Install a bundle: verify all of it, then stage all of it, then move it into place.

    1. verify    manifest, signature, container, every part's sha256 (bundles/reader.py); nothing is
                 written before all of that is known to be good
    2. version   not older than the last installed of its name (bundles/install_state.py)
    3. parse     catalog, profile and the models' records, and check that they agree
    4. space     is there room for everything at once?
    5. stage     wheels into a folder that nobody reads, models up to their trial load (install/)
    6. commit    models, catalog entries, profile, wheels: one rename each
    7. record    the version counter; from here on an older bundle is refused

If the process is killed before step 6, nothing has changed; during step 6, each model is completely the
old or the new one, and installing the same bundle again finishes the rest. Wheels are unpacked and never
run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeagent.catalog.bundles.install_state import BundleFolder
from edgeagent.catalog.bundles.manifest import CATALOG, PROFILE, BundlePart, refused
from edgeagent.catalog.bundles.reader import Bundle, open_bundle
from edgeagent.catalog.bundles.signing import TrustList
from edgeagent.catalog.catalog_file import Bundled, Entry, LocalPath, Variant, parse_catalog
from edgeagent.catalog.digest import Progress, no_progress
from edgeagent.catalog.install import installer as installing
from edgeagent.catalog.install.installation import UNKNOWN
from edgeagent.catalog.install.staging import RESERVE_BYTES, Trial
from edgeagent.catalog.install_record import InstalledModel, parse_record, read_record
from edgeagent.catalog.model_library import Library
from edgeagent.durable import replace_text, sync_file, sync_folder
from edgeagent.errors import EdgeAgentError, InstallFailed

CheckProfile = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class InstalledBundle:
    """The installed parts of a bundle and their paths."""

    name: str
    version: int
    key_id: str
    models: list[InstalledModel]
    profile: tuple[str, Path] | None
    wheels: Path | None


def install_bundle(
    path: Path,
    library: Library,
    trust: TrustList,
    *,
    check_profile: CheckProfile,
    trial: Trial | None = None,
    progress: Progress = no_progress,
) -> InstalledBundle:
    """Install the bundle file at `path`.

    `check_profile(text, place)` parses a device profile and returns its name (this floor may not); `trial`
    and `progress` are those of `install`.

    Raises: BundleRefused naming the bad part, before anything is written; InstallFailed, with every old
    model still in place, for a full disk or a model that does not load here.
    """
    folder = BundleFolder(library.models_dir, library.state_dir)
    with open_bundle(path, trust) as bundle:
        folder.check_version(bundle.manifest, bundle.manifest_sha256)
        bundle.check_parts(progress)
        wanted = _models(bundle)
        catalog = _catalog_text(bundle)
        profile = _profile_text(bundle, check_profile)
        _check_space(bundle, library)
        try:
            with folder.locked():
                # Check again: another process may have installed one meanwhile.
                folder.check_version(bundle.manifest, bundle.manifest_sha256)
                with _staged_wheels(bundle, folder) as wheels:
                    models = installing.install_together(
                        wanted, library, trial=trial, progress=progress
                    )
                    return _commit(bundle, folder, models, catalog, profile, wheels)
        except OSError as error:
            raise InstallFailed(
                f"Bundle {bundle.manifest.title!r} cannot be installed in {library.models_dir}"
                f" ({error}): check the disk and its permissions, then install it again"
            ) from error


def _commit(
    bundle: Bundle,
    folder: BundleFolder,
    models: list[InstalledModel],
    catalog: str | None,
    profile: str | None,
    wheels: Path | None,
) -> InstalledBundle:
    manifest = bundle.manifest
    if catalog is not None:
        replace_text(folder.catalog(manifest.name), catalog)
    profile_path = None
    if profile is not None and manifest.profile is not None:
        profile_path = (manifest.profile, folder.profile(manifest.profile))
        replace_text(profile_path[1], profile)
    if wheels is not None:
        wheels = _place_wheels(wheels, folder.wheels(manifest))
    folder.record(manifest, bundle.manifest_sha256, bundle.key.id)
    _tidy(folder, bundle)
    return InstalledBundle(
        manifest.name, manifest.version, bundle.key.id, models, profile_path, wheels
    )


# -- parse -------------------------------------------------------------------------------------


def _models(bundle: Bundle) -> list[tuple[Entry, Variant, Bundled]]:
    """The arguments for installing each model, from its record and the catalog of the bundle."""
    entries = _entries(bundle)
    wanted = []
    for model_id in bundle.manifest.models:
        record_part, *parts = bundle.manifest.of_model(model_id)
        record = _record(bundle, model_id, record_part, parts)
        by_name = {part.name.rpartition("/")[2]: part for part in parts}
        sources = {name: _source(bundle, part) for name, part in by_name.items()}
        main = sources.pop(record.file)
        variant = Variant(
            quant=record.quant or UNKNOWN,
            file=record.file,
            sources=(LocalPath(path=str(bundle.path)),),
            size_bytes=main.size_bytes,
            sha256=main.sha256,
            extra_files=tuple(record.extra),
            extra_sha256=dict(record.extra),
            chat_template=record.template_file,
        )
        entry = entries.get(model_id) or installing.unknown_entry(model_id, model_id, variant)
        wanted.append((entry, variant, _with_beside(main, sources)))
    return wanted


def _record(
    bundle: Bundle, model_id: str, part: BundlePart, parts: list[BundlePart]
) -> InstalledModel:
    try:
        record = parse_record(bundle.text(part.name), Path())
    except (ValueError, RecursionError) as error:
        raise refused(part.name, f"cannot be read ({error})", "make the bundle again") from error
    listed = {found.name.rpartition("/")[2]: found.sha256 for found in parts}
    is_whole = record.template_file in (None, *record.extra)
    if record.id != model_id or record.digests() != listed or not is_whole:
        raise refused(
            part.name, f"does not match {model_id!r} and its files", "make the bundle again"
        )
    return record


def _source(bundle: Bundle, part: BundlePart) -> Bundled:
    title = f"{bundle.manifest.name}@{bundle.manifest.version}"
    return Bundled(
        path=str(bundle.path),
        offset=bundle.offset(part),
        origin=f"bundle:{title}/{part.name}",
        sha256=part.sha256,
        size_bytes=part.size_bytes,
    )


def _with_beside(main: Bundled, others: dict[str, Bundled]) -> Bundled:
    return Bundled(
        path=main.path, offset=main.offset, origin=main.origin, sha256=main.sha256,
        size_bytes=main.size_bytes, beside=others,
    )  # fmt: skip


def _catalog_text(bundle: Bundle) -> str | None:
    listed = CATALOG in {part.name for part in bundle.manifest.parts}
    return bundle.text(CATALOG) if listed else None


def _entries(bundle: Bundle) -> dict[str, Entry]:
    text = _catalog_text(bundle)
    if text is None:
        return {}
    try:
        entries = parse_catalog(text, CATALOG)
    except EdgeAgentError as error:
        raise refused(CATALOG, f"is not a catalog ({error.message})", "make it again") from error
    for entry in entries.values():
        if entry.larger is not None and entry.larger not in entries:
            raise refused(
                CATALOG, f"has no entry {entry.larger!r}, which {entry.id!r} names", "make it again"
            )
    return entries


def _profile_text(bundle: Bundle, check_profile: CheckProfile) -> str | None:
    if bundle.manifest.profile is None:
        return None
    text = bundle.text(PROFILE)
    try:
        name = check_profile(text, PROFILE)
    except EdgeAgentError as error:
        raise refused(PROFILE, f"is not a profile ({error.message})", "make it again") from error
    if name != bundle.manifest.profile:
        raise refused(
            PROFILE, f"is {name!r}, but {bundle.manifest.profile!r} is listed", "make it again"
        )
    return text


# -- disk --------------------------------------------------------------------------------------


def _check_space(bundle: Bundle, library: Library) -> None:
    """Check for room for every new part: nothing old is deleted before everything is staged."""
    have = {
        sha256
        for model_id in bundle.manifest.models
        if (model := read_record(library.folder(model_id))) is not None
        for sha256 in model.digests().values()
    }
    place = library.models_dir
    while not place.exists():
        place = place.parent
    need = RESERVE_BYTES + sum(
        part.size_bytes for part in bundle.manifest.parts if part.sha256 not in have
    )
    free = shutil.disk_usage(place).free
    if free < need:
        raise InstallFailed(
            f"Bundle {bundle.manifest.title!r} needs {need} bytes of disk space, {library.models_dir} has"
            f" {free} free: remove a model, or set models.dir to a larger disk"
        )


@contextmanager
def _staged_wheels(bundle: Bundle, folder: BundleFolder) -> Iterator[Path | None]:
    """The wheels in a staging folder, deleted at the end unless moved into place; None without wheels."""
    wheels = bundle.manifest.wheels
    if not wheels:
        yield None
        return
    place = folder.wheels(bundle.manifest)
    staged = place.with_name(f".{place.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        for part in wheels:
            path = staged / part.name.rpartition("/")[2]
            with path.open("wb") as file:
                for chunk in bundle.chunks(part):
                    file.write(chunk)
            sync_file(path)
        sync_folder(staged)
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _place_wheels(staged: Path, place: Path) -> Path:
    # It exists only if this same bundle was installed before: the same wheels, but maybe damaged.
    shutil.rmtree(place, ignore_errors=True)
    staged.replace(place)
    sync_folder(place.parent)
    return place


def _tidy(folder: BundleFolder, bundle: Bundle) -> None:
    """Delete the wheels of other versions. A failure here only costs disk space."""
    place = folder.wheels(bundle.manifest)
    for path in place.parent.glob("*"):
        if path != place:
            shutil.rmtree(path, ignore_errors=True)
