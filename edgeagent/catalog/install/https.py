"""Downloads over https: interrupted ones are continued; redirects must stay on https.

If the server states a digest (`X-Linked-ETag` of Hugging Face, `Repr-Digest`, `Digest`), the file must
have it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from edgeagent.catalog.digest import Progress, chunks, write_hashed
from edgeagent.catalog.install.wheel_download import FetchFailed

CONNECT_TIMEOUT_S = 30.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha-256=:?([A-Za-z0-9+/=]+):?", re.IGNORECASE)
# A server that does not answer HEAD may still deliver the file.
_NO_HEAD = frozenset({403, 405, 501})


@dataclass(frozen=True)
class UrlFacts:
    """What a server says about a file before it is fetched; None for what it does not say."""

    size_bytes: int | None = None
    sha256: str | None = None


def facts_of(url: str) -> UrlFacts:
    """Ask for size and digest. Raises: FetchFailed."""
    with _told(url), _client(url) as client:
        response = client.head(url, headers={"Accept-Encoding": "identity"})
        if response.status_code in _NO_HEAD:
            return UrlFacts()
        if response.status_code != 200:
            raise FetchFailed(f"{url} answered {response.status_code}: check the address")
        length = response.headers.get("content-length", "")
        return UrlFacts(int(length) if length.isdigit() else None, stated_digest(response))


def stated_digest(response: httpx.Response) -> str | None:
    """The sha256 of the file as stated by one of the servers in the redirect chain."""
    for one in (*response.history, response):
        linked: str = one.headers.get("x-linked-etag", "").strip('"')
        if _SHA256.fullmatch(linked):
            return linked
        for name in ("repr-digest", "digest"):
            if found := _DIGEST.search(one.headers.get(name, "")):
                try:
                    raw = base64.b64decode(found[1], validate=True)
                except (binascii.Error, ValueError):
                    continue
                if len(raw) == 32:
                    return raw.hex()
    return None


def fetch_from_url(
    url: str, target: Path, progress: Progress, total_bytes: int | None
) -> tuple[str, int]:
    """Download `url`, continuing an earlier attempt at the same file; return its (sha256, size in bytes).
    Raises: FetchFailed; OSError if writing fails."""
    tag_path = target.with_name(target.name + ".etag")
    have = target.stat().st_size if target.exists() else 0
    tag = tag_path.read_text(encoding="utf-8") if tag_path.exists() else ""
    # Without an entity tag, the rest might belong to a different file.
    headers = {"Accept-Encoding": "identity"}
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with _told(url), _client(url) as client, client.stream("GET", url, headers=headers) as response:
        if response.status_code not in (200, 206):
            if response.status_code == 416:
                # Our part is not the beginning of the current file.
                target.unlink(missing_ok=True)
            raise FetchFailed(f"{url} answered {response.status_code}: check the address")
        begin = f"bytes {have}-"
        goes_on = response.status_code == 206 and response.headers.get(
            "content-range", ""
        ).startswith(begin)
        if response.status_code == 206 and not goes_on:
            target.unlink(missing_ok=True)
            raise FetchFailed(f"{url} answered with a different part than requested: try again")
        tag_path.write_text(response.headers.get("etag", ""), encoding="utf-8")
        done = _write_response(response, target, have if goes_on else 0, progress, total_bytes)
        stated = stated_digest(response)
        if stated is not None and stated != done[0]:
            target.unlink()
            raise FetchFailed(
                f"{url} gave a file with sha256 {done[0]}, but its server states {stated}: install again"
            )
        return done


def _client(url: str) -> httpx.Client:
    """A client that follows redirects of `url`, from https only to https."""

    def check(request: httpx.Request) -> None:
        if url.lower().startswith("https:") and request.url.scheme != "https":
            raise FetchFailed(
                f"{url} redirects to {request.url}, which is not https: get the file from another source"
            )

    timeout = httpx.Timeout(CONNECT_TIMEOUT_S)
    return httpx.Client(follow_redirects=True, timeout=timeout, event_hooks={"request": [check]})


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
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
        # Write pieces as they arrive: collecting larger ones would lose the last on a broken connection.
        yield from response.iter_bytes()

    # The beginning is hashed again but not written again, to spare the flash.
    with target.open("r+b" if have else "wb") as out:
        sha256, size = write_hashed(pieces(), _SkipWriter(out, have), progress, total)
    if length.isdigit() and size != total:
        raise FetchFailed(
            f"{response.url} ended after {size} bytes of {total}: install again, it continues"
        )
    return sha256, size


class _SkipWriter:
    """A file that already has the first `skip` bytes of what is written to it."""

    def __init__(self, file: BinaryIO, skip: int) -> None:
        self.file, self.skip = file, skip
        file.seek(skip)

    def write(self, data: bytes) -> int:
        kept = data[self.skip :] if self.skip else data
        self.skip = max(0, self.skip - len(data))
        self.file.write(kept)
        return len(data)
