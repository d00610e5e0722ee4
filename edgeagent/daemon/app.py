"""The composition root: builds every part of the daemon, and starts and stops them in order.

settings -> store, keys -> models -> pool -> chats, turns and other services -> API -> authentication ->
host and origin checks -> server
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from litestar import Litestar
from litestar.types import ASGIApp

from edgeagent.api.application import application
from edgeagent.api.http import auth, host_and_origin, server
from edgeagent.api.http.body_memory import Bodies
from edgeagent.api.http.degraded_header import Degradation
from edgeagent.api.http.idempotency import Idempotency
from edgeagent.api.http.internal_call import InternalCalls
from edgeagent.api.http.key_limits import FailureThrottle, Limiter
from edgeagent.api.http.metrics import RefusalCounter
from edgeagent.api.http.read_audit import ReadAudit
from edgeagent.api.http.route_paths import Paths
from edgeagent.api.http.uploads import Uploads
from edgeagent.catalog.installed import InstalledModels
from edgeagent.daemon.erasure_participants import ErasureParticipants
from edgeagent.daemon.governor import Governor
from edgeagent.daemon.idle_benchmark import IdleBenchmark
from edgeagent.daemon.notify import ServiceManager
from edgeagent.daemon.open_bind import refuse_open_bind
from edgeagent.daemon.preload import Preload
from edgeagent.daemon.reload import Reload
from edgeagent.daemon.request_traces import RequestTraces
from edgeagent.daemon.wyoming import wyoming_server
from edgeagent.device.benchmark import DeviceBenchmark
from edgeagent.device.configuration import Configuration
from edgeagent.errors import EdgeAgentError
from edgeagent.pool import Pool
from edgeagent.pool.placement import ModelPlacer
from edgeagent.pool.step_cost_keeper import StepCostKeeper
from edgeagent.pool.template_facts import TemplateLearner
from edgeagent.serving.audio_job_runner import AudioJobRunner
from edgeagent.serving.audio_jobs import AudioJobs
from edgeagent.serving.audio_quota import AudioQuota
from edgeagent.serving.authentication import Authenticator
from edgeagent.serving.background_responses import BackgroundResponses
from edgeagent.serving.batch_runner import BatchRunner
from edgeagent.serving.batches import Batches, BatchFiles
from edgeagent.serving.bots.bot_service import BotService
from edgeagent.serving.chat import ChatService
from edgeagent.serving.client_errors import hide_folders
from edgeagent.serving.content_archive import Archive
from edgeagent.serving.conversations import Conversations
from edgeagent.serving.engines import Engines
from edgeagent.serving.key_admin import KeyAdmin
from edgeagent.serving.knowledge.base import KnowledgeBase
from edgeagent.serving.live_transcription import LiveTranscriptions
from edgeagent.serving.model_cards import ModelCards
from edgeagent.serving.model_choice import ModelChooser, assistant_options
from edgeagent.serving.models import ModelAdmin
from edgeagent.serving.monitoring import Monitoring
from edgeagent.serving.one_shot_request import OneShotService
from edgeagent.serving.prefix_store import PrefixStore
from edgeagent.serving.remembered_answers import RememberedAnswers
from edgeagent.serving.stored_chats import StoredChats
from edgeagent.serving.stored_data import StoredData
from edgeagent.serving.stored_responses import StoredResponses
from edgeagent.serving.stored_turn import TurnService
from edgeagent.serving.terminal_history import forget_history
from edgeagent.serving.transcript_archive import TranscriptArchive
from edgeagent.serving.transcription import TranscriptionService
from edgeagent.serving.upstreams.upstreams import Upstreams
from edgeagent.settings import Settings
from edgeagent.store.bootstrap_key import bootstrap
from edgeagent.store.data_lifecycle import DataLifecycle
from edgeagent.store.database import open_store
from edgeagent.store.database_files import StoreFiles
from edgeagent.store.erasure_hub import ErasureHub
from edgeagent.store.keyring import Keyring
from edgeagent.store.requests import RequestLog, RequestRow
from edgeagent.types.loopback import is_loopback
from edgeagent.worker.heap import return_free_pages

logger = logging.getLogger(__name__)


class Daemon:
    """Every part of one daemon. `app` is the ASGI application; `close()` may be called twice.

    `addresses` are those it will listen on; default: the one in the settings. `preload` may have begun
    to load the default model.
    """

    def __init__(
        self,
        configuration: Configuration,
        addresses: Sequence[str] | None = None,
        preload: Preload | None = None,
        *,
        bootstrap_key_file: Path | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        self.settings = settings = configuration.settings
        exposed = [a for a in addresses or (settings.http.host,) if not is_loopback(a)]
        self._manager = manager or ServiceManager(None)
        path = StoreFiles(settings.store_dir).database
        if exposed and not path.exists() and bootstrap_key_file is None:
            refuse_open_bind(exposed[0], settings, has_key=False)  # and nothing has been made
        self.database = open_store(settings) if settings.store.enabled else None
        self.keyring = Keyring(
            self.database,
            path,
            lambda: open_store(settings),
            anchor_path=settings.effective_audit_anchor,
        )
        is_locked = self.keyring.check_access() is not None  # says so in the log
        if bootstrap_key_file is not None and not is_locked:
            bootstrap(self.keyring, bootstrap_key_file)
        if exposed:  # a locked daemon answers nobody, and may wait for its keys
            has_key = is_locked or self.keyring.is_any_usable()
            refuse_open_bind(exposed[0], settings, has_key=has_key)
        n_cores = settings.engine.n_threads or configuration.device.capacity.n_threads_max
        measuring = DeviceBenchmark(configuration.device, settings.state_dir)
        self.models = InstalledModels.of(configuration.resolved)
        self._placer = ModelPlacer.of(configuration, self.models, self._note_altered)
        default = settings.models.default
        told = TemplateLearner(self.models).learn, StepCostKeeper(measuring.step_costs).expect
        self.pool = Pool(
            settings.pool,
            settings.worker,
            n_cores=n_cores,
            stays=frozenset({default, self.models.default_id() or default}),
            check=self.models.loadable,
            place=self._placer.place,
            log_level=settings.log_level,
            preloaded=preload.take if preload is not None else None,
            loaded=told,
        )
        self._governor = Governor(self.pool, settings.governor, n_cores)
        self.pool.at_work = self._governor.wake
        self.upstreams = Upstreams(settings.routing.upstreams, is_offline=settings.offline)
        self.upstreams.check()
        self.upstreams.note = self._note_sent
        self.monitoring = Monitoring(self.pool, settings, self.upstreams)
        self.remembered = RememberedAnswers()
        self.hub = ErasureHub()
        flush_s = settings.store.request_flush_s
        self._requests = RequestLog(self.database, flush_s) if self.database else None
        self.archive = Archive(
            self.database,
            is_searchable=settings.store.search,
            hub=self.hub,
            request_log=self._requests,
        )
        self.conversations = Conversations(self.archive)
        self.background = BackgroundResponses()
        self._traces = (
            RequestTraces(settings.traces, is_offline=settings.offline)
            if settings.traces.endpoint
            else None
        )
        self.prefix_store = PrefixStore(self.database, settings.store, self.models.identity)
        warm = self.prefix_store.warm
        engines = Engines(self.pool, self._note, self.upstreams, self.models.has, warm)
        options = assistant_options(settings.routing)
        self.chooser = ModelChooser(self.models, options, self.pool.residents, self.upstreams)
        self.chats = ChatService.judging(engines, self.chooser, self.models, settings)
        self.one_shots = OneShotService(engines, self.chooser)
        quota = AudioQuota.of(self.database, settings.speech.audio_s_per_day)
        self.lifecycle = DataLifecycle(self.database, settings, hub=self.hub, settle=self._settle)
        self._authenticator = Authenticator(self.keyring, is_exposed=bool(exposed))
        caller_of = self._authenticator.caller_of_key
        self.audio_job_runner = AudioJobRunner(
            self.archive, engines, settings.speech.jobs, quota, caller_of
        )
        self.live_transcriptions = LiveTranscriptions(
            engines, settings.speech.live, quota, caller_of
        )
        self._limiter = Limiter(max_running=max(1, settings.http.max_connections * 3 // 4))
        uploads = {
            "/v1/audio/transcriptions": settings.speech.max_upload_bytes,
            "/v1/audio/translations": settings.speech.max_upload_bytes,
            "/v1/files": max(settings.batch.max_file_bytes, settings.knowledge.max_file_bytes),
        }
        self._bodies = Bodies(settings.http, max(uploads.values()))
        self._uploads = Uploads(uploads, parts=["/v1/audio/jobs/*/recording"])
        self.batch_runner = BatchRunner(
            self.database,
            lambda *call: self._calls.post(*call),
            caller_of,
            settings.batch.n_parallel,
            settings.batch.max_owner_bytes,
        )
        self.knowledge = KnowledgeBase(
            self.archive, engines, self.chooser, settings.knowledge, settings.log_level
        )
        ErasureParticipants(
            self.background, self.conversations, self.database is not None, self.lifecycle, self._requests,
            self.pool, self.keyring, self.prefix_store, self.audio_job_runner, settings.state_dir,
            self.remembered, self.batch_runner, self.live_transcriptions, self.knowledge,
        ).register(self.hub)  # fmt: skip
        self.transcriptions = TranscriptionService(engines, self.chooser, quota)
        self.keys = KeyAdmin(
            self.keyring, is_first_on_device=settings.api.first_key == "command-line"
        )
        self.wyoming = wyoming_server(
            settings.speech.wyoming, self.live_transcriptions, self.transcriptions
        )
        self._preloading: asyncio.Task[None] | None = None
        self._idle = IdleBenchmark(measuring, lambda: self.pool.is_busy, self._default_path)
        self.api = self._api()
        self._calls = InternalCalls(self.api, self._limiter, self._bodies)
        key_folder = settings.effective_store_key_file.parent
        hide_folders([settings.state_dir, key_folder, *self.models.folders])
        self.app: ASGIApp = self._layers(is_exposed=bool(exposed))

    def _layers(self, *, is_exposed: bool) -> ASGIApp:
        """What a request passes on its way to the routes."""
        settings = self.settings
        paths = Paths.of(self.api.routes)
        api: ASGIApp = Idempotency(self.api, self.remembered)
        if settings.store.audit_reads:
            api = ReadAudit(api, self._authenticator)
        authentication = auth.Authentication(
            api,
            self._authenticator,
            self._limiter,
            FailureThrottle(),
            self._bodies,
            paths,
            uploads=self._uploads,
        )
        is_local = not is_exposed
        rules = host_and_origin.rules(settings.http, is_local=is_local, uploads=self._uploads)
        guard = host_and_origin.RequestGuard(authentication, rules, paths)
        counter = RefusalCounter(guard, self.monitoring)
        return Degradation(counter, lambda: self.pool.cores.throttle.reasons)

    def _api(self) -> Litestar:
        archive, conversations, background = self.archive, self.conversations, self.background
        idle_unload_s = self.settings.pool.idle_unload_s or None
        runner, batch = self.batch_runner, self.settings.batch
        reserve = self.settings.store.reserve_bytes
        note = self._authenticator.note
        parts = {
            "archive": archive,
            "batch_files": BatchFiles(archive, batch, self._bodies.max_body_bytes),
            "batches": Batches(archive, batch, wake=runner.wake, stop=runner.stop, note=note),
            "audio_jobs": AudioJobs(archive, self.audio_job_runner, self.settings.speech.jobs, reserve),
            "bots": BotService(self.settings.state_dir, lambda *call: self._calls.post(*call)),
            "cards": ModelCards(self.pool, self.models, self.chooser, idle_unload_s),
            "chats": self.chats,
            "conversations": conversations,
            "keys": self.keys,
            "knowledge": self.knowledge,
            "live_transcriptions": self.live_transcriptions,
            "models": ModelAdmin(self.pool, self.models, self.chooser),
            "monitoring": self.monitoring,
            "one_shots": self.one_shots,
            "responses": StoredResponses(archive, conversations, background),
            "transcriptions": self.transcriptions,
            "transcripts": TranscriptArchive(archive),
            "settings": self.settings,
            "stored_chats": StoredChats(archive),
            "stored_data": StoredData(self.lifecycle),
            "turns": TurnService(
                self.chats, archive, conversations, self.prefix_store, background,
                self.knowledge,
            ),
        }  # fmt: skip
        return application(parts, on_startup=[self._start], on_shutdown=[self.close])

    async def _start(self) -> None:
        self.hub.start()
        forget_history(self.settings.state_dir)
        self._adopt_models()
        await self.pool.open()
        await self.lifecycle.sweep_overdue()
        self.lifecycle.start()
        if self.database is not None:
            await self.conversations.fail_open()
        self.prefix_store.start()
        self.audio_job_runner.start()
        await self.chooser.routes.prepare(self.database)
        if self._requests is not None:
            self._requests.start()
        if self.wyoming is not None:
            await self.wyoming.start()
        await self.batch_runner.start()
        await self.knowledge.start()
        if self.settings.models.preload:
            self._preloading = asyncio.create_task(self._preload(), name="preload")
        else:
            return_free_pages()
        if self.settings.device.measure_when_idle:
            self._idle.start()

    def _adopt_models(self) -> None:
        try:
            self.models.integrity.adopt()
        except EdgeAgentError as exc:  # told again to whoever asks for a model
            logger.error("approvals_not_kept %s", exc.message)

    async def _preload(self) -> None:
        """Load the default model; what keeps it from loading is logged and shown by /ready."""
        with suppress(EdgeAgentError):
            await self.models.examine()
            if self.models.default_id() is None:
                folder = self.settings.effective_models_dir
                logger.warning("no_model models_dir=%s hint='edgeagent models install'", folder)
            model_id = self.chooser.for_text(None).model_id
            await self.pool.load(model_id)
            logger.info("ready model=%s", model_id)
            self._manager.status(f"Ready, model {model_id} is loaded")
        return_free_pages()

    def _default_path(self) -> Path | None:
        """The model that says most of this device. An assistant model says nothing: it is too small."""
        with suppress(EdgeAgentError):
            decision = self.chooser.for_plain_text(None)
            if self.chooser.assistant(decision) is None:
                return self.models.find(decision.model_id).path
        return None

    async def close(self) -> None:
        """Stop every part, in the opposite order of their start."""
        if self._preloading is not None:
            self._preloading.cancel()
        await self._idle.close()
        if self.wyoming is not None:
            await self.wyoming.close()
        await self.batch_runner.close()
        await self.knowledge.close()
        await self.background.close()
        await self.audio_job_runner.close()
        await self.prefix_store.close()
        await self._governor.close()
        await self.chats.close()
        await self.pool.close()
        await self.upstreams.close()
        if self._requests is not None:
            await self._requests.close()
        await self.lifecycle.close()
        self.keyring.close()
        if self.database is not None:
            await asyncio.to_thread(self.database.close)
        if self._traces is not None:
            await self._traces.close()
        await self._manager.close()

    async def _settle(self) -> None:
        """Write down what is still in memory."""
        if self._requests is not None:
            await self._requests.flush()

    def _note_altered(self, model_id: str) -> None:
        """Audit that a model's file is not the approved one. That it is refused does not hang on this."""
        if self.database is not None:
            with suppress(EdgeAgentError):
                self.keyring.note_altered_model(model_id)

    async def _note_sent(self, key_id: str, what: str) -> None:
        """Audit what is about to leave this device. What cannot be audited is not sent."""
        if self.database is not None:
            await asyncio.wrap_future(self.keyring.note_sent(key_id, what))

    def _note(self, row: RequestRow) -> None:
        row = self.chooser.routes.note(row)
        self.monitoring.end_request(row)
        if self._requests is not None:
            self._requests.add(row)
        if self._traces is not None:
            self._traces.add(row)

    async def serve(
        self, sockets: list[socket.socket], read_settings: Callable[[], Settings] | None = None
    ) -> None:
        """Answer on these sockets until SIGINT or SIGTERM. SIGHUP reads the settings again."""
        if read_settings is not None:
            Reload(self.settings, read_settings, self.pool, self._manager).listen()
        for sock in sockets:
            server.send_at_once(sock)
            server.bound_buffers(sock)
        await server.server(
            self.app,
            self.settings.http,
            max_message_bytes=self.settings.speech.live.max_message_bytes,
            at_start=self._report_ready,
            at_stop=self._manager.stopping,
            at_end=self.background.close,
        ).serve(sockets=sockets)

    def _report_ready(self) -> None:
        self._manager.ready("Ready")
        self._manager.watch(lambda: self.pool.is_watching)
