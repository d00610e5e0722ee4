"""The manifest of a bundle: the signed list of its parts.

A bundle is an uncompressed tar file that contains only regular files:

    manifest.json              this list, as canonical JSON
    manifest.sig               one line: key id and Ed25519 signature over the manifest
    catalog.toml               the entries of its models
    profile.toml               a device profile
    models/<folder>/...        each model's files and its installed.toml
    wheels/*.whl               for an offline install of edgeagent itself

It is tar and not zip, because tar is read in one direction, has no second directory at its end that could
contradict the first, and anybody can list it with `tar tvf`. Weights do not compress. For a given name and
size, a part's tar header has exactly one valid form (`tar_header`), so the reader compares headers and
parses none; links, devices and owners cannot be expressed.
"""

from __future__ import annotations

import re
import tarfile
from typing import Annotated

import msgspec
from msgspec import Struct

from edgeagent.catalog.bundles.signing import SIGNATURE_BYTES, PublicKey, SigningKey, TrustList
from edgeagent.catalog.model_ids import folder_name, is_id
from edgeagent.errors import BundleRefused, KeyUnusable

FORMAT = 1
MANIFEST, SIGNATURE, CATALOG, PROFILE = (
    "manifest.json",
    "manifest.sig",
    "catalog.toml",
    "profile.toml",
)
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_TEXT_BYTES = 256 * 1024
MAX_PARTS = 2000
BLOCK = tarfile.BLOCKSIZE
# Two empty blocks end a tar file; records of 20 blocks only matter for tapes.
END = bytes(2 * BLOCK)

# Signed together with the manifest, so that a signature made for something else does not match.
_SIGNED = b"edgeagent bundle manifest 1\n"
_SIGNATURE = re.compile(rb"edgeagent-signature ([0-9a-f]{16}) ([0-9a-f]{128})\n")
SIGNATURE_PART_BYTES = len("edgeagent-signature ") + 16 + 1 + 2 * SIGNATURE_BYTES + 1

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
_FOLDER = r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.)){0,127}"
_FILE = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,199}"
_WHEEL = r"[A-Za-z0-9](?:[A-Za-z0-9_+!-]|\.(?!\.)){0,199}\.whl"
_PART_NAME = re.compile(rf"catalog\.toml|profile\.toml|models/{_FOLDER}/{_FILE}|wheels/{_WHEEL}")
RECORD = "installed.toml"

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class BundlePart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle. `size_bytes` of its content, without tar header and padding."""

    name: str
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
    sha256: Sha256

    @property
    def is_text(self) -> bool:
        """Whether it is read into memory: catalog, profile and records, but not weights or wheels."""
        return self.name.endswith(".toml")


class BundleManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The list of parts. `created` in UTC (ISO 8601); `version` must increase for each `name`.

    `models` holds ids; `profile` is the name of the profile in profile.toml.
    """

    format: int
    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    version: Annotated[int, msgspec.Meta(ge=1, le=(1 << 53) - 1)]
    created: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    made_by: Annotated[str, msgspec.Meta(max_length=100)]
    profile: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)] | None
    models: tuple[str, ...]
    parts: Annotated[tuple[BundlePart, ...], msgspec.Meta(max_length=MAX_PARTS)]

    @property
    def title(self) -> str:
        return f"{self.name} version {self.version}"

    @property
    def wheels(self) -> list[BundlePart]:
        return [part for part in self.parts if part.name.startswith("wheels/")]

    def part(self, name: str) -> BundlePart:
        """The part with that name, which must be listed."""
        return next(part for part in self.parts if part.name == name)

    def of_model(self, model_id: str) -> list[BundlePart]:
        """The parts of a model, its record first."""
        prefix = f"models/{folder_name(model_id)}/"
        found = [part for part in self.parts if part.name.startswith(prefix)]
        return sorted(found, key=lambda part: (part.name != prefix + RECORD, part.name))

    def encode(self) -> bytes:
        """The canonical form of this list: sorted keys, no spaces."""
        return msgspec.json.encode(self, order="deterministic")


def tar_header(name: str, size_bytes: int) -> bytes:
    """The tar header of a part, in whole blocks: no owner, no time, mode 0644."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size_bytes: int) -> bytes:
    """The bytes between the content of a part and the next whole block."""
    return bytes(-size_bytes % BLOCK)


def signature_line(key: SigningKey, manifest: bytes) -> bytes:
    """The content of manifest.sig."""
    signature = key.sign(_SIGNED + manifest)
    return f"edgeagent-signature {key.public.id} {signature.hex()}\n".encode()


def verify(manifest: bytes, line: bytes, trust: TrustList) -> PublicKey:
    """The trusted key that signed `manifest`, which is not parsed before that.

    Raises: BundleRefused naming manifest.sig, or manifest.json if the signature does not match.
    """
    found = _SIGNATURE.fullmatch(line)
    if found is None:
        raise refused(SIGNATURE, "is not a signature", "copy the bundle again")
    try:
        key = trust.key(found[1].decode())
    except KeyUnusable as error:
        raise BundleRefused(f"Part {SIGNATURE!r}: {error.message}", param=SIGNATURE) from error
    if not key.is_signed(_SIGNED + manifest, bytes.fromhex(found[2].decode())):
        raise refused(
            MANIFEST,
            f"or its signature was changed: the signature in {SIGNATURE!r} is not that of key"
            f" {key.id} over it",
        )
    return key


def decode(data: bytes) -> BundleManifest:
    """The manifest in `data`, whose signature was verified. Raises: BundleRefused."""
    try:
        manifest = msgspec.json.decode(data, type=BundleManifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise refused(MANIFEST, f"cannot be read ({error})", "make the bundle again") from error
    if manifest.format != FORMAT:
        raise refused(
            MANIFEST, f"has format {manifest.format}, this edgeagent reads {FORMAT}",
            "update edgeagent to the version that made the bundle",
        )  # fmt: skip
    if manifest.encode() != data:
        raise refused(MANIFEST, "is not in its canonical form", "make the bundle again")
    check(manifest)
    return manifest


def check(manifest: BundleManifest) -> None:
    """Checks across fields: names, duplicates, models without a record. Raises: BundleRefused."""
    seen: set[str] = set()
    for part in manifest.parts:
        if not _PART_NAME.fullmatch(part.name):
            raise refused(part.name, "has a name that is not allowed", "make the bundle again")
        # A USB stick or SD card may ignore case; then one would overwrite the other.
        if part.name.lower() in seen:
            raise refused(part.name, "is listed twice", "make the bundle again")
        if part.is_text and part.size_bytes > MAX_TEXT_BYTES:
            raise refused(part.name, f"has {part.size_bytes} bytes, the limit is {MAX_TEXT_BYTES}")
        seen.add(part.name.lower())
    _check_models(manifest)
    if (PROFILE in seen) != (manifest.profile is not None):
        raise refused(PROFILE, f"does not match the profile {manifest.profile!r} of the manifest")


def _check_models(manifest: BundleManifest) -> None:
    bad = [model_id for model_id in manifest.models if not is_id(model_id)]
    if bad or len(set(manifest.models)) != len(manifest.models):
        raise refused(MANIFEST, f"lists the models {manifest.models}, of which one is not valid")
    wanted = {folder_name(model_id) for model_id in manifest.models}
    for part in manifest.parts:
        if part.name.startswith("models/") and part.name.split("/")[1] not in wanted:
            raise refused(part.name, "belongs to no listed model")
    names = {part.name for part in manifest.parts}
    for folder in sorted(wanted):
        if f"models/{folder}/{RECORD}" not in names:
            raise refused(f"models/{folder}/{RECORD}", "is missing")
    if manifest.models and CATALOG not in names:
        raise refused(CATALOG, "is missing")


def refused(
    part: str, what: str, way_out: str = "do not use it, copy the bundle again"
) -> BundleRefused:
    """The error for a bad part."""
    return BundleRefused(f"Part {part[:300]!r} of the bundle {what}: {way_out}", param=part)
