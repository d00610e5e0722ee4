"""A loopback HTTP server that speaks as much of Hugging Face and of Range as downloads need."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer(ThreadingHTTPServer):
    """`files` maps a path to its bytes; `cut_after` breaks the next body off after so many. `redirects` maps
    a path to an address; `headers` are sent with every file, `has_head` says whether HEAD is answered.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.cut_after: int | None = None
        self.ranges: list[str | None] = []
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.has_head = True
        self.linked = True  # whether files have their digest in a header, as the hub's have
        self.scheme = "http"

    def repository(self, repo: str, files: dict[str, bytes], revision: str = "main") -> None:
        """Serve a Hugging Face repository: its listing, and its files."""
        listing = [
            {
                "type": "file", "path": path, "size": len(data), "oid": "0" * 40,
                "lfs": {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 100},
            }
            for path, data in files.items()
        ]  # fmt: skip
        self.files[f"/api/models/{repo}/tree/{revision}"] = json.dumps(listing).encode()
        for path, data in files.items():
            self.files[f"/{repo}/resolve/{revision}/{path}"] = data

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        data = self.server.files.get(path)
        if path in self.server.redirects or data is None or not (body or self.server.has_head):
            there = self.server.redirects.get(path)
            self.send_response(302 if there else (404 if data is None else 405))
            if there:
                self.send_header("Location", there)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = f'"{sha256(data).hexdigest()}"'
        begin, asked = 0, self.headers.get("Range")
        if body:
            self.server.ranges.append(asked)
        if asked and self.headers.get("If-Range", tag) == tag:
            begin = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.send_header("ETag", tag)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(data)))
        if self.server.linked:
            self.send_header("X-Linked-Etag", tag)
        self.end_headers()
        if not body:
            return
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(data[begin:][:cut])
        if cut is not None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(2)


@contextmanager
def serving(files: dict[str, bytes], certificate: str | None = None) -> Iterator[FileServer]:
    """A server of files; with a `certificate` (a PEM file with its key) it speaks https."""
    server = FileServer(files)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, name="file-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
