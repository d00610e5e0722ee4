"""A worker that is begun before the daemon has its own modules, and what becomes of it."""

from __future__ import annotations

import asyncio
import errno
import shutil
import signal
from pathlib import Path

import msgspec
import pytest

from edgeagent.catalog.installed import InstalledModels
from edgeagent.daemon import early_worker
from edgeagent.daemon.preload import Preload
from edgeagent.device.configuration import Configuration, configure
from edgeagent.engine.client import EngineClient
from edgeagent.pool.placement import ModelPlacer
from edgeagent.types.engine_config import EngineConfig
from edgeagent.types.generation import GenerateSpec
from edgeagent.types.prompt import Prompt
from edgeagent.worker import spawn
from edgeagent.worker.process import begin


@pytest.fixture
def configuration(stories: Path, tmp_path: Path) -> Configuration:
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(stories, models / "stories260k.gguf")
    return configure(
        flags={
            "models_dir": models,
            "default_model": "stories260k",
            "state_dir": tmp_path / "state",
            "shipped_models_dir": tmp_path / "none",
        }
    )


def wanted(configuration: Configuration) -> EngineConfig:
    """As the daemon's pool asks for it, by an instance of its own."""
    models = InstalledModels.of(configuration.resolved)
    return asyncio.run(ModelPlacer.of(configuration, models).place("stories260k")).config


def test_what_was_begun_is_taken_over_and_answers(configuration: Configuration):
    config = wanted(configuration)
    preload = Preload(configuration)
    process = preload.take(config)
    assert process is not None
    preload.close()  # what was taken is no longer its own

    async def answer() -> str:
        client = await EngineClient.start(config, timeout_s=60, process=process)
        assert client.pid == process.popen.pid
        spec = GenerateSpec(prompts=[Prompt(text="Once")], max_tokens=8)
        text = "".join([chunk.text async for chunk in client.generate(spec)])
        await client.close()
        return text

    assert asyncio.run(answer())


def test_of_a_new_model_both_learn_at_once_that_its_header_is_sound(configuration: Configuration):
    """In the first start of all they hash and read it at the same time, and mean the same by it."""
    configuration.settings.state_dir.mkdir()
    preload = Preload(configuration)
    config = wanted(configuration)
    process = preload.take(config)
    assert process is not None and config.is_inspected
    process.close()


def test_a_worker_that_waits_is_told_what_to_load(configuration: Configuration):
    config = wanted(configuration)
    with early_worker.waiting() as waiting:
        assert waiting is not None and EngineClient.is_run_by(waiting)
        process = Preload(configuration, waiting).take(config)
        assert process is not None and process.popen is waiting.popen

        async def load() -> int:
            client = await EngineClient.start(config, timeout_s=60, process=process)
            await client.close()
            return client.facts.pid

        assert asyncio.run(load()) == waiting.popen.pid


def test_a_worker_of_another_kind_that_waits_is_ended(configuration: Configuration):
    waiting = begin(EngineClient.module, waits_long=not EngineClient.switches_waits)
    preload = Preload(configuration, waiting)
    process = preload.take(wanted(configuration))
    assert process is not None and process.popen is not waiting.popen
    assert waiting.popen.poll() is not None and process.popen.poll() is None
    process.close()


def test_where_no_process_can_be_started_nothing_waits(monkeypatch: pytest.MonkeyPatch):
    def start(*given: object, **options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(spawn, "start", start)
    with early_worker.waiting() as waiting:
        assert waiting is None


@pytest.mark.process
def test_a_worker_that_is_told_nothing_ends_in_silence(
    configuration: Configuration, capfd: pytest.CaptureFixture[str]
):
    with early_worker.waiting() as waiting:
        assert waiting is not None
        waiting.popen.send_signal(signal.SIGINT)  # as Ctrl-C does, before it can ignore it
        waiting.sock.close()  # as when the daemon has gone
        assert waiting.popen.wait(60) == 0
    assert capfd.readouterr().err == ""


def test_a_worker_that_loads_something_else_is_ended_and_not_taken(configuration: Configuration):
    preload = Preload(configuration)
    preload._thread.join()
    process = preload._process
    assert process is not None and process.popen.poll() is None
    assert preload.take(msgspec.structs.replace(process.config, n_ctx=512)) is None
    assert process.popen.poll() is not None


def test_a_worker_that_nobody_takes_is_ended(configuration: Configuration):
    preload = Preload(configuration)
    preload._thread.join()
    process = preload._process
    assert process is not None
    preload.close()
    preload.close()
    assert process.popen.poll() is not None


def test_closed_before_it_was_begun_it_begins_nothing(configuration: Configuration):
    config = wanted(configuration)
    preload = Preload(configuration)
    preload.close()
    assert preload.take(config) is None


@pytest.mark.parametrize("change", [{"ram_budget_bytes": 1_000_000}, {"models_dir": "empty"}])
def test_nothing_is_begun_that_does_not_fit_or_is_not_there(
    configuration: Configuration, tmp_path: Path, change: dict[str, object]
):
    if "models_dir" in change:
        change = {"models_dir": tmp_path / "empty"}
    flags = {
        "models_dir": configuration.settings.models.dir,
        "state_dir": tmp_path / "state",
        "shipped_models_dir": tmp_path / "none",
    }
    with early_worker.waiting() as waiting:
        preload = Preload(configure(flags=flags | change), waiting)
        preload._thread.join()
        assert waiting is not None and waiting.popen.poll() is not None
    assert preload._process is None and preload.take(wanted(configuration)) is None


def test_what_cannot_be_begun_is_the_daemons_to_tell(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def none_left(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("edgeagent.worker.client.launch", none_left)
    preload = Preload(configuration)
    assert preload.take(wanted(configuration)) is None
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.process
def test_prompts_and_answers_get_cells_of_their_own_where_other_models_keep_their_room(
    configuration: Configuration,
) -> None:
    models = InstalledModels.of(configuration.resolved)
    found: list[tuple[int, int]] = []
    for budget in (None, 1 << 30, 64 << 20):
        pool = configuration.settings.pool.model_copy(update={"ram_budget_bytes": budget})
        settings = configuration.settings.model_copy(update={"pool": pool})
        placer = ModelPlacer(settings, models, n_threads=1)
        config = asyncio.run(placer.place("stories260k")).config
        assert isinstance(config, EngineConfig)
        found.append((config.n_prompt_cells, config.n_answer_cells))
    assert found == [(2048, 1024), (2048, 1024), (0, 0)]
