"""A llama-server and a daemon that has it as an upstream, and the record of what was checked on them."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from tests.conftest import DaemonProcess, serving, wait_for

HOST = "127.0.0.1"
N_CTX, N_SLOTS = 4096, 2  # of llama-server, which divides its context among its slots
API_KEY = "sk-upstream"
CHAT = "/v1/chat/completions"
UNCHECKED = "not checked:"  # begins the remark of a check that could not be made
Json = dict[str, Any]


class LlamaServer:
    """The process. Its port stays the same over restarts."""

    def __init__(self, binary: Path, model: Path, folder: Path, template: Path | None) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        self._command = [
            str(binary), "--model", str(model), "--host", HOST, "--port", str(self.port), "--threads", "1",
            "--ctx-size", str(N_CTX), "--parallel", str(N_SLOTS), "--api-key", API_KEY, "--slots",
        ]  # fmt: skip
        if template is not None:
            self._command += ["--chat-template-file", str(template)]
        self._log = folder / "llama-server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"llama-server ended, see {self._log}"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://{HOST}:{self.port}/health").status_code == 200
        return False

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def n_busy(self, client: httpx.Client) -> int:
        """The slots that compute."""
        return sum(one["is_processing"] for one in client.get("/slots").json())


class Checks:
    """What was checked, and whether it held."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bool, str]] = []

    def run(self, name: str, check: Callable[[], str]) -> None:
        """`check` returns a remark, or raises AssertionError."""
        try:
            self.rows.append((name, True, check()))
        except AssertionError as exc:
            self.rows.append((name, False, str(exc)[:400]))
        except Exception as exc:
            self.rows.append((name, False, f"{type(exc).__name__}: {exc}"[:400]))

    @property
    def are_right(self) -> bool:
        return all(is_right for _, is_right, _ in self.rows)

    def table(self) -> Table:
        table = Table("check", "holds", "remark")
        for name, is_right, remark in self.rows:
            held = "yes" if is_right else "[red]no[/red]"
            table.add_row(name, "-" if remark.startswith(UNCHECKED) else held, remark)
        return table


class Pair:
    """The same requests to the daemon (`through`) and to llama-server itself (`direct`)."""

    def __init__(self, daemon: DaemonProcess, server: LlamaServer, stack: ExitStack) -> None:
        self.server = server
        self.through = stack.enter_context(httpx.Client(base_url=daemon.url, timeout=60))
        self.direct = stack.enter_context(
            httpx.Client(
                base_url=f"http://{HOST}:{server.port}",
                headers={"authorization": f"Bearer {API_KEY}"},
                timeout=60,
            )
        )

    def ask(self, *, model: str = "big", path: str = CHAT, **fields: Any) -> httpx.Response:
        return self.through.post(path, json={"model": model} | question(path, fields))

    def answer(self, **fields: Any) -> Json:
        reply = self.ask(**fields)
        assert reply.status_code == 200, f"{reply.status_code} {reply.text}"
        found: Json = reply.json()
        return found

    def both(self, **fields: Any) -> tuple[Json, Json]:
        return self.answer(**fields), self.own(**fields)

    def own(self, **fields: Any) -> Json:
        """What llama-server answers itself, in one piece."""
        found: Json = self.direct.post(CHAT, json=question(CHAT, fields) | {"stream": False}).json()
        return found


def question(path: str, fields: Json) -> Json:
    if path == CHAT and "messages" not in fields:
        fields = {"messages": [{"role": "user", "content": "Name three colours."}]} | fields
    return fields if "max_tokens" in fields or "options" in fields else {"max_tokens": 16} | fields


def events(reply: httpx.Response) -> Iterator[Json]:
    for line in reply.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


@contextmanager
def started(
    binary: Path, model: Path, folder: Path, template: Path | None = None
) -> Iterator[Pair]:
    """llama-server, and a daemon that asks it."""
    models = folder / "models"
    models.mkdir(parents=True)
    key_file = folder / "upstream.key"
    key_file.write_text(API_KEY)
    key_file.chmod(0o600)
    shutil.copy(model, models / "small.gguf")
    server = LlamaServer(binary, model, folder, template)
    server.start()
    try:
        wait_for(server.is_ready)
        common = {
            "url": server.url, "keys": ["*"], "timeout_s": 30, "connect_timeout_s": 2, "breaker_failures": 2,
            "breaker_open_s": 0.5,
        }  # fmt: skip
        tables = [
            common
            | {
                "name": "llama",
                "models": {"big": "big", "renamed": "no-such-model"},
                "key_file": str(key_file),
            },
            common | {"name": "unkeyed", "models": {"unkeyed": "big"}},
            common
            | {
                "name": "hasty",
                "models": {"hasty": "big"},
                "key_file": str(key_file),
                "timeout_s": 1,
            },
        ]
        settings = {
            "routing.upstreams": tables,
            "routing.candidates": ["big", "small"],
            "routing.routes": [{"name": "either", "candidates": ["big", "small"]}],
            "preload": False,
        }
        with ExitStack() as stack:
            daemon = stack.enter_context(serving(models, folder / "state", n_ctx=2048, **settings))
            yield Pair(daemon, server, stack)
    finally:
        server.kill()
