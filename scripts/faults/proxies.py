"""A daemon behind Caddy and nginx, set up as `systemd/proxy/` shows: TLS, keys, streams, bounds.

    python scripts/faults/proxies.py

Needs `caddy` and `nginx` (Debian packages caddy and nginx-light); one that is missing is left out.
The examples are used as they are, but for ports, names of files and the host.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.conftest import DaemonProcess, serving, wait_for, write_stories  # noqa: E402

HOST = "localhost"
# Long enough to be left in the middle.
STORY = {
    "model": "default",
    "prompt": "Once upon a time",
    "stream": True,
    "max_tokens": 400,
    "temperature": 0,
}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def main() -> int:
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="edgeagent-proxies-") as scratch:
        folder = Path(scratch)
        certify(folder)
        models = folder / "models"
        models.mkdir()
        write_stories(models / "stories260k.gguf", TEMPLATE)
        with serving(
            models,
            folder / "state",
            default_model="stories260k",
            allowed_hosts=["edge.example"],
            stream_interval_ms=0,
        ) as daemon:
            key = httpx.post(
                f"{daemon.url}/admin/keys", json={"name": "proxy", "scopes": ["chat", "models"]}
            ).json()
            for name, proxy in (("caddy", caddy), ("nginx", nginx)):
                if shutil.which(name) is None:
                    print(f"{name} is not installed: left out", file=sys.stderr)
                    continue
                with proxy(folder, daemon.url.rpartition(":")[2]) as port:
                    for what, check in CHECKS.items():
                        rows.append(
                            (name, what, outcome(check, folder, port, key["secret"], daemon))
                        )
    print("| proxy | what | outcome |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0 if rows and all(row[2].startswith("ok") for row in rows) else 1


def certify(folder: Path) -> None:
    """A certificate for localhost that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [
        x509.DNSName("edge.example"),
        x509.DNSName(HOST),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@contextlib.contextmanager
def caddy(folder: Path, upstream: str) -> Iterator[int]:
    port = free_port()
    text = (ROOT / "systemd" / "proxy" / "Caddyfile").read_text()
    text = text.replace("edge.example:8443", f"https://edge.example:{port}, https://{HOST}:{port}")
    text = text.replace("tls internal", f"tls {folder}/cert.pem {folder}/key.pem").replace(
        ":8484", f":{upstream}"
    )
    config = folder / "Caddyfile"
    config.write_text(text)
    command = ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
    with running(command, port, folder):
        yield port


@contextlib.contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[int]:
    port = free_port()
    text = (ROOT / "systemd" / "proxy" / "nginx.conf").read_text()
    text = text.replace("listen 8443", f"listen 127.0.0.1:{port}").replace(":8484", f":{upstream}")
    text = text.replace("/etc/edgeagent/tls", str(folder)).replace(
        "server_name edge.example", f"server_name edge.example {HOST}"
    )
    config = folder / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    head = f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}}\n"
    config.write_text(f"{head}http {{\n{places}{text}}}\n")
    with running(["nginx", "-c", str(config), "-p", str(folder)], port, folder):
        yield port


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin"}
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / f"{command[0]}.out").read_text())
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def outcome(check: Callable[..., str], *arguments: object) -> str:
    try:
        return check(*arguments)
    except Exception as exc:
        return f"failed: {type(exc).__name__}: {exc}"[:200].replace("\n", " ")


def client(folder: Path, port: int, host: str = HOST) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    return httpx.Client(base_url=f"https://{host}:{port}", verify=context, timeout=60)


def answers(folder: Path, port: int, key: str, daemon: DaemonProcess) -> str:
    with client(folder, port) as http:
        sdk = openai.OpenAI(
            base_url=f"https://{HOST}:{port}/v1", api_key=key, http_client=http, max_retries=0
        )
        reply = sdk.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "Tell a tale"}], max_tokens=8
        )
        return f"ok, {reply.usage.completion_tokens} tokens" if reply.usage else "failed: no usage"


def needs_a_key(folder: Path, port: int, key: str, daemon: DaemonProcess) -> str:
    with client(folder, port) as http:
        code = http.get("/v1/models").status_code
        return "ok, 401" if code == 401 else f"failed: {code}"


def streams(folder: Path, port: int, key: str, daemon: DaemonProcess) -> str:
    times = []
    with client(folder, port) as http, http.stream(
        "POST", "/v1/completions", json=STORY, headers={"authorization": f"Bearer {key}"}
    ) as reply:  # fmt: skip
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
    n_pauses = sum(1 for gap in map(float.__sub__, times[1:], times) if gap > 0.001)
    return f"{'ok' if n_pauses >= 3 else 'failed'}, {len(times)} pieces, {n_pauses} pauses"


def leaving_ends_the_answer(folder: Path, port: int, key: str, daemon: DaemonProcess) -> str:
    head = {"authorization": f"Bearer {key}"}
    n_before = daemon.log.read_text().count("finish=cancelled")
    with client(folder, port) as http, http.stream(
        "POST", "/v1/completions", json=STORY, headers=head
    ) as reply:  # fmt: skip
        next(reply.iter_lines())
    wait_for(lambda: daemon.log.read_text().count("finish=cancelled") > n_before, 10)
    return "ok, cancelled"


def large_bodies_are_refused(folder: Path, port: int, key: str, daemon: DaemonProcess) -> str:
    with client(folder, port) as http:
        body = json.dumps(
            {"model": "default", "messages": [{"role": "user", "content": "x" * (5 << 20)}]}
        )
        try:
            reply = http.post(
                "/v1/chat/completions",
                content=body,
                headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            )
        except httpx.WriteError:
            return "ok, connection closed"
        return "ok, 413" if reply.status_code == 413 else f"failed: {reply.status_code}"


def other_hosts_are_refused(folder: Path, port: int, key: str, daemon: DaemonProcess) -> str:
    with client(folder, port) as http:
        head = {"host": "evil.example", "authorization": f"Bearer {key}"}
        reply = http.get("/v1/models", headers=head)
        is_passed_on = reply.status_code == 200 and b"stories260k" in reply.content
        return "failed: passed on" if is_passed_on else f"ok, {reply.status_code} without models"


def forwarded_headers_change_nothing(
    folder: Path, port: int, key: str, daemon: DaemonProcess
) -> str:
    with client(folder, port) as http:
        reply = http.get(
            "/v1/models", headers={"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1"}
        )
        return "ok, 401" if reply.status_code == 401 else f"failed: {reply.status_code}"


CHECKS = {
    "a chat by the openai client over TLS": answers,
    "a request without a key": needs_a_key,
    "pieces of a stream arrive one by one": streams,
    "a client that leaves ends its answer": leaving_ends_the_answer,
    "a body of 5 MiB": large_bodies_are_refused,
    "another host name": other_hosts_are_refused,
    "forged X-Forwarded-For without a key": forwarded_headers_change_nothing,
}

if __name__ == "__main__":
    raise SystemExit(main())
