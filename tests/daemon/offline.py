"""A daemon in a network of its own that has loopback and nothing else; prints what was asked and sent.

    unshare --user --map-root-user --net python -m tests.daemon.offline MODELS_DIR STATE_DIR

One JSON object: the status of each request, and how the kernel's counters of this network changed. In a
network without routes each attempt to reach another machine counts as `OutNoRoutes`, and each question to
a name server on loopback as a datagram.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

PORT = 8484
COUNTERS = (
    "IpOutNoRoutes", "Ip6OutNoRoutes", "UdpOutDatagrams", "Udp6OutDatagrams", "TcpActiveOpens",
)  # fmt: skip
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
STORIES = {"model": "stories260k"}
ASKED = (
    ("GET", "/health", None),
    ("GET", "/v1/models", None),
    ("POST", "/v1/completions", STORIES | {"prompt": "Once upon", "max_tokens": 4}),
    ("POST", "/v1/completions", STORIES | {"prompt": "Once", "max_tokens": 4, "stream": True}),
    ("POST", "/api/generate", STORIES | {"prompt": "Once", "options": {"num_predict": 4}}),
    ("POST", "/v1/completions", {"model": "SmolLM2-1.7B-Instruct", "prompt": "Hi", "max_tokens": 1}),
    ("POST", "/api/pull", {"model": "llama3.2"}),
    ("GET", "/schema", None),
)  # fmt: skip


def counted() -> dict[str, int]:
    """Counters of this network namespace since it began."""
    found = {}
    lines = Path("/proc/net/snmp").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol = names.split(":")[0]
        counts = zip(names.split()[1:], values.split()[1:], strict=True)
        found |= {f"{protocol}{name}": int(value) for name, value in counts}
    six = Path("/proc/net/snmp6")
    if six.exists():
        found |= {n: int(v) for n, v in (line.split() for line in six.read_text().splitlines())}
    return {name: found.get(name, 0) for name in COUNTERS}


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, name))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def ask(method: str, path: str, body: dict[str, object] | None) -> int:
    client = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        client.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = client.getresponse()
        answer.read()
        return answer.status
    finally:
        client.close()


def until_up(daemon: subprocess.Popen[bytes]) -> int:
    """How often it was tried."""
    for tried in range(1, 600):
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended with {daemon.returncode}")
        try:
            ask("GET", "/health", None)
        except OSError:
            time.sleep(0.1)
        else:
            return tried
    raise SystemExit("the daemon did not answer")


def attempt() -> None:
    """What the counters are there to see."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.connect(("192.0.2.1", 443))
            except OSError:
                continue


def main(models_dir: str, state_dir: str) -> None:
    raise_loopback()
    env = os.environ | {
        "EDGEAGENT_STORE__KEY_FILE": str(Path(state_dir).parent / "keys" / "store.key"),
        "EDGEAGENT_MODELS__DEFAULT": "stories260k",
        "EDGEAGENT_DEVICE__MEASURE_WHEN_IDLE": "false",
    }
    command = [
        sys.executable, "-m", "edgeagent", "serve", "--port", str(PORT), "--models-dir", models_dir,
        "--state-dir", state_dir,
    ]  # fmt: skip
    before = counted()
    with Path(state_dir).with_suffix(".log").open("wb") as log:
        daemon = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            n_opened = until_up(daemon)
            statuses = [ask(*one) for one in ASKED]
        finally:
            daemon.terminate()
            daemon.wait(30)
    served = counted()
    attempt()
    tried = counted()
    print(json.dumps({
        "statuses": statuses, "n_opened": n_opened + len(ASKED),
        "served": {name: served[name] - before[name] for name in served},
        "attempt": {name: tried[name] - served[name] for name in served},
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
