"""A small HTTP server for reading: a few pages, made anew for each request.

In: GET and HEAD of paths that it knows, from clients of which some are slow or hostile. Out: what
the page's function returns. `MOST_CLIENTS` are served at a time, each on a thread of its own and
for a few seconds at most; the thread `http` accepts them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

log = logging.getLogger(__name__)

MOST_CLIENTS: Final = 8
"""Further ones are hung up on."""
MOST_BYTES: Final = 8192
"""The longest request: its first line and its headers."""
REQUEST_S, ANSWER_S = 3.0, 5.0
"""How long a client may take to send its request, and to take the answer."""
FAULT_S: Final = 0.1
"""A pause after a client that could not be accepted."""
JSON, TEXT = "application/json", "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered."""

    body: bytes
    """The content."""
    content_type: str = JSON
    """Its media type."""
    ok: bool = True
    """Whether the status is 200; else 503."""


Pages = Mapping[str, Callable[[], Page]]


class HttpServer:
    """Serves pages.

    Args:
        host: Address to listen at.
        port: TCP port; 0 takes any that is free.
        pages: What makes each page, by its path; called on any thread.

    Raises:
        OSError: The address cannot be listened at.
    """

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        # Python finds the family of an address in a class, not in an argument.
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        kind = type("Server", (Server,), {"address_family": family})
        self._server: Server = kind((host, port), pages)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._server.server_close()

    def _run(self) -> None:
        while not self._stopping:
            # serve_forever() would wake up twice a second.
            self._server.handle_request()


class Server(ThreadingHTTPServer):
    """Accepts a bounded number of clients."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.pages = pages
        self._free = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind, without a search for the host's name, which may take its time."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a client."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(FAULT_S)  # without file descriptors it would fail again at once
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client on a thread, or hang up on it."""
        if not self._free.acquire(blocking=False):
            log.debug("more than %d clients at a time: one is hung up on", MOST_CLIENTS)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Take a fault of one client calmly: it may have gone away."""
        log.debug("an HTTP request failed", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes the connection."""

    server_version = "harkd"
    sys_version = ""
    error_content_type = TEXT
    error_message_format = "%(code)d %(message)s\n"

    def setup(self) -> None:
        """Read the request as a whole, for no longer than it may take."""
        super().setup()
        self.rfile = io.BytesIO(read_head(self.connection))
        self.connection.settimeout(ANSWER_S)

    def handle(self) -> None:
        """Answer."""
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(MOST_BYTES)
        if self.raw_requestline and self.parse_request():
            self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Log at debug level, with what a client chose made harmless."""
        log.debug("HTTP: %r", format % args)

    def _answer(self) -> None:
        if self.command not in ("GET", "HEAD"):
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"405 GET and HEAD only\n", TEXT)
            return
        server = self.server
        make = server.pages.get(self.path.partition("?")[0]) if isinstance(server, Server) else None
        if make is None:
            self._send(HTTPStatus.NOT_FOUND, b"404 Not found\n", TEXT)
            return
        try:
            page = make()
        except Exception:
            log.exception("the page %s could not be made", self.path.partition("?")[0])
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, b"500 The log says why\n", TEXT)
            return
        status = HTTPStatus.OK if page.ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(status, page.body, page.content_type)

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def read_head(connection: socket.socket) -> bytes:
    """Read a request up to its empty line.

    Returns nothing where it is too long, takes too long, or ends before.
    """
    head = b""
    end_s = time.monotonic() + REQUEST_S
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        left_s = end_s - time.monotonic()
        if left_s <= 0 or len(head) >= MOST_BYTES:
            return b""
        connection.settimeout(left_s)
        try:
            data = connection.recv(MOST_BYTES - len(head))
        except OSError:
            return b""
        if not data:
            return b""
        head += data
    return head
