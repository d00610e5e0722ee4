"""Hugging Face repositories: their file lists, and downloads. The only module that imports
huggingface_hub, which handles endpoints, tokens, proxies and the hub's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from edgeagent.catalog.catalog_file import HuggingFace
from edgeagent.catalog.digest import Progress, sha256_of
from edgeagent.catalog.install.model_reference import HubFile
from edgeagent.catalog.install.wheel_download import FetchFailed


def files_of(repo: str, revision: str) -> list[HubFile]:
    """The files of a repository, with the sizes and digests that the hub states. Raises: FetchFailed."""
    # Imported here: importing takes a second, and serving never needs it.
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _told(repo):
        tree = HfApi().list_repo_tree(repo, recursive=True, revision=revision)
        return [
            HubFile(one.path, one.size, one.lfs.sha256 if one.lfs is not None else None)
            for one in tree
            if isinstance(one, RepoFile)
        ]


def fetch_from_hub(
    source: HuggingFace, file: str, target: Path, progress: Progress
) -> tuple[str, int]:
    """Fetch a file of a repository to `target`; return its (sha256, size in bytes). Raises: FetchFailed;
    OSError if writing fails."""
    from huggingface_hub import hf_hub_download

    folder = target.parent / "hub"
    with _told(f"{source.repo}/{file}"):
        path = hf_hub_download(
            source.repo, file, revision=source.revision, local_dir=folder,
            tqdm_class=_watched_by(progress),
        )  # fmt: skip
    Path(path).replace(target)
    return sha256_of(target, progress), target.stat().st_size


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Translate the hub's errors; errors of our own disk pass unchanged."""
    try:
        yield
    except (httpx.HTTPError, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        raise FetchFailed(
            f"{what} could not be fetched from Hugging Face ({type(error).__name__}: {first}): check the"
            " name and the network, and for a gated model accept its licence and set HF_TOKEN"
        ) from error


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
