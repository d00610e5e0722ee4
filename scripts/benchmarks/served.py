"""A daemon of our own for the length of a measurement."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import psutil

from edgeagent.settings.old_names import OLD_NAMES
from tests.conftest import SHIPPED, approve_dropped

MEASURING_S = 60.0


@dataclass
class Served:
    url: str
    process: subprocess.Popen[str]
    started_s: float
    log: Path

    def children(self, module: str) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if module in child.cmdline()]

    def wait_until_ready(self) -> float:
        """Seconds from the start of the process until a request would be answered. Asked by few instructions:
        a client like httpx takes a core from a daemon that starts."""
        client = HTTPConnection(self.url.removeprefix("http://"))
        with closing(client):
            while not _is_ready(client):
                if self.process.poll() is not None:
                    raise SystemExit("the daemon ended; see its messages above")
                time.sleep(0.01)
            return time.perf_counter() - self.started_s


def _is_ready(client: HTTPConnection) -> bool:
    client.request("GET", "/ready")
    response = client.getresponse()
    response.read()
    return response.status == HTTPStatus.OK


@contextmanager
def serving(models_dir: Path, *options: str, **settings: object) -> Iterator[Served]:
    """`settings` go into a configuration file; the log is `Served.log`."""
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as keys:
        config = Path(state, "bench.toml")
        key = str(Path(keys, "store.key"))
        hidden = str(
            Path(state, "shipped")
        )  # what is measured is named, not what happens to be shipped
        settings = {
            "measure_when_idle": False, "store_key_file": key, "shipped_models_dir": hidden,
        } | settings  # fmt: skip
        config.write_text(
            "".join(
                f"{OLD_NAMES.get(name, name)} = {json.dumps(value)}\n"
                for name, value in settings.items()
            )
        )
        # The tests set variables for all that they start, and a variable wins over a file.
        others = {k: v for k, v in os.environ.items() if not k.startswith("EDGEAGENT_")}
        environment = others | {SHIPPED: str(settings["shipped_models_dir"])}
        log = Path(state, "log")
        command = [
            sys.executable,
            "-m",
            "edgeagent",
            "serve",
            "--port",
            "0",
            "--log-level",
            "info",
        ]
        command += [
            "--config",
            str(config),
            "--state-dir",
            str(settings.pop("state_dir", state)),
            "--models-dir",
            str(models_dir),
            *options,
        ]
        approve_dropped(Path(models_dir), Path(command[command.index("--state-dir") + 1]))
        started = time.perf_counter()
        with log.open("w") as file:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
            )
        assert process.stdout is not None
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        if found is None:
            raise SystemExit(f"the daemon did not start: {log.read_text()[-2000:]}")
        try:
            yield Served(found.group(), process, started, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)


@contextmanager
def serving_measured(
    models_dir: Path, state_dir: str, *options: str, **settings: object
) -> Iterator[Served]:
    """A daemon that knows what steps cost here, as after its first idle seconds, and measures no more."""
    with tempfile.TemporaryDirectory() as keys:  # one key for both daemons, which have one store
        settings = {"store_key_file": str(Path(keys, "store.key"))} | settings
        with serving(models_dir, **settings, state_dir=state_dir, measure_when_idle=True) as first:
            first.wait_until_ready()
            begun = time.monotonic()
            while "step_costs_measured" not in first.log.read_text():
                if time.monotonic() - begun > MEASURING_S:
                    raise SystemExit(f"No step costs after {MEASURING_S:.0f} s: others use cores.")
                time.sleep(0.1)
        with serving(models_dir, *options, **settings, state_dir=state_dir) as served:
            yield served
