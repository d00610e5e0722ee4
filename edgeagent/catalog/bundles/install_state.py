"""The installed parts of bundles in the models directory, and the last installed version of each bundle.

    <state_dir>/bundles/          outside the models directory, where an old state could be restored
      NAME.toml                   the last installed version of the bundle NAME; written last
      models.by-id.toml           for each model: the highest version of any bundle that contained it
    <models_dir>/.bundles/
      state/NAME.toml             where earlier releases kept NAME.toml; read until a new one is written
      catalog/NAME.toml           its catalog entries
      profiles/PROFILE.toml       its device profile
      wheels/NAME/VERSION/*.whl   wheels for installing edgeagent itself

Source: the version counter against rollback, after TUF (specification, 5.3.5).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeagent.catalog.bundles.manifest import MANIFEST, BundleManifest
from edgeagent.catalog.exclusive_lock import exclusive_lock
from edgeagent.catalog.install_record import read_record
from edgeagent.catalog.model_ids import folder_name
from edgeagent.catalog.toml_text import to_toml
from edgeagent.durable import open_regular, replace_text
from edgeagent.errors import BundleRefused, InstallFailed
from edgeagent.settings import BUNDLES

# Bundle names contain no dot, so this name is free.
MODELS = "models.by-id.toml"
_MOST_BYTES = 64 << 20


class BundleState(Struct, frozen=True, kw_only=True):
    """The last installed bundle of one name. `installed_at` in UTC (ISO 8601)."""

    name: str
    version: int
    manifest_sha256: str
    key_id: str
    installed_at: str
    models: tuple[str, ...] = ()
    profile: str | None = None


class ModelState(Struct, frozen=True, kw_only=True):
    """The bundle with the highest version that contained a model, and the digest of the model's file."""

    version: int
    bundle: str
    sha256: str


class BundleFolder:
    """The paths of installed bundles below one models directory, and their counters in `state_dir`.

    Without a `state_dir` the counters are in the models directory.
    """

    def __init__(self, models_dir: Path, state_dir: Path | None = None) -> None:
        self.root = models_dir / BUNDLES
        self._counters = self.root / "state" if state_dir is None else state_dir / "bundles"

    @property
    def profiles(self) -> Path:
        """A directory for `device.profile_files.load_all`, to be read before the user's own."""
        return self.root / "profiles"

    def catalog(self, name: str) -> Path:
        return self.root / "catalog" / f"{name}.toml"

    def profile(self, profile: str) -> Path:
        return self.profiles / f"{profile}.toml"

    def wheels(self, manifest: BundleManifest) -> Path:
        return self.root / "wheels" / manifest.name / str(manifest.version)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Allow one bundle installation at a time in all processes. The kernel frees the lock on exit."""
        busy = f"Another process is installing a bundle into {self.root.parent}: wait for it"
        with exclusive_lock(self.root / "lock", InstallFailed(busy)):
            yield

    def last(self, name: str) -> BundleState | None:
        """The last installed bundle of that name; None if there was none.

        Raises: BundleRefused if its record cannot be read: a lost counter must not go unnoticed.
        """
        path = self._state(name)
        if not path.exists():
            path = self.root / "state" / path.name
        try:
            with open_regular(path, _MOST_BYTES) as file:
                return msgspec.convert(tomllib.load(file), BundleState)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise BundleRefused(
                f"The last installed version of bundle {name!r} cannot be read from {path}"
                f" ({error}): delete that file to accept any version"
            ) from error

    def check_version(self, manifest: BundleManifest, manifest_sha256: str) -> None:
        """Refuse a bundle that is older than the last of its name, or a different one with the same
        version.

        Raises: BundleRefused. The identical bundle may be installed again, which repairs the installation.
        """
        self._check_models(manifest)
        last = self.last(manifest.name)
        if last is None or manifest.version > last.version:
            return
        if manifest_sha256 == last.manifest_sha256:
            return
        other = "another bundle of version" if manifest.version == last.version else "version"
        raise BundleRefused(
            f"Part {MANIFEST!r}: bundle {manifest.name!r} is {other} {manifest.version},"
            f" but version {last.version} was installed on {last.installed_at[:10]} and only a higher"
            f" one may replace it: make a new bundle with a higher --counter",
            param=MANIFEST,
        )

    def _check_models(self, manifest: BundleManifest) -> None:
        """Refuse to replace a model by an older one from a bundle of another name.

        Raises: BundleRefused.
        """
        known = self.models()
        for model_id in manifest.models:
            last = known.get(model_id)
            if last is None or manifest.version > last.version:
                continue
            if _digest_of(manifest, model_id) != last.sha256:
                raise BundleRefused(
                    f"Part {MANIFEST!r}: version {manifest.version} of bundle {manifest.name!r} contains"
                    f" another {model_id!r} than version {last.version} of {last.bundle!r}, which was"
                    " installed here, and only a higher one may replace it: make a new bundle with a higher"
                    " --counter",
                    param=MANIFEST,
                )

    def models(self) -> dict[str, ModelState]:
        """The bundle that each model came from. Earlier releases recorded only bundles, whose models are
        included.

        Raises: BundleRefused if the counters cannot be read.
        """
        path = self._counters / MODELS
        try:
            with open_regular(path, _MOST_BYTES) as file:
                return msgspec.convert(tomllib.load(file), dict[str, ModelState])
        except FileNotFoundError:
            return self._models_of_earlier_releases()
        except (OSError, ValueError, RecursionError) as error:
            raise BundleRefused(
                f"The versions of models from bundles cannot be read from {path} ({error}):"
                " delete that file to accept any version"
            ) from error

    def _models_of_earlier_releases(self) -> dict[str, ModelState]:
        found: dict[str, ModelState] = {}
        for path in sorted((self.root / "state").glob("*.toml")):
            bundle = self.last(path.stem)
            for model_id in bundle.models if bundle is not None else ():
                assert bundle is not None
                if model_id not in found or bundle.version > found[model_id].version:
                    sha256 = _installed_digest(self.root.parent, model_id)
                    found[model_id] = ModelState(
                        version=bundle.version, bundle=bundle.name, sha256=sha256
                    )
        return found

    def record(self, manifest: BundleManifest, manifest_sha256: str, key_id: str) -> None:
        """Record that this bundle is installed. Raises: OSError."""
        state = BundleState(
            name=manifest.name,
            version=manifest.version,
            manifest_sha256=manifest_sha256,
            key_id=key_id,
            installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            models=manifest.models,
            profile=manifest.profile,
        )
        known = self.models()
        for model_id in manifest.models:
            if model_id not in known or manifest.version >= known[model_id].version:
                known[model_id] = ModelState(
                    version=manifest.version,
                    bundle=manifest.name,
                    sha256=_digest_of(manifest, model_id),
                )
        replace_text(self._counters / MODELS, to_toml(msgspec.to_builtins(known)))
        replace_text(self._state(manifest.name), to_toml(msgspec.to_builtins(state)))

    def _state(self, name: str) -> Path:
        return self._counters / f"{name}.toml"


def _digest_of(manifest: BundleManifest, model_id: str) -> str:
    """Identifies a model of a bundle: the digests of its files, without its record."""
    _, *parts = manifest.of_model(model_id)
    return _together(part.sha256 for part in parts)


def _installed_digest(models_dir: Path, model_id: str) -> str:
    model = read_record(models_dir / folder_name(model_id))
    return _together(model.digests().values()) if model is not None else ""


def _together(digests: Iterable[str]) -> str:
    return sha256("".join(sorted(digests)).encode()).hexdigest()
