"""Writes a bundle: hashes every part, signs the manifest, writes one file, and a minisign signature beside
it.

Each part is read twice, first for the manifest and then to be written; if it has changed in between, no
bundle is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgeagent.catalog.bundles import minisign
from edgeagent.catalog.bundles.manifest import (
    CATALOG,
    END,
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PROFILE,
    RECORD,
    SIGNATURE,
    BundleManifest,
    BundlePart,
    check,
    padding,
    signature_line,
    tar_header,
)
from edgeagent.catalog.bundles.signing import SigningKey
from edgeagent.catalog.catalog_file import Catalog, Entry
from edgeagent.catalog.digest import Progress, chunks, no_progress, sha256_of
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.model_ids import folder_name
from edgeagent.catalog.model_library import Library
from edgeagent.catalog.toml_text import to_toml
from edgeagent.errors import BundleRefused, InstallFailed
from edgeagent.types.version import VERSION


@dataclass(frozen=True, slots=True)
class BundleContents:
    """The contents for a new bundle. `profile` is a name and its TOML text."""

    name: str
    version: int
    models: Sequence[str]
    profile: tuple[str, str] | None = None
    wheels: Path | None = None


@dataclass(frozen=True, slots=True)
class _PartSource:
    """A part and the source of its bytes: a file, or memory."""

    part: BundlePart
    content: Path | bytes

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            yield from chunks(file)


def write_bundle(
    out: Path,
    contents: BundleContents,
    library: Library,
    catalog: Catalog,
    key: SigningKey,
    progress: Progress = no_progress,
) -> BundleManifest:
    """Write the bundle file `out` and its signature beside it (neither may exist), and return the
    manifest.

    Raises: ModelNotFound for a model that is not installed; BundleRefused for anything that the reader
    would refuse; InstallFailed if the file cannot be written.
    """
    signature = minisig_of(out)
    for path in (out, signature):
        if path.exists():
            raise InstallFailed(f"{path} exists: remove it, or name another file")
    try:
        pieces = list(_pieces(contents, library, catalog, progress))
        manifest = _manifest(contents, pieces)
        # Rename the bundle first: it is usable without the signature file, but not the reverse.
        with _replacing(signature) as beside, _replacing(out) as file:
            digest = minisign.digest()
            for data in _content(manifest.encode(), pieces, key, progress):
                digest.update(data)
                file.write(data)
            beside.write(key.minisig(digest.digest(), _comment(manifest)).encode())
            beside.flush()
            os.fsync(beside.fileno())
    except OSError as error:
        raise InstallFailed(
            f"Bundle {out} cannot be written ({error}): check the disk and the permissions"
        ) from error
    return manifest


def _manifest(contents: BundleContents, pieces: Iterable[_PartSource]) -> BundleManifest:
    manifest = BundleManifest(
        format=FORMAT,
        name=contents.name,
        version=contents.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        made_by=f"edgeagent {VERSION}",
        profile=contents.profile[0] if contents.profile else None,
        models=tuple(contents.models),
        parts=tuple(piece.part for piece in pieces),
    )
    try:
        # msgspec checks structs when it converts them, but not when they are constructed.
        msgspec.convert(msgspec.to_builtins(manifest), BundleManifest)
    except msgspec.ValidationError as error:
        raise BundleRefused(
            f"Bundle {contents.name[:80]!r} cannot be made ({error}): a name has lower-case"
            " letters, digits and '-'; a version is a whole number above 0"
        ) from error
    check(manifest)
    if len(manifest.encode()) > MAX_MANIFEST_BYTES:
        raise BundleRefused(f"{len(manifest.parts)} parts do not fit into a manifest: bundle fewer")
    return manifest


def minisig_of(bundle: Path) -> Path:
    """The path of the signature over the whole bundle file, as minisign expects it."""
    return bundle.with_name(bundle.name + minisign.SUFFIX)


def _comment(manifest: BundleManifest) -> str:
    """The comment that minisign shows for a verified bundle."""
    return f"edgeagent bundle {manifest.title}, made {manifest.created}"


def _content(
    manifest: bytes, pieces: list[_PartSource], key: SigningKey, progress: Progress
) -> Iterator[bytes]:
    """The bundle file from its first to its last byte."""
    for name, data in ((MANIFEST, manifest), (SIGNATURE, signature_line(key, manifest))):
        yield tar_header(name, len(data)) + data + padding(len(data))
    total, done = sum(piece.part.size_bytes for piece in pieces), 0
    for piece in pieces:
        part, digest = piece.part, hashlib.sha256()
        yield tar_header(part.name, part.size_bytes)
        for chunk in piece.chunks():
            digest.update(chunk)
            yield chunk
            done += len(chunk)
            progress("write", done, total)
        if digest.hexdigest() != part.sha256:
            raise BundleRefused(f"{part.name!r} changed while the bundle was made: make it again")
        yield padding(part.size_bytes)
    yield END


@contextmanager
def _replacing(out: Path) -> Iterator[BinaryIO]:
    """A file that is renamed into place when it is complete and on disk, and deleted otherwise."""
    draft = out.with_name(f".{out.name}.part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)


# -- the pieces --------------------------------------------------------------------------------


def _pieces(
    contents: BundleContents, library: Library, catalog: Catalog, progress: Progress
) -> Iterator[_PartSource]:
    if contents.models:
        yield _text(CATALOG, _catalog_text(contents.models, catalog))
    if contents.profile is not None:
        yield _text(PROFILE, contents.profile[1])
    for model_id in contents.models:
        yield from _of_model(library.resolve(model_id), progress)
    if contents.wheels is not None:
        wheels = sorted(contents.wheels.glob("*.whl"))
        if not wheels:
            raise InstallFailed(
                f"{contents.wheels} has no *.whl: 'pip wheel edgeagent -w {contents.wheels}' on"
                " a machine like the device makes them"
            )
        for path in wheels:
            yield _file(f"wheels/{path.name}", path, sha256_of(path, progress))


def _of_model(model: InstalledModel, progress: Progress) -> Iterator[_PartSource]:
    digests: dict[str, str | None] = {model.file: None, **model.digests()}
    record = f"models/{folder_name(model.id)}/{RECORD}"
    # For a dropped-in file, whose id comes from its name, the file is named after the id.
    main = f"{folder_name(model.id)}.gguf" if model.unmanaged else Path(model.file).name
    pieces, hashes = [], {}
    for file, recorded in digests.items():
        path = model.folder / file
        sha256 = sha256_of(path, progress)
        if recorded not in (None, sha256):
            raise BundleRefused(
                f"{file!r} of model {model.id!r} has sha256 {sha256}, but {recorded} is recorded:"
                f" 'edgeagent models install {model.id}' repairs it"
            )
        name = main if file == model.file else path.name
        hashes[name] = sha256
        pieces.append(_file(f"models/{folder_name(model.id)}/{name}", path, sha256))
    clean = msgspec.structs.replace(
        model, file=main, sha256=hashes.pop(main), extra=hashes, unmanaged=False,
        template_file=Path(model.template_file).name if model.template_file else None,
    )  # fmt: skip
    yield _text(record, clean.to_toml())
    yield from pieces


def _catalog_text(models: Iterable[str], catalog: Catalog) -> str:
    """The entries of the models and of those that they name as larger, so that no reference is broken."""
    wanted = [model_id for model_id in models if model_id in catalog]
    entries: dict[str, Entry] = {}
    while wanted:
        entry = catalog.entry(wanted.pop())
        entries[entry.id] = entry
        if entry.larger is not None and entry.larger not in entries:
            wanted.append(entry.larger)
    tree = {model_id: _tree(entries[model_id]) for model_id in sorted(entries)}
    return "# Written by edgeagent: the entries of a bundle's models.\n\n" + to_toml(
        {"models": tree}
    )


def _tree(entry: Entry) -> dict[str, object]:
    tree: dict[str, object] = msgspec.to_builtins(entry)
    return tree


def _text(name: str, text: str) -> _PartSource:
    data = text.encode()
    sha256 = hashlib.sha256(data).hexdigest()
    return _PartSource(BundlePart(name=name, size_bytes=len(data), sha256=sha256), data)


def _file(name: str, path: Path, sha256: str) -> _PartSource:
    return _PartSource(BundlePart(name=name, size_bytes=path.stat().st_size, sha256=sha256), path)
