"""How to load each installed model on this device, and how much memory it needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgeagent.catalog.gguf.model_facts import ModelFacts
from edgeagent.catalog.install_record import InstalledModel
from edgeagent.catalog.installed import InstalledModels
from edgeagent.catalog.sizing.memory import WorkerSetup, kv_bytes_per_cell, worker_memory
from edgeagent.catalog.sizing.model_shape import ModelShape, from_facts
from edgeagent.catalog.sizing.repack import repacked_types
from edgeagent.device.benchmark import DeviceBenchmark
from edgeagent.device.configuration import Configuration
from edgeagent.device.measurement import Measurement
from edgeagent.device.step_cost_store import StepCostStore
from edgeagent.engine.client import EngineClient
from edgeagent.errors import EdgeAgentError, ModelAltered
from edgeagent.pool.int8_kernels import has_ctranslate2, int8_kernels
from edgeagent.pool.memory import Placement
from edgeagent.pool.speech_placement import speech_placement
from edgeagent.settings import Settings
from edgeagent.settings.settings_sources import ResolvedSettings
from edgeagent.types.engine_config import AdapterFile, EngineConfig, Int8Kernels, Task
from edgeagent.types.engine_flags import CacheFlags, EngineFlags

logger = logging.getLogger(__name__)

# Texts of one step of an embedding model: more than fit into a step, however short they are.
TEXTS_PER_STEP = 64
# llama.cpp keeps a row of logits for every token of a text that it embeds, although they are not used.
LOGITS_BYTES = 256 << 20
# A part of other models reads single texts of a few words.
_PART = {
    "n_ctx": 128, "n_seq": 4, "n_prefixes": 0, "n_threads": 1, "prompt_cells": 0, "answer_cells": 0,
}  # fmt: skip
# More idle prefixes for each running sequence cost buffers for logits and are seldom used again.
PREFIXES_PER_SEQ = 4


def own_settings(resolved: ResolvedSettings) -> frozenset[str]:
    """The names of the settings that somebody gave: neither defaults nor those of a profile."""
    return frozenset(
        name for name, origin in resolved.origins.items()
        if origin != "default" and not origin.startswith("profile ")
    )  # fmt: skip


def with_flags(
    config: EngineConfig, flags: EngineFlags | CacheFlags | None, own: frozenset[str]
) -> EngineConfig:
    """`config` with measured flags, except for those that somebody has set."""
    if flags is None:
        return config
    measured = msgspec.structs.asdict(flags)
    kept = {name: value for name, value in measured.items() if f"engine.{name}" not in own}
    return msgspec.structs.replace(config, **kept)


# Contexts for prompts, and for answers, take so much for their cells at most, and only where their model
# takes no more than this share of the budget for all models.
PROMPT_BYTES = 64 << 20
ANSWER_BYTES = 192 << 20
SHARE_WITH_MORE = 0.5


class ModelPlacer:
    """Makes the configuration of a worker for each model. Event loop's thread only.

    `n_threads` is what one engine may use; `repacked` names the tensor types that llama.cpp rearranges
    here; `features` are the processor's; `measured` gives what is known of this device's speed, `step_costs`
    what steps of a model cost.
    `flags_of` gives what a model file runs fastest with here, which counts except for `own_settings`.
    `on_altered` is called with the id of a model whose file is not the approved one.
    """

    def __init__(
        self,
        settings: Settings,
        models: InstalledModels,
        *,
        n_threads: int,
        repacked: frozenset[str] = frozenset(),
        features: Sequence[str] = (),
        measured: Callable[[], Measurement | None] = lambda: None,
        step_costs: StepCostStore | None = None,
        flags_of: Callable[[Path], EngineFlags | None] = lambda path: None,
        own_settings: frozenset[str] = frozenset(),
        on_altered: Callable[[str], None] = lambda model_id: None,
    ) -> None:
        self._settings = settings
        self._models = models
        self._n_threads = n_threads
        self._repacked = repacked
        self._features = features
        self._measured = measured
        self._step_costs = step_costs
        self._flags_of = flags_of
        self._own_settings = own_settings
        self._on_altered = on_altered

    @classmethod
    def of(
        cls,
        configuration: Configuration,
        models: InstalledModels,
        on_altered: Callable[[str], None] = lambda model_id: None,
    ) -> ModelPlacer:
        """A placer for this device."""
        settings, device = configuration.settings, configuration.device
        benchmark = DeviceBenchmark(device, settings.state_dir)
        return cls(
            settings,
            models,
            n_threads=settings.engine.n_threads or device.capacity.n_threads_max,
            repacked=repacked_types(device.system.architecture or "", device.cpu.features),
            features=device.cpu.features,
            measured=benchmark.kept,
            step_costs=benchmark.step_costs,
            flags_of=benchmark.engine_flags.load,
            own_settings=own_settings(configuration.resolved),
            on_altered=on_altered,
        )

    async def place(self, model_id: str) -> Placement:
        """How to load a model, and the memory that it needs. Hashes its file unless that was done before.

        Raises: ModelNotFound, ModelNotApproved, ModelAltered, GGUFRefused.
        """
        model = self._models.loadable(model_id)
        verifying = asyncio.to_thread(self._models.integrity.verified, model)
        try:
            if self._models.task(model) == "transcribe":
                await verifying
                return speech_placement(model, self._settings, self._n_threads)
            # Each takes a core for 0.1 s when a model is new. That it is another file is said before anything
            # that is wrong with its header.
            reading = asyncio.create_task(self._models.facts(model))
            try:
                identity = await verifying
            except EdgeAgentError:
                reading.cancel()
                raise
            facts = await reading
            self._models.integrity.check_template(model, facts.template_sha256)
            template = await asyncio.to_thread(self._models.integrity.template, model)
        except ModelAltered:
            self._on_altered(model_id)
            raise
        self._models.keep_task(model, facts)
        text = template.text if template is not None else None
        flags = await asyncio.to_thread(self._flags_of, model.path)
        config = msgspec.structs.replace(
            with_flags(self._config(model, facts), flags or model.engine, self._own_settings),
            identity=identity,
            is_inspected=self._models.is_inspected(model, identity),
            chat_template=text,
        )
        n_adapter_bytes = 0
        task = self._models.task(model)
        if task == "generate" and facts.task == "embed" and self._models.is_assistant(model):
            task = "embed"  # its intents are chosen by a sentence's vector
        if model.is_part:
            config = msgspec.structs.replace(config, task="embed", **_PART)
        elif task != "generate":
            # The intents of an assistant were calibrated on the vectors that llama.cpp computes.
            config = self._for_whole_texts(
                config, facts, task, is_assistant=self._models.is_assistant(model)
            )
        else:
            adapters = self._models.adapters_of(model_id)
            files = await asyncio.to_thread(self._adapter_files, adapters)
            config = msgspec.structs.replace(config, adapters=files)
            n_adapter_bytes = sum(one.size_bytes for one in adapters)
            if self._step_costs is not None:
                costs = await asyncio.to_thread(self._step_costs.load, config)
                measures = self._settings.device.measure_when_idle
                config = msgspec.structs.replace(config, step_costs=costs, measures_steps=measures)
        config = self._with_more_cells(config, from_facts(facts))
        memory = worker_memory(from_facts(facts), WorkerSetup.of(config, self._repacked))
        need_bytes, words = memory.total_bytes + n_adapter_bytes, memory.explain()
        if n_adapter_bytes:
            words += f", adapters {n_adapter_bytes / 1e6:.0f} MB"
        return Placement(EngineClient, config, need_bytes, words, displaces=not model.is_part)

    def _with_more_cells(self, config: EngineConfig, model: ModelShape) -> EngineConfig:
        """With as many cells for prompts and for answers as take little memory: the first of these that could
        push out no other model."""
        per_cell = max(1.0, kv_bytes_per_cell(model, config.kv_type))
        most = int(ANSWER_BYTES / per_cell / config.n_seq)
        with_all = msgspec.structs.replace(
            config,
            prompt_cells=min(config.prompt_cells, int(PROMPT_BYTES / per_cell)),
            answer_cells=min(config.answer_cells, most),
        )
        with_prompts = msgspec.structs.replace(with_all, answer_cells=0)
        with_one = msgspec.structs.replace(with_prompts, prompts_beside=False)
        budget = self._settings.pool.ram_budget_bytes
        for one in (with_all, with_prompts, with_one):
            need_bytes = worker_memory(model, WorkerSetup.of(one, self._repacked)).total_bytes
            if budget is None or need_bytes <= SHARE_WITH_MORE * budget:
                return one
        return msgspec.structs.replace(with_one, prompt_cells=0)

    def _adapter_files(self, adapters: Sequence[InstalledModel]) -> tuple[AdapterFile, ...]:
        """The files of a model's adapters, checked as the model's own. One that is not the approved one is
        left out: the model is served without it. Blocks while files are hashed."""
        found = []
        for adapter in adapters:
            try:
                identity = self._models.integrity.verified(adapter)
            except EdgeAgentError as exc:
                logger.error("adapter_left_out adapter=%s %s", adapter.id, exc.message)
                found.append(AdapterFile(adapter.id, str(adapter.path), problem=exc.message))
                continue
            found.append(AdapterFile(adapter.id, str(adapter.path), identity))
        return tuple(found)

    def _config(self, model: InstalledModel, facts: ModelFacts) -> EngineConfig:
        engine = self._settings.engine
        is_assistant = self._models.is_assistant(model)
        own = {
            "model_id": model.id,
            "path": str(model.path),
            # More cells than all slots together can use would stay unused.
            "n_ctx": min(engine.n_ctx, max(256, facts.n_ctx_train * engine.n_seq)),
            # Questions to an assistant model have nothing in common.
            "n_prefixes": 0
            if is_assistant
            else min(engine.n_prefixes, PREFIXES_PER_SEQ * engine.n_seq),
            "prompts_beside": engine.prompts_beside,
            "answer_cells": 0 if is_assistant else engine.answer_cells,
            "prompt_cells": 0 if is_assistant else engine.prompt_cells,  # see _with_more_cells
            # In so small a model, waiting at barriers costs more than a second thread saves; a sentence
            # encoder computes many texts at once.
            "n_threads": 1 if is_assistant and facts.task != "embed" else self._n_threads,
            "adapts_threads": self._settings.governor.enabled,
            "prefill_tok_s": self._prefill_tok_s(facts),
            # Mapped weights that llama.cpp rearranges would be in memory twice.
            "use_mmap": not self._repacked & facts.bytes_by_type.keys(),
        }
        return msgspec.convert(engine.model_dump() | own, EngineConfig)

    def _for_whole_texts(
        self, config: EngineConfig, facts: ModelFacts, task: Task, *, is_assistant: bool
    ) -> EngineConfig:
        """The configuration of the same model to embed or rank: whole texts, one or many in a step."""
        n_rows = LOGITS_BYTES // (4 * (facts.n_vocab or 1))
        return msgspec.structs.replace(
            config,
            task=task,
            n_ctx=min(self._settings.engine.n_ctx, facts.n_ctx_train, max(512, n_rows)),
            n_seq=TEXTS_PER_STEP,
            n_prefixes=0,
            int8_kernels=None if is_assistant else self._int8_kernels(facts),
        )

    def _int8_kernels(self, facts: ModelFacts) -> Int8Kernels | None:
        wanted = self._settings.engine.int8_encoders
        return int8_kernels(wanted, facts, self._features, is_installed=has_ctranslate2())

    def _prefill_tok_s(self, facts: ModelFacts) -> float | None:
        """The measured prefill rate, scaled by size to this model: the scheduler's first guess."""
        measured = self._measured()
        if measured is None or measured.model is None or not measured.model.prefill_tok_s:
            return None
        rate = max(measured.model.prefill_tok_s.values())
        return rate * measured.model.n_params / max(1, facts.n_params)
