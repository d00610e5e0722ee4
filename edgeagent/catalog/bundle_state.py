"""What installed bundles left in the models directory, and which version of each was the last.

    <models_dir>/.bundles/
      state/NAME.toml             the last installed version of the bundle NAME; written last
      catalog/NAME.toml           its catalog entries
      profiles/PROFILE.toml       its device profile
      wheels/NAME/VERSION/*.whl   wheels to install edgeagent itself from

Source: the version counter against rollback, after TUF (its specification, 5.3.5).
"""

from __future__ import annotations

import fcntl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeagent.catalog.bundle_manifest import MANIFEST, Manifest
from edgeagent.catalog.durable import replace_text
from edgeagent.catalog.manifest import BUNDLES
from edgeagent.catalog.toml_text import to_toml
from edgeagent.errors import BundleRefused, InstallFailed


class BundleState(Struct, frozen=True, kw_only=True):
    """The bundle of one name that was installed last. `installed_at` in UTC (ISO 8601)."""

    name: str
    version: int
    manifest_sha256: str
    key_id: str
    installed_at: str
    models: tuple[str, ...] = ()
    profile: str | None = None


class BundleFolder:
    """The places of installed bundles below one models directory."""

    def __init__(self, models_dir: Path) -> None:
        self.root = models_dir / BUNDLES

    @property
    def profiles(self) -> Path:
        """A directory for `device.library.load_all`, to be read before the user's own."""
        return self.root / "profiles"

    def catalog(self, name: str) -> Path:
        return self.root / "catalog" / f"{name}.toml"

    def profile(self, profile: str) -> Path:
        return self.profiles / f"{profile}.toml"

    def wheels(self, manifest: Manifest) -> Path:
        return self.root / "wheels" / manifest.name / str(manifest.version)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One bundle at a time, over all processes. The kernel frees it if we die."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InstallFailed(
                    f"Another process installs a bundle into {self.root.parent}: wait for it"
                ) from error
            yield

    def last(self, name: str) -> BundleState | None:
        """The bundle of that name installed last, None if there was none.

        Raises: BundleRefused where its record cannot be read: a lost counter must not go unnoticed.
        """
        path = self._state(name)
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
            return msgspec.convert(tree, BundleState)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise BundleRefused(
                f"The version of bundle {name!r} installed last cannot be read from {path}"
                f" ({error}): delete that file to accept any version"
            ) from error

    def check_version(self, manifest: Manifest, manifest_sha256: str) -> None:
        """Refuse a bundle older than the last of its name, or another one of the same version.

        Raises: BundleRefused. The identical bundle may be installed again, which repairs.
        """
        last = self.last(manifest.name)
        if last is None or manifest.version > last.version:
            return
        if manifest_sha256 == last.manifest_sha256:
            return
        other = "another bundle of version" if manifest.version == last.version else "version"
        raise BundleRefused(
            f"Part {MANIFEST!r}: bundle {manifest.name!r} is {other} {manifest.version},"
            f" version {last.version} was installed on {last.installed_at[:10]} and only a higher"
            f" one may replace it: make a new bundle with a higher --counter",
            param=MANIFEST,
        )

    def record(self, manifest: Manifest, manifest_sha256: str, key_id: str) -> None:
        """Remember that this bundle is installed. Raises: OSError."""
        state = BundleState(
            name=manifest.name,
            version=manifest.version,
            manifest_sha256=manifest_sha256,
            key_id=key_id,
            installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            models=manifest.models,
            profile=manifest.profile,
        )
        replace_text(self._state(manifest.name), to_toml(msgspec.to_builtins(state)))

    def _state(self, name: str) -> Path:
        return self.root / "state" / f"{name}.toml"
