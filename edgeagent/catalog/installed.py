"""Which models are installed, what each is called and can do, and which of them may be served.

Event loop's thread only. The directories are listed at most every two seconds, and at once for a name
that is not known; headers are read by a process of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from edgeagent.catalog.aliases import Aliases
from edgeagent.catalog.approvals import Approvals
from edgeagent.catalog.assistant_intents import Assistant, read_assistant
from edgeagent.catalog.catalog_file import Catalog, load_catalog
from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.integrity import Integrity
from edgeagent.catalog.kept_facts import KeptFacts
from edgeagent.catalog.model_ids import is_id
from edgeagent.catalog.model_library import Library, shipped_models_dir
from edgeagent.errors import EdgeAgentError, ModelNotFound
from edgeagent.settings import ResolvedSettings, Settings
from edgeagent.types.engine_config import FileIdentity, Task
from edgeagent.types.model_summary import ModelSummary
from edgeagent.types.sampling import Sampling
from edgeagent.types.template import TemplateFacts

logger = logging.getLogger(__name__)

LISTING_AGE_S = 2.0
# What a worker can do for the catalog's tasks; the catalog has other tasks too.
TASKS: dict[str, Task] = {
    "chat": "generate",
    "assistant": "generate",
    "embedding": "embed",
    "rerank": "rerank",
    "speech": "transcribe",
}


class InstalledModels:
    """The models in the library's directories. `named` are those that the administrator's settings name,
    which need no approval."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        catalog: Catalog,
        *,
        named: frozenset[str] = frozenset(),
    ) -> None:
        self._settings = settings
        self._library = library
        self._catalog = catalog
        self._aliases = Aliases(settings.models.aliases)
        approvals = library.approvals or Approvals(settings.state_dir)
        self.integrity = Integrity(library, approvals, named)
        self._facts = KeptFacts(settings.state_dir)
        self._listing: dict[str, InstalledModel] = {}
        self._waiting: dict[str, InstalledModel] = {}
        self._adapters: dict[str, InstalledModel] = {}
        self._parts: dict[str, InstalledModel] = {}
        self._listed_s = float("-inf")
        self._tasks: dict[tuple[Path, int], Task] = {}  # of models that the catalog does not know
        self._templates: dict[tuple[Path, int, str | None], TemplateFacts] = {}
        self._assistants: dict[str, Assistant] = {}  # as long as the listing

    @classmethod
    def of(cls, resolved: ResolvedSettings) -> InstalledModels:
        """Those that the settings point to."""
        settings = resolved.settings
        return cls(
            settings,
            Library(settings.effective_models_dir, settings.models.bundled_dir, settings.state_dir),
            load_catalog(
                shipped_models_dir() / "catalog.toml",
                settings.effective_models_dir / "catalog.toml",
            ),
            named=named_models(resolved),
        )

    def installed(self) -> list[InstalledModel]:
        """Every model that a worker can run and that may be served, by id. A directory that cannot be read
        has none."""
        now = time.monotonic()
        if now - self._listed_s > LISTING_AGE_S:
            self._listed_s = now
            self._assistants = {}
            try:
                found, adapters = self._library.installed(), self._library.adapters()
                parts = self._library.parts()
            except EdgeAgentError as exc:
                logger.error("models_dir_unreadable %s", exc.message)
                found, adapters, parts = [], [], []
            found = [model for model in found if self._is_for_workers(model)]
            served, waiting = self._sorted_out([*found, *adapters, *parts])
            self._waiting = waiting
            self._parts = {one: m for one, m in served.items() if m.is_part}
            listed = served.keys() - self._parts.keys()
            self._listing = {one: served[one] for one in sorted(listed) if not served[one].base}
            self._adapters = {one: m for one, m in served.items() if m.base in self._listing}
        return list(self._listing.values())

    def part(self, model_id: str) -> InstalledModel | None:
        """The part of other models with this id, which no client may name."""
        self.installed()
        return self._parts.get(model_id)

    def loadable(self, model_id: str) -> InstalledModel:
        """A part of other models, or what `find` finds. Raises as `find`."""
        return self.part(model_id) or self.find(model_id)

    def has(self, model_id: str) -> bool:
        """Whether the model may be served here."""
        self.installed()
        return model_id in self._listing

    def adapters(self) -> list[InstalledModel]:
        """The LoRA adapters of installed models that may be served, by id."""
        self.installed()
        return list(self._adapters.values())

    def adapters_of(self, model_id: str) -> list[InstalledModel]:
        """The LoRA adapters of one model that may be served."""
        return [adapter for adapter in self.adapters() if adapter.base == model_id]

    def adapter(self, name: str) -> InstalledModel | None:
        """The LoRA adapter of this id; one that was just installed is found, too."""
        self.installed()
        found = self._adapters.get(name)
        is_unknown = found is None and name not in self._listing and is_id(name)
        is_new = is_unknown and self._library.folder(name).is_dir()
        # One that was just installed anew has its file under another name.
        if is_new or (found is not None and not found.path.exists()):
            self._listed_s = float("-inf")
            self.installed()
            found = self._adapters.get(name)
        return found if found is not None and found.path.exists() else None

    def _sorted_out(
        self, found: list[InstalledModel]
    ) -> tuple[dict[str, InstalledModel], dict[str, InstalledModel]]:
        """Those that may be served, and those that wait for an approval."""
        served: dict[str, InstalledModel] = {}
        waiting: dict[str, InstalledModel] = {}
        for model in found:
            try:
                is_waiting = self.integrity.standing(model) == "waiting"
            except EdgeAgentError as exc:
                logger.error("approvals_unreadable %s", exc.message)
                is_waiting = True
            if is_waiting and model.id not in self._waiting:
                logger.warning("model_waiting model=%s hint='edgeagent models approve'", model.id)
            (waiting if is_waiting else served)[model.id] = model
        return served, waiting

    def _is_for_workers(self, model: InstalledModel) -> bool:
        return model.id not in self._catalog or self._catalog.entry(model.id).task in TASKS

    def task(self, model: InstalledModel) -> Task:
        """By the catalog, else by the file's header once `examine` has read it, until then "generate"."""
        if model.id in self._catalog:
            return TASKS[self._catalog.entry(model.id).task]
        if model.tools is not None:  # an assistant, also one whose file is a sentence encoder
            return "generate"
        return self._tasks.get((model.path, model.size_bytes), "generate")

    def with_task(self, task: Task) -> list[str]:
        """Ids of the installed models that do this."""
        return [model.id for model in self.installed() if self.task(model) == task]

    async def examine(self) -> None:
        """Learn the tasks of models that the catalog does not know, from their headers."""
        for model in self.installed():
            is_known = model.id in self._catalog or model.tools is not None
            if is_known or (model.path, model.size_bytes) in self._tasks:
                continue
            try:
                self.keep_task(model, await self.facts(model))
            except EdgeAgentError as exc:  # said again when somebody asks for it
                logger.warning("model_unreadable model=%s %s", model.id, exc.message)
                self._tasks[model.path, model.size_bytes] = "generate"

    def keep_task(self, model: InstalledModel, facts: ModelFacts) -> None:
        """Remember what a model does, by its header."""
        self._tasks[model.path, model.size_bytes] = facts.task

    async def card(self, model: InstalledModel) -> ModelSummary:
        """What the catalog says of a model, else its own header. A model that cannot be read has little
        to say."""
        family, n_params, quant, licence = "", 0, model.quant, ""
        if model.id in self._catalog:
            entry = self._catalog.entry(model.id)
            family, n_params, licence = entry.family, entry.n_params, entry.licence
        else:
            with suppress(EdgeAgentError):
                facts = await self.facts(model)
                family, n_params = facts.architecture, facts.n_params
                quant = quant or facts.quant or ""
        modified_s = 0.0
        with suppress(OSError):
            modified_s = model.path.stat().st_mtime
        return ModelSummary(
            id=model.id,
            modified_s=modified_s,
            size_bytes=model.size_bytes,
            sha256=model.sha256 or "",
            family=family,
            quant=quant,
            n_params=n_params,
            licence=licence,
            task=self.task(model),
            template=self.template(model),
        )

    def template(self, model: InstalledModel) -> TemplateFacts | None:
        """What the model's chat template can show: as found at its install, else at its first load. None
        where it was neither tried nor loaded yet."""
        return model.template or self._templates.get(_template_key(model))

    def keep_template(self, model: InstalledModel, facts: TemplateFacts) -> None:
        """Remember what a model's template was found to show, for as long as this process runs."""
        self._templates[_template_key(model)] = facts

    async def facts(self, model: InstalledModel) -> ModelFacts:
        """What a model's header says, read by a process of its own and kept. Raises: GGUFRefused."""
        return await asyncio.to_thread(self._facts.of, model.path)

    def is_inspected(self, model: InstalledModel, identity: FileIdentity) -> bool:
        """Whether the header of a model's file was found sound, in this state of the file."""
        return self._facts.knows(model.path, identity)

    def hashed_share(self, model_id: str) -> float | None:
        """How much of a model's file is hashed, 0 to 1; None where it is not being hashed."""
        return self.integrity.share(model_id)

    def default_id(self) -> str | None:
        """The default model, or its larger one, or the first that generates text; None when none is
        installed."""
        ids = self.with_task("generate")
        wanted = self._settings.models.default
        for model_id in (wanted, self._larger(wanted)):
            if model_id in ids:
                return model_id
        return ids[0] if ids else None

    def _larger(self, model_id: str) -> str | None:
        return self._catalog.entry(model_id).larger if model_id in self._catalog else None

    def larger(self, model_id: str) -> str | None:
        """The model that takes over what this one cannot answer, where it is installed."""
        own = self._listing.get(model_id)
        larger = self._larger(model_id) or (own.larger if own is not None else None)
        return larger if larger in self.with_task("generate") else None

    def assistant(self, model_id: str) -> Assistant | None:
        """What an assistant model can be asked for; None of any other.

        Raises: ModelNotFound, SettingsError.
        """
        if model_id not in self._catalog:
            return self._own_assistant(model_id)
        tools = self._catalog.entry(model_id).tools
        if tools is None:
            return None
        model = self.find(model_id)
        if model_id not in self._assistants:
            path = self._intents_file(model, tools)
            thresholds = model.thresholds or self._catalog.entry(model_id).thresholds
            self._assistants[model_id] = msgspec.structs.replace(
                read_assistant(path), thresholds=thresholds
            )
        return self._assistants[model_id]

    def _intents_file(self, model: InstalledModel, name: str) -> Path:
        folders = (model.folder, self._library.models_dir, self._library.shipped_dir)
        return next((f / name for f in folders if (f / name).is_file()), folders[-1] / name)

    def beside_intents(self, model_id: str, suffix: str) -> Path | None:
        """A file that has the name of a model's list of intents with another suffix, whether it is there or
        not; None without such a list. Raises: ModelNotFound."""
        in_catalog = model_id in self._catalog
        model = self.find(model_id)
        name = self._catalog.entry(model_id).tools if in_catalog else model.tools
        return self._intents_file(model, name).with_suffix(suffix) if name is not None else None

    def _own_assistant(self, model_id: str) -> Assistant | None:
        """The intents of a model that is in no catalog, by its record. They say what keys may call, so the
        file must be the one that was installed. Raises: ModelAltered, SettingsError."""
        self.installed()
        listed = self._listing.get(model_id)
        if listed is None or listed.tools is None:
            return None
        model = self.find(model_id)  # lists anew where another version was just installed
        if model.tools is None:
            return None
        if model_id not in self._assistants:
            self.integrity.verify_beside(model, model.tools)
            self._assistants[model_id] = msgspec.structs.replace(
                read_assistant(model.folder / model.tools), thresholds=model.thresholds
            )
        return self._assistants[model_id]

    def sampling(self, model_id: str) -> Sampling:
        """The catalog's sampling defaults for the model over our own."""
        if model_id not in self._catalog:
            return Sampling()
        defaults = self._catalog.entry(model_id).sampling
        known = {name: getattr(defaults, name) for name in defaults.__struct_fields__}
        return Sampling(**{name: value for name, value in known.items() if value is not None})

    @property
    def folders(self) -> list[Path]:
        """The directories of models on this device."""
        return [self._library.models_dir, self._library.shipped_dir]

    def named(self, name: str) -> str:
        """The model that a request names: what an alias stands for, unless an installed one is called so.
        Raises: ModelNotFound for a part of other models."""
        if self.part(name) is not None:
            self.find(name)
        if name in self._listing or name in {model.id for model in self.installed()}:
            return name
        if name in self._adapters:
            return name
        return self._aliases.target(name) or name

    def aliases(self, model_id: str) -> tuple[str, ...]:
        """The names and patterns that stand for a model."""
        own = ("default",) if model_id == self.default_id() else ()
        return self._aliases.of(model_id, *own)

    def find(self, model_id: str) -> InstalledModel:
        """Raises: ModelNotFound, with the nearest name or the command that installs it; ModelNotApproved."""
        self.installed()
        listed = self._listing.get(model_id)
        # A model that was just installed anew has its file under another name.
        if listed is None or not listed.path.exists():
            self._listed_s = float("-inf")
            self.installed()
        if model_id in self._listing:
            return self._listing[model_id]
        if model_id in self._waiting:
            self.integrity.require(self._waiting[model_id])
        self._library.resolve(model_id)  # says what is near, or that it is not installed
        raise ModelNotFound(
            f"Model {model_id!r} is of no kind that is served: GET /v1/models lists those that are.",
            param="model",
        )

    def identity(self, model_id: str) -> str:
        """What the model's file is: by its digest; one that was dropped in, by size and time.

        Raises: ModelNotFound.
        """
        model = self.find(model_id)
        if model.sha256:
            return model.sha256
        try:
            found = model.path.stat()
        except OSError as exc:
            raise ModelNotFound(f"Model {model_id!r} cannot be read now: check its file.") from exc
        return f"{model.path} {found.st_size} {found.st_mtime_ns}"

    def is_assistant(self, model: InstalledModel) -> bool:
        """Whether the catalog, or the model's own record, gives it intents to choose among."""
        if model.id not in self._catalog:
            return model.tools is not None
        return self._catalog.entry(model.id).tools is not None


def named_models(resolved: ResolvedSettings) -> frozenset[str]:
    """The models that the administrator's own settings name; one that a default or a profile names is not
    among them."""
    origins, settings = resolved.origins, resolved.settings
    named = {
        "models.default": [settings.models.default],
        "pool.pinned_models": settings.pool.pinned_models,
    }
    return frozenset(
        model_id
        for setting, ids in named.items()
        for model_id in ids
        if origins[setting] != "default" and not origins[setting].startswith("profile ")
    )


def _template_key(model: InstalledModel) -> tuple[Path, int, str | None]:
    return model.path, model.size_bytes, model.template_file_sha256
