"""A server that behaves as an upstream should not, by a script, and counts what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "127.0.0.1"
WORDS = ("one ", "two ", "three ", "four")
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 4,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 5},
}
BOMB = gzip.compress(b"\0" * (16 << 20), 1)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def piece(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    return event(choices=[{"index": index, "delta": delta, "finish_reason": finish}])


class ScriptedServer:
    """`behaviour` names what it does with the next requests: one of the methods `_do_...`, or a status.

    `n_connections` counts what was accepted, `bodies` has the requests, `n_answered` counts whole answers by
    the last message of the request. `delay_s` is a pause before each piece. A server that `keeps` its
    connections ends each one when the second request has come, without an answer to it.
    """

    def __init__(self, behaviour: str = "answer", tls: ssl.SSLContext | None = None) -> None:
        self.behaviour = behaviour
        self.retry_after = "7"
        self.delay_s = 0.0
        self.n_connections = 0
        self.n_checks = 0
        self.n_now = self.n_most = 0
        self.heads: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.n_answered: dict[str, int] = {}
        self.pieces: list[bytes] | None = None  # in place of the usual ones
        self.error: dict[str, Any] | None = None  # of a status, in place of the usual one
        self.keeps = False
        self.n_dropped = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}/v1"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As if it were killed: its port refuses, its connections end."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._server = None
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        self._writers.add(writer)
        gone = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            if head[0].startswith("GET"):
                self.n_checks += 1
                is_well = self.behaviour == "answer"
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % (200 if is_well else 500)
                )
                await writer.drain()
            else:
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                self.heads.append({":path": head[0].split()[1]} | fields)
                self.bodies.append(body)
                self.n_now += 1
                self.n_most = max(self.n_most, self.n_now)
                try:
                    await self._act(body, writer)
                finally:
                    self.n_now -= 1
                if self.keeps:
                    await reader.readuntil(b"\r\n\r\n")
                    self.n_dropped += 1
        self._writers.discard(writer)
        writer.close()

    async def _act(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if self.behaviour.isdigit():
            error = {"message": "no\x1b[31m", "code": "context_length_exceeded"}
            data = json.dumps({"error": self.error or error}).encode()
            head = f"HTTP/1.1 {self.behaviour} X\r\ncontent-length: {len(data)}\r\n"
            head += f"retry-after: {self.retry_after}\r\nlocation: http://127.0.0.1:1/v1\r\n\r\n"
            writer.write(head.encode() + data)
            await writer.drain()
            return
        async for data in getattr(self, f"_do_{self.behaviour}")(body):
            writer.write(self._kept(data) if self.keeps else data)
            await writer.drain()
        if self.keeps:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    @staticmethod
    def _kept(data: bytes) -> bytes:
        """A part of an answer whose end is not the end of its connection."""
        if data.startswith(STREAM):
            return data.replace(b"connection: close", b"transfer-encoding: chunked")
        return b"%x\r\n%s\r\n" % (len(data), data)

    async def _do_answer(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        if "messages" in body:
            key = str(body["messages"][-1]["content"])
            pieces = [piece({"role": "assistant", "content": ""})]
            pieces += [piece({"content": word}) for word in WORDS] + [piece({}, "stop")]
        else:
            key = str(body["prompt"])
            pieces = [event(choices=[{"index": 0, "text": word}]) for word in WORDS]
            pieces.append(event(choices=[{"index": 0, "text": "", "finish_reason": "stop"}]))
        yield STREAM + b"\r\n"
        for one in self.pieces or [*pieces, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            yield one
        self.n_answered[key] = self.n_answered.get(key, 0) + 1

    async def _do_silent(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        await asyncio.sleep(30)
        yield b""

    async def _do_hang_up(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        for nothing in ():
            yield nothing

    async def _do_head_only(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield STREAM + b"\r\n" + piece({"role": "assistant", "content": ""})

    async def _do_half(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield STREAM + b"transfer-encoding: chunked\r\n\r\n"
        data = piece({"content": "half "})
        yield b"%x\r\n%s\r\n" % (len(data), data)

    async def _do_wrong_schema(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield STREAM + b"\r\n" + event(choices="none", id=[1])

    async def _do_html(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>log in</html>"

    async def _do_no_http(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield b"SSH-2.0-OpenSSH_9.9\r\n\r\n"

    async def _do_giant(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield STREAM + b"\r\ndata: "
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    async def _do_endless(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield STREAM + b"\r\n"
        while True:
            yield b": ping\n\n" * 100
            await asyncio.sleep(0.001)

    async def _do_bomb(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield STREAM + b"content-encoding: gzip\r\n\r\n" + BOMB


@contextlib.contextmanager
def in_thread(*servers: ScriptedServer) -> Iterator[asyncio.AbstractEventLoop]:
    """The servers on an event loop of their own, for callers that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted-upstreams")
    thread.start()
    try:
        for server in servers:
            asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield loop
    finally:
        for server in servers:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def certified(folder: Path, *, days: int = 1) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS with a certificate that ends in `days` (negative: it has expired), and the file of the
    authority that made it."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    until = now + datetime.timedelta(days=days)

    def builder(subject: str, public: Any) -> x509.CertificateBuilder:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
        )

    ca = (
        builder("test authority", ca_key.public_key())
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        builder("upstream", key.public_key())
        .not_valid_after(until)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .sign(ca_key, hashes.SHA256())
    )
    ca_file, cert_file, key_file = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    cert_file.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context, ca_file
