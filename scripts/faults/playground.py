"""A daemon to be thrown at: small models, an administrator's key, and what its log says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import (
    CACHE,
    MINILM,
    DaemonProcess,
    clean_environment,
    serving,
    write_stories,
)

# stories260K has no template of its own. This one shows tools, so that calls are asked for as well.
TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
)
MODEL = "stories260k"
# Small bounds: what is asked for by accident ends soon.
SETTINGS = {
    "n_ctx": 512, "n_seq": 8, "default_max_tokens": 32, "default_model": MODEL, "allow_grammars": True,
    "search": True, "body_timeout_s": 5, "header_timeout_s": 5, "queue_timeout_s": 20,
}  # fmt: skip


@dataclass
class Playground:
    """`key` may do everything; `document` is the OpenAPI document that the daemon serves."""

    daemon: DaemonProcess
    key: str
    document: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def is_alive(self) -> bool:
        return self.daemon.process.poll() is None

    def is_well(self) -> bool:
        """Whether it still answers."""
        try:
            return httpx.get(f"{self.daemon.url}/health", timeout=20).status_code == 200
        except httpx.HTTPError:
            return False

    def complaints(self) -> list[str]:
        """Lines of its log about workers that died and errors that nobody foresaw."""
        log = self.daemon.log.read_text(errors="replace")
        return re.findall(r"(?:worker_died|worker_frame_bad|unforeseen) .*", log)


@contextmanager
def playground(**settings: Any) -> Iterator[Playground]:
    """A daemon with stories260K and, where the tests have installed it, all-MiniLM-L6-v2."""
    with tempfile.TemporaryDirectory(prefix="edgeagent-faults-") as scratch:
        models = Path(scratch, "models")
        models.mkdir()
        write_model(models / f"{MODEL}.gguf")
        if (CACHE / MINILM).is_dir():
            shutil.copytree(CACHE / MINILM, models / MINILM)
        with serving(models, Path(scratch, "state"), **(SETTINGS | settings)) as daemon:
            key = _make_key(daemon)
            headers = {"authorization": f"Bearer {key}"}
            document = httpx.get(f"{daemon.url}/schema/openapi.json", headers=headers, timeout=60)
            yield Playground(daemon, key, document.raise_for_status().json())


def write_model(path: Path) -> None:
    """The tiny test model with a chat template."""
    write_stories(path, TEMPLATE)


def _make_key(daemon: DaemonProcess) -> str:
    scopes = "admin,chat,embeddings,transcribe,models,data"
    command = [sys.executable, "-m", "edgeagent", "keys", "create", "--name", "faults"]
    command += ["--scopes", scopes, "--state-dir", str(daemon.state_dir)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=clean_environment(), timeout=600
    )
    return done.stdout.strip()
