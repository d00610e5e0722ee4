"""Installed libraries older than the version that fixed a vulnerability of this server."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

from edgeagent.store.connection import LEAST_SQLITE, sqlite_version


@dataclass(frozen=True)
class MinimumVersion:
    """The minimum version of a distribution, and the vulnerability of older versions."""

    name: str
    least: str
    reason: str


# Only vulnerabilities that an input of this server can reach. pyproject.toml requires at least these
# versions; an environment that was assembled by hand may have older ones.
MINIMUM_VERSIONS = (
    MinimumVersion("h11", "0.16.0", "requests can be smuggled in chunked bodies (CVE-2025-43859)"),
    MinimumVersion("jinja2", "3.1.6", "chat templates leave the sandbox (CVE-2025-27516)"),
    MinimumVersion("litestar", "2.20.0", "allowed origins match as patterns (CVE-2026-25478)"),
    MinimumVersion(
        "multipart", "1.3.1", "a header of an upload takes exponential time (CVE-2026-28356)"
    ),
    MinimumVersion(
        "uvicorn", "0.11.7", "requests write lines of their own into the log (PYSEC-2020-150)"
    ),
    MinimumVersion("cryptography", "46.0.5", "keys on some curves go unchecked (CVE-2026-26007)"),
    MinimumVersion("pydantic", "2.4.0", "a pattern takes quadratic time (CVE-2024-3772)"),
    MinimumVersion(
        "llama-cpp-python", "0.3.36", "older llama.cpp write past memory on hostile GGUF files"
    ),
)


def find_outdated() -> list[str]:
    """One line for each library older than its minimum version; missing libraries are reported elsewhere."""
    found = [
        f"{floor.name} {version} is known to be bad: {floor.reason}. "
        f"Upgrade to {floor.least} or later."
        for floor in MINIMUM_VERSIONS
        if (version := _installed(floor.name)) is not None and is_below(version, floor.least)
    ]
    if sqlite_version() < LEAST_SQLITE:
        least = ".".join(map(str, LEAST_SQLITE))
        found.append(
            f"SQLite {'.'.join(map(str, sqlite_version()))} is known to be bad: it can corrupt a "
            f"database in WAL mode, the daemon does not open one with it. Upgrade sqlcipher3 to one "
            f"with SQLite {least} or later."
        )
    return found


def is_below(version: str, least: str) -> bool:
    """Whether `version` is older than `least`. A pre-release of `least` is; a post-release or a build is
    not."""
    one, two = _release(version), _release(least)
    length = max(len(one), len(two))
    padded = one + (0,) * (length - len(one))
    wanted = two + (0,) * (length - len(two))
    return padded < wanted or (padded == wanted and _is_preview(version))


def _release(version: str) -> tuple[int, ...]:
    leading = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    return tuple(map(int, leading[1].split("."))) if leading else ()


def _is_preview(version: str) -> bool:
    """Whether it is an alpha, beta, candidate or development release (PEP 440)."""
    return (
        re.match(r"v?[\d!.]+?[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)\d*", version) is not None
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
