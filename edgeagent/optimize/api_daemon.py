"""A daemon that serves one model file for a measurement, reached as a client reaches it.

It listens on a free port of the loopback interface, stores nothing, and keeps its directory in a temporary
one, which goes with it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from edgeagent.catalog.digest import sha256_of
from edgeagent.catalog.model_library import Library
from edgeagent.errors import StartFailed
from edgeagent.worker.spawn import command, end, environment_of_ours

START_TIMEOUT_S = 300.0
REQUEST_TIMEOUT_S = 600.0
MODEL_ID = "evaluated"
_CONFIGURATION = """\
[store]
enabled = false
[models]
default = "{model}"
bundled_dir = "{hidden}"
[device]
measure_when_idle = false
[engine]
n_threads = {n_threads}
n_seq = 1
"""


@contextmanager
def served(model: Path, n_threads: int) -> Iterator[httpx.Client]:
    """A client of a daemon that has loaded `model` under the id `MODEL_ID`.

    Raises: StartFailed with the daemon's last words.
    """
    with tempfile.TemporaryDirectory(prefix="edgeagent-evaluate-") as folder:
        root = Path(folder)
        config = _prepare(model, root, n_threads)
        log = root / "log"
        arguments = [
            "serve", "--port", "0", "--config", str(config), "--state-dir", str(root / "state"),
            "--models-dir", str(root / "models"), "--offline", "--log-level", "error",
        ]  # fmt: skip
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command("edgeagent", *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, cwd=folder, env=environment_of_ours(), start_new_session=True,
            )  # fmt: skip
        try:
            assert process.stdout is not None
            found = re.search(rb"http://\S+:\d+", process.stdout.readline())
            if found is None:
                raise StartFailed(f"The daemon for {model.name} did not start: {_end_of(log)}")
            with httpx.Client(
                base_url=found.group().decode(), timeout=REQUEST_TIMEOUT_S, trust_env=False
            ) as client:
                _wait(client, process, log, model)
                yield client
        finally:
            end(process)
            if process.stdout is not None:
                process.stdout.close()


def _prepare(model: Path, root: Path, n_threads: int) -> Path:
    models, state = root / "models", root / "state"
    models.mkdir()
    state.mkdir()
    path = models / f"{MODEL_ID}.gguf"
    try:
        os.link(model.resolve(), path)
    except OSError:  # another file system
        shutil.copyfile(model, path)
    library = Library(models, root / "none", state)
    assert library.approvals is not None
    library.approvals.adopt(library.installed())
    library.approvals.approve(MODEL_ID, sha256_of(path), None, "approved")
    config = root / "edgeagent.toml"
    config.write_text(
        _CONFIGURATION.format(model=MODEL_ID, hidden=root / "none", n_threads=n_threads)
    )
    return config


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path, model: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        answer = client.get("/ready")
        if answer.status_code == 200:
            return
        if answer.json().get("status") == "unavailable":
            raise StartFailed(f"{model.name} cannot be served: {answer.json().get('reason')}")
        time.sleep(0.05)
    raise StartFailed(f"The daemon for {model.name} did not become ready: {_end_of(log)}")


def _end_of(log: Path) -> str:
    text = log.read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else "it said nothing."
