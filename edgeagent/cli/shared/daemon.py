"""Finding the daemon, or starting one for as long as a command needs it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import httpx

from edgeagent.environment import client_api_key
from edgeagent.errors import EdgeAgentError, StartFailed
from edgeagent.settings import Settings
from edgeagent.worker.spawn import command, environment_of_ours

START_TIMEOUT_S = 120.0


def base_url(settings: Settings) -> str:
    host = f"[{settings.http.host}]" if ":" in settings.http.host else settings.http.host
    return f"http://{host}:{settings.http.port}"


def is_running(url: str) -> bool:
    """Whether an edgeagent answers there. Raises: StartFailed when something else does."""
    try:
        body = _get(f"{url}/health")
    except (httpx.TransportError, ValueError):
        return False
    if isinstance(body, dict) and "version" in body:
        return True
    raise StartFailed(f"Something at {url} is not edgeagent: choose another --port.")


def _get(url: str) -> Any:
    # A proxy from the environment does not know what listens on this machine.
    return httpx.get(url, timeout=5, trust_env=False, headers=authorization()).json()


def authorization() -> dict[str, str]:
    """The header that names us to the daemon, where the environment has a key."""
    key = client_api_key()
    return {"Authorization": f"Bearer {key}"} if key is not None else {}


def explained(status: int, message: str) -> str:
    """The daemon's message, with what it means for a command of ours."""
    hint = " Put a key into EDGEAGENT_API_KEY for this command." if status == 401 else ""
    return f"{message}{hint}"


def call(settings: Settings, method: str, path: str) -> dict[str, Any]:
    """The body that the running daemon answers with.

    Raises: StartFailed when none runs; EdgeAgentError with the daemon's own message.
    """
    url = base_url(settings)
    try:
        response = httpx.request(
            method, f"{url}{path}", timeout=300, trust_env=False, headers=authorization()
        )
        body = response.json()
    except (httpx.TransportError, ValueError) as exc:
        raise StartFailed(
            f"No daemon answers at {url}: start one with `edgeagent serve`, or name its --port."
        ) from exc
    if response.status_code != 200:
        raise EdgeAgentError(explained(response.status_code, body["error"]["message"]))
    return dict(body)


@contextmanager
def running_daemon(settings: Settings, arguments: list[str]) -> Iterator[str]:
    """The URL of a daemon that can answer: the one that runs, or one started with `arguments` that
    ends with the block. Raises: StartFailed."""
    url = base_url(settings)
    if is_running(url):
        # Its model may load with the first message, or be another than the default one.
        yield url
        return
    click.echo("No daemon is running; starting one for this chat ...", err=True)
    process = subprocess.Popen(
        command("edgeagent", "serve", "--log-level", "error", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment_of_ours(),
        start_new_session=True,  # Ctrl-C stops an answer here, not the daemon
    )
    try:
        _wait_until_up(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the daemon answers; a model that still loads makes only the first answer wait."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartFailed("The daemon ended at start; its own message is above.")
        try:
            body = _get(f"{url}/ready")
        except (httpx.TransportError, ValueError):
            body = {}
        if body.get("status") in ("ready", "loading"):
            return
        if "error" in body:  # it is up, and tells the first question that it wants a key
            return
        if body.get("status") == "unavailable":
            raise StartFailed(f"The daemon at {url} cannot answer: {body.get('reason')}")
        time.sleep(0.05)
    raise StartFailed(
        f"The daemon at {url} did not answer within {START_TIMEOUT_S:g} s: see what uses its port."
    )
