"""Encrypted and other connections to real brokers: what goes wrong, the one line that tells it, and
that it goes on by itself once that is mended."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

import pytest

from certificates import Certificates, server_lines
from harkd import mqtt_connection, mqtt_reports
from harkd import publisher as publisher_module
from harkd.app import warn_of_risks
from harkd.errors import BrokerError, BrokerUntrustedError
from harkd.messages import About, Message
from harkd.mqtt_address import Address, Tls
from harkd.mqtt_connection import Connection, Inbox
from harkd.mqtt_settings import PasswordFile
from harkd.mqtt_tls import Context, make_context
from harkd.publisher import Publisher
from listeners import listener, say_nothing
from servers import Mosquitto, Subscriber, wait_until

pytestmark = pytest.mark.integration

ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", retain_last=True, max_age_s=30)
WEBSOCKET = "protocol websockets"
CLIENT = "require_certificate true"


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harkd")


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= level]


@contextlib.contextmanager
def publishing(
    address: Address, protocol: str = "auto", jitter: float = 0.005
) -> Iterator[Publisher]:
    """A publisher that waits a two-hundredth of its usual times."""
    publisher = Publisher(address, protocol, ABOUT, jitter=lambda: jitter)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()


def told_once(caplog: pytest.LogCaptureFixture, words: str, attempts: int = 3) -> str:
    """The one line at warning or above, after some attempts that all ended in the same way."""

    def tried() -> bool:
        lines = [line for line in said(caplog, logging.DEBUG) if "trying another" not in line]
        return sum(words in line for line in lines) >= attempts

    try:
        wait_until(tried, f"{attempts} times {words!r}", 10)
    except AssertionError as error:
        raise AssertionError(f"{error}; the log: {said(caplog, logging.DEBUG)}") from None
    (line,) = said(caplog, logging.WARNING)
    assert words in line
    return line


# ------------------------------------------------------------------ all is well


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize("version", ["5", "3.1.1", "3.1"])
def test_each_version_goes_over_each_transport_with_and_without_tls(
    tmp_path: Path, certificates: Certificates, version: str, websocket: bool, tls: bool
) -> None:
    lines = server_lines(certificates, certificates.server) if tls else []
    lines += [WEBSOCKET] if websocket else []
    with Mosquitto(tmp_path, lines=lines) as server:
        address = Address(
            "localhost",
            server.port,
            "harkd-kitchen",
            tls=Tls(certificates.ca) if tls else None,
            websocket_path="/mqtt" if websocket else "",
        )
        connection = Connection(address, version, None, inbox := Inbox())
        connection.open()
        way = ["TLSv1.3"] * tls + ["WebSocket"] * websocket
        assert str(connection) == " over ".join(
            [f"MQTT {version}", " and ".join(way)][: 1 + bool(way)]
        )
        connection.subscribe(["house/big"])
        assert connection.subscribed.wait(5)
        payload = bytes(1000 if websocket else 100_000)  # Mosquitto takes 2 s for that much
        assert connection.send(Message("house/big", payload, 1))
        received: list[mqtt_connection.Received] = []
        while not received:
            event = inbox.get(timeout=5)
            received = [event] if isinstance(event, mqtt_connection.Received) else []
        assert received[0].payload == payload
        connection.close()


# ------------------------------------------------------------------ certificates


def test_an_encrypted_broker_that_is_killed_and_started_is_found_again(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    lines = server_lines(certificates, certificates.server)
    with Mosquitto(tmp_path, lines=lines) as server:
        address = Address("localhost", server.port, "harkd", tls=Tls(certificates.ca))
        with publishing(address) as publisher:
            assert publisher.connected.wait(5)
            server.kill()
            wait_until(lambda: bool(said(caplog, logging.WARNING)), "loss of the broker", 5)
            line = said(caplog, logging.WARNING)[0]
            assert line.endswith("(it closed the connection); reconnecting")
            server.start()
            assert publisher.connected.wait(5)


@dataclass(frozen=True)
class Fault:
    """A fault of the certificates, and its mend: names of `Certificates`."""

    says: str
    """Part of the line."""
    mend: str
    """Another part of it."""
    level: str = "ERROR"
    server: str = "server"
    """What the broker has."""
    ca: str = "ca"
    """What we trust."""
    own: str = ""
    """What we have."""
    lines: tuple[str, ...] = ()
    """More of the broker's settings."""
    mended_own: str = ""
    """What we have at last."""
    path: str = ""
    """Of the WebSocket."""
    old: bool = False
    """Whether it is TLS 1.2, where a broker refuses us before and not after the handshake."""


ON_FILE = {
    "a wrong CA": Fault("authority that is not in", "mqtt.tls_ca_file", ca="other_ca"),
    "our certificate missing": Fault(
        "wants a certificate from us", "mqtt.tls_cert_file", lines=(CLIENT,), mended_own="client"
    ),
    "our certificate expired": Fault(
        "our certificate has expired",
        "renew the one in mqtt.tls_cert_file",
        own="expired_client",
        lines=(CLIENT,),
        mended_own="client",
    ),
    "our certificate from elsewhere": Fault(
        "does not know the authority that made our certificate",
        "mqtt.tls_cert_file",
        own="strange_client",
        lines=(CLIENT,),
        mended_own="client",
    ),
    "our certificate missing, WebSocket": Fault(
        "wants a certificate from us",
        "mqtt.tls_cert_file",
        lines=(CLIENT, WEBSOCKET),
        mended_own="client",
        path="/mqtt",
    ),
    "our certificate missing, TLS 1.2": Fault(
        "may want a certificate from us",
        "mqtt.tls_cert_file",
        lines=(CLIENT,),
        old=True,
        mended_own="client",
    ),
    "our certificate expired, TLS 1.2": Fault(
        "our certificate has expired",
        "renew",
        own="expired_client",
        lines=(CLIENT,),
        old=True,
        mended_own="client",
    ),
    "a broker of another authority": Fault(
        "authority that is not in", "mqtt.tls_ca_file", server="stranger"
    ),
    "a self-signed broker": Fault(
        "authority that is not in", "mqtt.tls_ca_file", server="self_signed"
    ),
    "a wrong name": Fault('is not for "localhost"', "mqtt.tls_server_name", server="elsewhere"),
    "an expired certificate": Fault(
        "has expired (this machine's clock says", "Renew it at the broker", server="expired"
    ),
    "a certificate of the future": Fault(
        "is not valid yet (this machine's clock says", "without a battery", server="not_yet"
    ),
}


@pytest.mark.parametrize("fault", ON_FILE.values(), ids=ON_FILE)
def test_a_fault_of_a_certificate_is_one_line_and_mended_without_a_restart(
    tmp_path: Path,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    def make_old_context(tls: Tls) -> Context:
        context = make_context(tls)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    if fault.old:
        monkeypatch.setattr(mqtt_connection, "make_context", make_old_context)

    def of(name: str) -> Path:
        path: Path = getattr(certificates, name)
        return path

    ca, own, key = (tmp_path / name for name in ("ca.crt", "own.crt", "own.key"))
    shutil.copy(of(fault.ca), ca)
    if fault.own:
        shutil.copy(of(fault.own), own)
        shutil.copy(of(fault.own).with_suffix(".key"), key)
    tls = Tls(ca, own if fault.own else None, key if fault.own else None)
    lines = server_lines(certificates, of(fault.server), *fault.lines)
    server = Mosquitto(tmp_path, lines=lines)
    address = Address("localhost", server.port, "harkd", tls=tls, websocket_path=fault.path)
    with server, publishing(address) as publisher:
        line = told_once(caplog, fault.says, 2)
        assert fault.mend.lower() in line.lower()
        (level,) = {each.levelname for each in caplog.records if each.levelno > logging.INFO}
        assert level == fault.level
        shutil.copy(certificates.ca, ca)
        if fault.own:
            shutil.copy(of(fault.mended_own), own)
            shutil.copy(of(fault.mended_own).with_suffix(".key"), key)
        elif fault.mended_own or fault.server != "server":
            more = [line for line in fault.lines if line != CLIENT]
            server.restart(server_lines(certificates, certificates.server, *more))
        assert publisher.connected.wait(5), said(caplog, logging.DEBUG)


def test_a_certificate_that_is_not_checked_connects(
    tmp_path: Path, certificates: Certificates
) -> None:
    lines = server_lines(certificates, certificates.self_signed)
    with Mosquitto(tmp_path, lines=lines) as server:
        address = Address("localhost", server.port, "harkd", tls=Tls(verify=False))
        connection = Connection(address, "5", None, Inbox())
        connection.open()
        assert connection.session
        assert connection.session.until is None
        connection.close()


def test_a_self_signed_broker_is_trusted_where_its_certificate_is_named(
    tmp_path: Path, certificates: Certificates
) -> None:
    for name in ("self_signed", "server"):
        certificate = getattr(certificates, name)
        with Mosquitto(tmp_path, lines=server_lines(certificates, certificate)) as server:
            address = Address("localhost", server.port, "harkd", tls=Tls(certificate))
            connection = Connection(address, "5", None, Inbox())
            connection.open()
            connection.close()


def test_without_a_file_the_system_says_whom_to_trust(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL lets these variables stand in for the system's authorities."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    lines = server_lines(certificates, certificates.server)
    with Mosquitto(tmp_path, lines=lines) as server:
        address = Address("localhost", server.port, "harkd", tls=Tls())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.other_ca))
        with pytest.raises(BrokerUntrustedError, match="comes from an authority of its own"):
            Connection(address, "5", None, Inbox()).open()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        connection = Connection(address, "5", None, Inbox())
        connection.open()
        connection.close()


def test_the_name_to_check_may_be_another_than_the_host(
    tmp_path: Path, certificates: Certificates
) -> None:
    lines = server_lines(certificates, certificates.elsewhere)
    with Mosquitto(tmp_path, lines=lines) as server:
        tls = Tls(certificates.ca, server_name="broker.example")
        connection = Connection(
            Address("127.0.0.1", server.port, "harkd", tls=tls), "5", None, Inbox()
        )
        connection.open()
        session = connection.session
        assert session
        assert (session.subject, session.issuer) == ("elsewhere", "The house's own CA")
        connection.close()
        tls = replace(tls, server_name="other.example")
        with pytest.raises(BrokerUntrustedError, match=r'not for "other\.example"'):
            Connection(
                Address("127.0.0.1", server.port, "harkd", tls=tls), "5", None, Inbox()
            ).open()


def test_files_that_vanish_are_one_line_and_read_when_they_are_back(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    ca, own, key = (tmp_path / name for name in ("ca.crt", "own.crt", "own.key"))
    tls = Tls(ca, own, key)
    with (
        Mosquitto(tmp_path, lines=server_lines(certificates, certificates.server)) as server,
        publishing(Address("localhost", server.port, "harkd", tls=tls)) as publisher,
    ):
        line = told_once(caplog, "mqtt.tls_ca_file")
        for path in (ca, own, key):
            assert f"{path}: there is no such file; correct the path" in line
        assert "\n" not in line
        shutil.copy(certificates.client, own)
        shutil.copy(certificates.client.with_suffix(".key"), key)
        shutil.copy(certificates.ca, ca)
        assert publisher.connected.wait(5)


# ------------------------------------------------------------------ somebody else at the port


ELSEWHERE = {
    "TLS to an open port": ([], True, "", "hung up when asked to begin TLS"),
    "TLS to an open WebSocket": ([WEBSOCKET], True, "/mqtt", "does not speak TLS"),
    "MQTT to a WebSocket": ([WEBSOCKET], False, "", "it speaks HTTP"),
    "a WebSocket to MQTT": ([], False, "/mqtt", "did not open a WebSocket at /mqtt"),
    "MQTT to TLS": (["tls"], False, "", "did not answer as an MQTT broker"),
    "a WebSocket to TLS": (["tls"], False, "/mqtt", "did not open a WebSocket"),
}


@pytest.mark.parametrize(("lines", "tls", "path", "words"), ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_a_wrong_port_is_one_warning_until_a_broker_is_there(
    tmp_path: Path,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    lines: list[str],
    tls: bool,
    path: str,
    words: str,
) -> None:
    def encrypted(wanted: bool) -> list[str]:
        return server_lines(certificates, certificates.server) if wanted else []

    wrong = [*encrypted("tls" in lines), *(line for line in lines if line != "tls")]
    with Mosquitto(tmp_path, lines=wrong) as server:
        address = Address(
            "localhost",
            server.port,
            "harkd",
            tls=Tls(certificates.ca) if tls else None,
            websocket_path=path,
        )
        with publishing(address) as publisher:
            line = told_once(caplog, words)
            assert "mqtt.tls" in line or "mqtt.transport" in line
            server.restart([*encrypted(tls), *([WEBSOCKET] if path else [])])
            assert publisher.connected.wait(5), said(caplog, logging.DEBUG)


def not_found(client: socket.socket) -> None:
    client.recv(2000)
    client.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    client.shutdown(socket.SHUT_RDWR)


def nonsense(client: socket.socket) -> None:
    client.recv(2000)
    client.sendall(b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept\r\n\r\n")


def alert(client: socket.socket) -> None:
    """As OpenSSL's servers of some versions do when they are not spoken to in TLS."""
    client.recv(2000)
    client.sendall(bytes.fromhex("15030100020246"))
    client.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "tls", "path", "words"),
    [
        (say_nothing, True, "", "took the connection but did not begin TLS"),
        (say_nothing, True, "/mqtt", "took the connection but did not begin TLS"),
        (say_nothing, False, "/mqtt", "took the connection but did not open a WebSocket"),
        (say_nothing, False, "", "did not answer as an MQTT broker. Check"),
        (not_found, False, "/wrong", "did not open a WebSocket at /wrong"),
        (nonsense, False, "/mqtt", "did not open a WebSocket at /mqtt"),
        (alert, False, "", "did not answer as an MQTT broker: it speaks TLS. Set mqtt.tls"),
    ],
)
def test_a_server_that_is_no_broker_or_says_nothing_is_one_warning_and_holds_nobody_up(
    tmp_path: Path,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[socket.socket], None],
    tls: bool,
    path: str,
    words: str,
) -> None:
    for module in (mqtt_connection, publisher_module):
        monkeypatch.setattr(module, "ANSWER_S", 0.2)
    monkeypatch.setattr(publisher_module, "HASTY_S", 0.2)
    monkeypatch.setattr(mqtt_connection, "GOODBYE_S", 0.1)
    lines = server_lines(certificates, certificates.server) if tls else []
    server = Mosquitto(tmp_path, lines=[*lines, WEBSOCKET] if path else lines)
    address = Address(
        "127.0.0.1",
        server.port,
        "harkd",
        tls=Tls(certificates.ca) if tls else None,
        websocket_path=path,
    )
    with contextlib.ExitStack() as last, contextlib.ExitStack() as first:
        first.enter_context(listener(answer, server.port))
        publisher = last.enter_context(publishing(address))
        told_once(caplog, words)
        first.close()
        monkeypatch.undo()
        with server:
            assert publisher.connected.wait(5), said(caplog, logging.DEBUG)


def test_a_name_that_nobody_knows_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with publishing(Address("no-such-host.invalid", 1883, "harkd")):
        line = told_once(caplog, 'the name "no-such-host.invalid" cannot be resolved')
    assert "Check mqtt.host" in line


def test_failures_leave_nothing_open(certificates: Certificates) -> None:
    """The tests turn the warning of a socket that nobody closed into an error, too."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with listener(not_found) as port:
        for tls, path in ((Tls(certificates.ca), ""), (None, "/mqtt"), (Tls(), "/mqtt")):
            address = Address("127.0.0.1", port, "harkd", tls=tls, websocket_path=path)
            for _ in range(5):
                with pytest.raises(BrokerError):
                    Connection(address, "5", None, Inbox()).open()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# ------------------------------------------------------------------ the login


def test_a_password_file_is_read_anew_at_each_connect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = [token_hex(8) for _ in range(3)]
    file = tmp_path / "password"
    file.write_text(secrets[0])
    source = PasswordFile(file, "mqtt.password_file")
    with Mosquitto(tmp_path, user="ha", password=secrets[1]) as server:
        address = Address("127.0.0.1", server.port, "harkd", "ha", password_file=source)
        with publishing(address) as publisher:
            line = told_once(caplog, "refused the login", 2)
            assert f"Check mqtt.username and the password in {file}" in line
            file.write_text(secrets[1])
            assert publisher.connected.wait(5)
            server.password = secrets[2]
            file.unlink()
            server.restart()
            wait_until(lambda: "there is no such file" in caplog.text, "word of the file", 5)
            file.write_text(secrets[2])
            assert publisher.connected.wait(5)
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in repr(address)


# ------------------------------------------------------------------ while it is connected


def test_a_broker_that_hangs_is_found_by_the_keepalive_and_again_when_it_goes_on(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    address = Address("127.0.0.1", broker.port, "harkd", keepalive_s=1)
    with publishing(address) as publisher:
        assert publisher.connected.wait(5)
        broker.stop_signal()
        wait_until(lambda: bool(said(caplog, logging.WARNING)), "loss of the broker", 6)
        (line,) = said(caplog, logging.WARNING)
        assert line.endswith("(it does not answer any more); reconnecting")
        broker.continue_signal()
        assert publisher.connected.wait(15)


CONNACK_5, CONNACK_3 = bytes.fromhex("2003000000"), bytes.fromhex("20020000")
TAKEN_OVER = bytes.fromhex("e0018e")


def test_a_daemon_that_is_thrown_out_by_its_double_says_so_once_and_gives_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As brokers of MQTT 5 do it; Mosquitto 2.0.11 just hangs up."""
    came: list[float] = []

    def throw_out(client: socket.socket) -> None:
        came.append(time.monotonic())
        client.recv(2000)
        client.sendall(CONNACK_5)
        time.sleep(0.05)
        client.sendall(TAKEN_OVER)

    with (
        listener(throw_out) as port,
        publishing(Address("127.0.0.1", port, "harkd-kitchen"), "5", 0.02),
    ):
        wait_until(lambda: len(came) >= 3, "three connections", 10)
    (error,) = said(caplog, logging.WARNING)
    assert 'our client id "harkd-kitchen"' in error
    assert "give each its own device_id" in error
    slowest_s = mqtt_reports.BACKOFF_REFUSED_S * 0.02
    assert all(later - sooner > slowest_s for sooner, later in itertools.pairwise(came))


@pytest.mark.parametrize("retained", [False, True])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_huge_message_is_not_taken_in(tmp_path: Path, version: str, retained: bool) -> None:
    """MQTT 5 brokers do not send it; from an older one it ends the connection."""
    with Mosquitto(tmp_path) as server, Subscriber(server, "nothing") as other:
        connection = Connection(
            Address("127.0.0.1", server.port, "harkd"), version, None, inbox := Inbox()
        )
        connection.open()
        other.publish("house/set", "x" * 300 * 1024, retain=retained)
        connection.subscribe(["house/set"])
        assert connection.subscribed.wait(5)
        if not retained:
            other.publish("house/set", "x" * 300 * 1024)
        other.publish("house/set", "small")
        event = inbox.get(timeout=5)
        if version == "5":
            assert isinstance(event, mqtt_connection.Received)
            assert event.payload == b"small"
        else:
            assert event == mqtt_connection.Down("it sent 300 KiB in one message")
        connection.close()


def test_a_certificate_that_is_not_checked_is_warned_of_at_each_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for verify in (True, False, False):
        caplog.clear()
        warn_of_risks(Address("broker", 8883, "harkd", tls=Tls(verify=verify)))
        lines = said(caplog, logging.WARNING)
        assert len(lines) == (0 if verify else 1)
    assert "mqtt.tls_verify is false: anybody in the network can pose as the broker" in lines[0]
