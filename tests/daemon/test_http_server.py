"""Pages for everybody who asks nicely; slow and hostile clients hold nobody up."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from harkd import http_server
from harkd.http_server import MOST_CLIENTS, HttpServer, Page
from servers import wait_until


class Site:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.inside = 0
        self.server = HttpServer(
            "127.0.0.1",
            0,
            {
                "/yes": lambda: Page(b'{"ok":true}'),
                "/no": lambda: Page(b'{"ok":false}', ok=False),
                "/broken": self.break_down,
                "/slow": self.wait,
            },
        )
        self.server.start()
        self.port = self.server.port

    def break_down(self) -> Page:
        raise RuntimeError("a fault of ours")

    def wait(self) -> Page:
        self.inside += 1
        self.gate.wait(10)
        return Page(b"{}")

    def ask(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def send(self, data: bytes) -> bytes:
        """Everything that is answered to some bytes."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            client.sendall(data)
            found = b""
            while more := client.recv(4096):
                found += more
            return found


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.gate.set()
    site.server.stop()


def test_a_page_is_200_or_503_with_its_body(site: Site) -> None:
    status, headers, body = site.ask("GET", "/yes?now")
    assert (status, body) == (200, b'{"ok":true}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"].strip() == "harkd", "nobody needs to know which Python this is"
    assert site.ask("GET", "/no")[::2] == (503, b'{"ok":false}')


def test_head_is_the_same_without_the_body(site: Site) -> None:
    status, headers, body = site.ask("HEAD", "/no")
    assert (status, headers["Content-Length"], body) == (503, "12", b"")


@pytest.mark.parametrize("path", ["/", "/yes/", "/../yes", "/%2e", "/nothing"])
def test_other_paths_are_404(site: Site, path: str) -> None:
    assert site.ask("GET", path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods_are_405(site: Site, method: str) -> None:
    status, headers, _ = site.ask(method, "/yes")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_fault_of_ours_is_500_and_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, body = site.ask("GET", "/broken")
    assert status == 500
    assert b"fault of ours" not in body
    assert "the page /broken could not be made" in caplog.text


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 20_000,
        b"GET /yes HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(2000)) + b"\r\n",
    ],
)
def test_a_long_request_is_hung_up_on(site: Site, data: bytes) -> None:
    with contextlib.suppress(OSError):  # what we did not read may end the connection harder
        assert site.send(data) == b""
    assert site.ask("GET", "/yes")[0] == 200


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x00\r\n\r\n", b"GET /yes HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_refused_in_words(site: Site, data: bytes) -> None:
    assert b"<" not in site.send(data), "no HTML with what the client sent in it"
    assert site.ask("GET", "/yes")[0] == 200


def test_a_client_that_sends_slowly_has_a_deadline_for_all_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.3)
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", site.port), 5) as client:
        client.settimeout(0.05)
        ended = False
        while not ended and time.monotonic() - begin < 5:
            try:
                client.sendall(b"x")
                ended = client.recv(10) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
    assert ended
    assert time.monotonic() - begin < 4


def test_no_more_than_some_clients_are_served_at_a_time(site: Site) -> None:
    idle = [socket.create_connection(("127.0.0.1", site.port), 5) for _ in range(MOST_CLIENTS)]
    try:
        for each in idle:
            each.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        wait_until(lambda: site.inside == MOST_CLIENTS, "all of them", 5)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            site.ask("GET", "/yes")
        site.gate.set()
        for each in idle:
            assert each.recv(100).startswith(b"HTTP/1.0 200")
        wait_until(lambda: answers(site), "an answer again", 5)
    finally:
        for each in idle:
            each.close()


def answers(site: Site) -> bool:
    try:
        return site.ask("GET", "/yes")[0] == 200
    except OSError:
        return False


def test_stopping_frees_the_port_at_once(site: Site) -> None:
    begin = time.monotonic()
    site.server.stop()
    assert time.monotonic() - begin < 0.9, "the thread was woken"
    again = HttpServer("127.0.0.1", site.port, {})
    again.stop()


def test_ipv6_is_listened_at_too() -> None:
    try:
        server = HttpServer("::1", 0, {"/yes": lambda: Page(b"{}")})
    except OSError:
        pytest.skip("this machine has no IPv6")
    server.start()
    connection = http.client.HTTPConnection("::1", server.port, timeout=5)
    connection.request("GET", "/yes")
    assert connection.getresponse().status == 200
    connection.close()
    server.stop()


def test_a_taken_port_is_an_os_error(site: Site) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer("127.0.0.1", site.port, {})
