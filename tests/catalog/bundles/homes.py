"""Bundles to test with: a home that makes them, a device that takes them, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeagent.catalog.bundles.installer import InstalledBundle, install_bundle
from edgeagent.catalog.bundles.manifest import (
    BLOCK,
    MANIFEST,
    SIGNATURE,
    BundleManifest,
    signature_line,
    tar_header,
)
from edgeagent.catalog.bundles.signing import SigningKey, TrustList, load_signing_key, make_key_pair
from edgeagent.catalog.bundles.writer import BundleContents, write_bundle
from edgeagent.catalog.catalog_file import Catalog, parse_catalog
from edgeagent.catalog.install.installer import install_file
from edgeagent.catalog.install.staging import Trial
from edgeagent.catalog.model_library import Library

PROFILE = 'name = "shed"\nversion = 1\n'
CATALOG = """
[models.ant]
name = "Ant"
family = "llama"
n_params = 260_032
task = "chat"
licence = "MIT"
larger = "bee"
[[models.ant.variants]]
quant = "F32"
file = "ant.gguf"
sources = [{ kind = "path", path = "/nowhere/ant.gguf" }]
[models.bee]
name = "Bee, the \\"larger\\" one \U0001f41d"
family = "llama"
n_params = 260_032
task = "chat"
licence = "MIT"
[[models.bee.variants]]
quant = "F32"
file = "bee.gguf"
sources = [{ kind = "url", url = "https://example.org/bee.gguf" }]
"""


@dataclass
class Home:
    """Where bundles are made: two models, their catalog, a key."""

    folder: Path
    library: Library
    catalog: Catalog
    key: SigningKey

    @classmethod
    def make(cls, folder: Path, model: Path) -> Home:
        library = Library(folder / "models", folder / "shipped")
        path, _, _ = make_key_pair(folder / "keys", "home")
        home = cls(folder, library, Catalog(parse_catalog(CATALOG, "test")), load_signing_key(path))
        for i, model_id in enumerate(("ant", "bee")):
            home.change(model_id, model, i)
        return home

    def change(self, model_id: str, model: Path, last_byte: int) -> None:
        """Install another good model under that id: only the last weight differs."""
        copy = self.folder / f"{model_id}-{last_byte}.gguf"
        copy.write_bytes(model.read_bytes()[:-1] + bytes([last_byte]))
        install_file(copy, self.library, model_id=model_id)

    def bundle(
        self, out: Path, version: int = 1, *, wheels: bool = True, **changes: object
    ) -> Path:
        folder = self.folder / "wheels"
        folder.mkdir(exist_ok=True)
        (folder / "agent-1.0+x!2-py3-none-any.whl").write_bytes(b"a wheel " * 100)
        values = {
            "name": "garden", "version": version, "models": ("ant", "bee"),
            "profile": ("shed", PROFILE), "wheels": folder if wheels else None,
        }  # fmt: skip
        write_bundle(
            out, BundleContents(**(values | changes)), self.library, self.catalog, self.key
        )
        return out

    @property
    def trust(self) -> TrustList:
        return TrustList([self.key.public], "the test")


def take(
    bundle: Path, library: Library, trust: TrustList, trial: Trial | None = None
) -> InstalledBundle:
    return install_bundle(
        bundle, library, trust, check_profile=lambda text, place: "shed", trial=trial
    )


def everything(folder: Path) -> dict[str, bytes | None]:
    """What lies below a folder: relative path -> content, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@dataclass
class Member:
    """One tar member as it lies in the file, headers and padding included."""

    name: str
    header: bytes
    content: bytes
    padding: bytes

    @property
    def raw(self) -> bytes:
        return self.header + self.content + self.padding


def members(data: bytes) -> Iterator[Member]:
    """Take a bundle apart with nothing but the sizes in the tar headers."""
    at = 0
    while at < len(data) - 2 * BLOCK:
        header = data[at : at + BLOCK]
        name, size = header[:100].rstrip(b"\0").decode(), int(header[124:135], 8)
        content = data[at + BLOCK : at + BLOCK + size]
        end = at + BLOCK + size + -size % BLOCK
        yield Member(name, header, content, data[at + BLOCK + size : end])
        at = end


def member(name: str, content: bytes) -> bytes:
    return tar_header(name, len(content)) + content + bytes(-len(content) % BLOCK)


def spoiled(data: bytes) -> Iterator[tuple[str, bytes, str]]:
    """(what was done, the file, the part that must be named), for every way but flipped bytes."""
    parts = list(members(data))
    end = bytes(2 * BLOCK)

    def joined(chosen: list[Member]) -> bytes:
        return b"".join(part.raw for part in chosen) + end

    assert joined(parts) == data
    for i, part in enumerate(parts):
        rest = [*parts[:i], *parts[i + 1 :]]
        # Without manifest and signature the first thing that is missing is these themselves.
        yield f"{part.name} left out", joined(rest), part.name
        if i < len(parts) - 1:
            swapped = [*parts[:i], parts[i + 1], part, *parts[i + 2 :]]
            yield f"{part.name} swapped with the next", joined(swapped), part.name
        behind = parts[i + 1].name if i < len(parts) - 1 else part.name
        yield f"{part.name} twice", joined([*parts[: i + 1], part, *parts[i + 1 :]]), behind
        yield f"{part.name} again at the end", joined([*parts, part]), part.name
        cut = len(joined(parts[:i])) - len(end)
        yield f"cut before {part.name}", data[:cut], part.name
        yield f"cut in the header of {part.name}", data[: cut + 100], part.name
        yield f"cut in {part.name}", data[: cut + BLOCK + len(part.content) // 2], part.name
    for name in ("../evil", "/etc/passwd", "models/ant/../../evil", "extra.toml", "catalog.toml "):
        extra = Member(name, b"", member(name, b"evil"), b"")
        yield f"{name!r} at the end", joined([*parts, extra]), name.rstrip("/")
        yield f"{name!r} first", joined([extra, *parts]), MANIFEST
        yield f"{name!r} in the midst", joined([*parts[:3], extra, *parts[3:]]), parts[3].name
    yield "one byte behind the end", data + b"\0", "end of file"
    yield "a block behind the end", data + bytes(BLOCK), "end of file"
    yield "one byte short", data[:-1], "end of file"
    yield "without its end", data[: -len(end)], "end of file"
    yield "another file", b"PK\3\4" + data, MANIFEST
    yield "nothing", b"", MANIFEST
    yield "a huge manifest", _with_size(data, 1 << 40), MANIFEST
    yield (
        "an empty signature",
        joined([parts[0], Member(SIGNATURE, b"", member(SIGNATURE, b""), b""), *parts[2:]]),
        SIGNATURE,
    )


def _with_size(data: bytes, size: int) -> bytes:
    return tar_header(MANIFEST, size) + data[BLOCK:]


def signed_again(data: bytes, manifest: BundleManifest, key: SigningKey) -> bytes:
    """The bundle with another manifest, rightly signed: what only the key's owner could do."""
    raw = manifest.encode()
    rest = b"".join(part.raw for part in list(members(data))[2:])
    head = member(MANIFEST, raw) + member(SIGNATURE, signature_line(key, raw))
    return head + rest + bytes(2 * BLOCK)
