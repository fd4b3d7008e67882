"""A server of some files in memory, for this machine alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

from ..errors import UnsupportedError

HOST = "127.0.0.1"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


class Server(ThreadingHTTPServer):
    """Answers GET and HEAD for `files`, by name; "/" is index.html. Port 0 is a free one.

    UnsupportedError where the port cannot be had.
    """

    daemon_threads = True  # a browser that keeps its connection does not keep the server

    def __init__(self, files: Mapping[str, bytes], port: int = 0) -> None:
        self.files = files
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UnsupportedError(
                f"cannot serve on {HOST}:{port}: {error.strerror or error}; leave out --port for a "
                "free one"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "AdderGraph"

    def do_GET(self) -> None:
        data = self._head()
        if data is not None:
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self._head()

    def _head(self) -> bytes | None:
        name = self.path.partition("?")[0].removeprefix("/") or "index.html"
        data = self.server.files.get(name)
        if data is None:
            self.send_error(404)
            return None
        self.send_response(200)
        self.send_header("Content-Type", KINDS[PurePosixPath(name).suffix])
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        return data

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are no news."""


def serve(files: Mapping[str, bytes], port: int, ready: Callable[[str], object]) -> None:
    """Serves until Ctrl-C, which ends it without an error; `ready` is told the address."""
    with Server(files, port) as server:
        ready(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
