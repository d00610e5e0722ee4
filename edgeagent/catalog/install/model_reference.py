"""What `models install` accepts besides an id of the catalog.

    models/my-own.gguf             a file
    stick/all-minilm               a folder with one GGUF file, or with a BERT encoder to convert
    https://example.org/m.gguf     an address
    hf.co/owner/repo:Q4_K_M        a repository of Hugging Face and a quantization of it
    hf.co/owner/repo/file.gguf     one file of it; also hf://..., huggingface.co/... and their web pages

Pure, except for checking whether a path exists.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgeagent.errors import InstallFailed

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HUB = re.compile(r"(?:https?://|hf://)?(?:www\.)?(?:hf\.co|huggingface\.co)/|hf://", re.IGNORECASE)
_NAME = r"[A-Za-z0-9][\w.-]*"
_REPO = re.compile(rf"({_NAME})/({_NAME}?)(?::([\w.-]+))?(?:/(.*))?")
_PAGE = re.compile(r"(?:blob|resolve|raw|tree)/([^/]+)/?(.*)")
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
# Best for small devices, if no quantization is named.
PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "Q5_K_M", "Q8_0", "F16", "BF16")
KINDS = "a catalog id, a .gguf file, a folder, https://.../NAME.gguf, or hf.co/OWNER/REPO:QUANT"


@dataclass(frozen=True)
class FileReference:
    path: Path


@dataclass(frozen=True)
class FolderReference:
    path: Path


@dataclass(frozen=True)
class UrlReference:
    url: str
    file: str


@dataclass(frozen=True)
class HubReference:
    """A repository, and either one `file` of it or a quantization."""

    repo: str
    file: str | None = None
    quant: str | None = None
    revision: str = "main"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository as the hub lists it. Sizes in bytes."""

    path: str
    size_bytes: int
    sha256: str | None = None


Reference = FileReference | FolderReference | UrlReference | HubReference


def read_reference(text: str) -> Reference | None:
    """The reference in `text`; None if it can only be an id. Raises: InstallFailed."""
    if found := _HUB.match(text):
        return _hub(text, text[found.end() :])
    if _SCHEME.match(text):
        return _url(text)
    path = Path(text).expanduser()
    if text.lower().endswith(".gguf") or path.is_file():
        return FileReference(path)
    return FolderReference(path) if path.is_dir() else None


def _hub(text: str, rest: str) -> HubReference:
    rest = unquote(rest.partition("?")[0].partition("#")[0]).strip("/")
    found = _REPO.fullmatch(rest)
    if found is None:
        raise InstallFailed(
            f"{text[:120]!r} does not name a repository: write hf.co/OWNER/REPO, with :QUANT or /FILE.gguf "
            "behind it."
        )
    repo, quant, file = f"{found[1]}/{found[2]}", found[3], found[4] or None
    revision = "main"
    if file and (page := _PAGE.fullmatch(file)):
        revision, file = page[1], page[2] or None
    if file is not None and not file.lower().endswith(".gguf"):
        raise InstallFailed(
            f"{file[:120]!r} of {repo} is not a .gguf file: name one, or leave it out and write "
            f"hf.co/{repo}:QUANT."
        )
    return HubReference(repo, file, quant, revision)


def _url(text: str) -> UrlReference:
    parts = urlsplit(text)
    if parts.scheme.lower() not in ("http", "https"):
        raise InstallFailed(f"{text[:120]!r} is not a supported address: give {KINDS}.")
    if parts.scheme.lower() == "http" and not _is_loopback(parts.hostname or ""):
        raise InstallFailed(
            f"{text[:120]!r} is not protected against changes in transit: write https:// for http://, or "
            "fetch the file and give its path."
        )
    if parts.username is not None or parts.password is not None:
        raise InstallFailed(
            f"The address at {parts.hostname} contains a password, which would be stored with the model: "
            "fetch the file and give its path."
        )
    file = unquote(parts.path).rpartition("/")[2]
    if not file.lower().endswith(".gguf"):
        raise InstallFailed(
            f"{text[:120]!r} does not end with the name of a .gguf file: give the address of the file itself."
        )
    return UrlReference(text, file)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def chosen_file(reference: HubReference, files: Sequence[HubFile]) -> HubFile:
    """The file of a repository that a reference means. Raises: InstallFailed."""
    repo = reference.repo
    if reference.file is not None:
        for file in files:
            if file.path == reference.file:
                return _whole(repo, [file], files)
        near = ", ".join(_names(files)[:8]) or "none"
        raise InstallFailed(
            f"{repo} has no file {reference.file[:120]!r}; its .gguf files: {near}. Name one of them."
        )
    usable = _models(files)
    if not usable:
        kind = "safetensors" if any(f.path.endswith(".safetensors") for f in files) else "other"
        raise InstallFailed(
            f"{repo} has no .gguf file, only {kind} files, which cannot be converted here: name a repository "
            f"with GGUF files; many are called {repo.partition('/')[2]}-GGUF."
        )
    wanted = (reference.quant,) if reference.quant else PREFERRED
    for quant in wanted:
        if found := [file for file in usable if _has_quant(file.path, quant)]:
            return _whole(repo, found, usable)
    if reference.quant is None and len(usable) == 1:
        return _whole(repo, usable, usable)
    said = (
        f"of the quantization {reference.quant!r}"
        if reference.quant
        else "of a preferred quantization"
    )
    raise InstallFailed(
        f"{repo} has no file {said}; it has {', '.join(_names(usable)[:12])}: write hf.co/{repo}/FILE.gguf."
    )


def _whole(repo: str, found: Sequence[HubFile], files: Sequence[HubFile]) -> HubFile:
    """The one with the shortest name among the files that are not split into parts."""
    single = [file for file in found if not _PART.search(file.path)]
    if single:
        return min(single, key=lambda file: (len(file.path), file.path))
    others = [f.path for f in _models(files) if not _PART.search(f.path)]
    way_out = f"choose {', '.join(others[:6])}" if others else "choose another repository"
    n_parts = _PART.search(found[0].path)
    raise InstallFailed(
        f"{found[0].path} of {repo} is one of {int(n_parts[1]) if n_parts else 0} parts, and split models "
        f"are not supported: {way_out}, or join the parts with llama-gguf-split --merge."
    )


def _models(files: Sequence[HubFile]) -> list[HubFile]:
    """The GGUF files that are complete models."""
    return [
        file
        for file in files
        if file.path.lower().endswith(".gguf")
        and not re.search(r"mmproj|imatrix", file.path, re.IGNORECASE)
    ]


def _names(files: Sequence[HubFile]) -> list[str]:
    return sorted(file.path for file in _models(files))


def _has_quant(path: str, quant: str) -> bool:
    """Whether a file's name contains a quantization as a separate word."""
    name = path.rpartition("/")[2]
    pattern = rf"(?:^|[-._]){re.escape(quant.removesuffix('.gguf'))}(?:[-.]|$)"
    return re.search(pattern, name, re.IGNORECASE) is not None


def file_in_folder(folder: Path) -> Path | None:
    """The only model of a folder; None if it has one to convert instead. Raises: InstallFailed."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise InstallFailed(
            f"Folder {folder} cannot be read ({error.strerror}): check its permissions."
        ) from error
    files = _models([HubFile(name, 0) for name in names])
    if len(files) == 1 and not _PART.search(files[0].path):
        return folder / files[0].path
    parts = [file.path for file in files if _PART.search(file.path)]
    if parts and len(parts) == len(files):
        raise InstallFailed(
            f"Folder {folder} has a model in {len(parts)} parts, which is not supported: join them with "
            "llama-gguf-split --merge, and give the joined file."
        )
    if files:
        raise InstallFailed(
            f"Folder {folder} has {len(files)} models, {', '.join(f.path for f in files[:8])}: give the path "
            "of one of them."
        )
    if {"config.json", "vocab.txt", "model.safetensors"} <= set(names):
        return None
    if any(name.endswith(".safetensors") for name in names):
        raise InstallFailed(
            f"Folder {folder} has a model as safetensors; of these only BERT encoders with config.json, "
            "vocab.txt and model.safetensors are converted: give a GGUF of the model."
        )
    raise InstallFailed(
        f"Folder {folder} has no .gguf file: give the folder or the file of a model."
    )
