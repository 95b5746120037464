"""Says in words why there is no connection to the broker, and how to mend it.

In: what the sockets, OpenSSL and the broker said. Out: errors. Pure; runs on the `mqtt` thread.

Each text is the same at each try, as its repeats are not to be told: it holds no time of day.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any, Final

from harkd.errors import BrokerError, BrokerRefusedError, BrokerUntrustedError
from harkd.mqtt_address import Address

VERSION_REFUSED = 132
NAME_REFUSED = 133
LOGIN_REFUSED = (134, 135)
BUSY = (136, 137, 151, 159)
"""Server unavailable, server busy, quota exceeded, connection rate exceeded: it will pass."""

TLS, WEBSOCKET = "begin TLS", "open a WebSocket"
"""What comes between TCP and MQTT."""
USUAL_TLS_PORT = 8883
TLS_HINT = " (a port for TLS needs mqtt.tls: true)"
TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")
"""An alert and a handshake of TLS."""

NOT_YET, EXPIRED = 9, 10
SELF_SIGNED = (18, 19)
UNKNOWN_AUTHORITY = (2, 7, 20, 21)
WRONG_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_…: x509_vfy.h."""

OUR_CERTIFICATE: Final = {
    "CERTIFICATE_REQUIRED": ("wants a certificate from us", "set mqtt.tls_cert_file"),
    "CERTIFICATE_EXPIRED": (
        "says that our certificate has expired",
        "renew the one in mqtt.tls_cert_file; no restart is needed",
    ),
    "CERTIFICATE_REVOKED": (
        "says that our certificate was revoked",
        "get a new one for mqtt.tls_cert_file",
    ),
    "UNKNOWN_CA": (
        "does not know the authority that made our certificate",
        "name one in mqtt.tls_cert_file that an authority of the broker has made",
    ),
    "BAD_CERTIFICATE": ("refuses our certificate", "look into the broker's log for the reason"),
    "CERTIFICATE_UNKNOWN": ("refuses our certificate", "look into the broker's log for the reason"),
    "UNSUPPORTED_CERTIFICATE": (
        "refuses the kind of our certificate",
        "name one in mqtt.tls_cert_file that was made for clients (clientAuth)",
    ),
    "ACCESS_DENIED": ("refuses our certificate", "look into the broker's log for the reason"),
}
"""What the end of an alert's name says of our certificate: RFC 8446, 6.2."""


class ProtocolRefusedError(BrokerRefusedError):
    """The broker says that it does not speak the version that was tried."""


class NoAnswerError(BrokerError):
    """It took the connection and then hung up or kept silent.

    So do old brokers on a version that they do not know, and so does a broker (or Docker's proxy
    in front of it) that is only just starting.
    """


def unreachable(address: Address, error: Exception, step: str = "") -> BrokerError:
    """Say why no connection came about.

    Args:
        address: The broker.
        error: What was raised.
        step: What was being done when TCP had come about: `TLS`, `WEBSOCKET`, or nothing.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return untrusted(address, error)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return tls_failed(address, str(error.reason or error))
    if isinstance(error, socket.gaierror):
        return BrokerError(
            f'the name "{address.host}" cannot be resolved ({error.strerror})',
            "check mqtt.host, or write the broker's address",
        )
    if step and isinstance(error, TimeoutError):
        return BrokerError(f"{address} took the connection but did not {step}", _check(step))
    if step and isinstance(error, ConnectionError | ssl.SSLEOFError):
        return BrokerError(f"{address} hung up when asked to {step}", _check(step))
    if isinstance(error, ConnectionRefusedError):
        return BrokerError(
            f"nothing listens at {address}", "start the broker, or check mqtt.host and mqtt.port"
        )
    if isinstance(error, TimeoutError):
        return BrokerError(f"{address} does not answer", "check mqtt.host, the network, a firewall")
    return BrokerError(f"no connection to {address} ({error})", "check mqtt.host and mqtt.port")


def _check(step: str) -> str:
    """Say which options to look at where somebody else seems to be at the port."""
    if step == TLS:
        return (
            "check that mqtt.port is the broker's port for TLS (usually 8883), or set "
            "mqtt.tls: false"
        )
    return "check that mqtt.port is the broker's port for WebSockets, or set mqtt.transport: tcp"


def not_websocket(address: Address) -> BrokerError:
    """Say that the WebSocket was not opened: another server, a wrong path, or no WebSocket."""
    hint = "" if address.tls else TLS_HINT
    return BrokerError(
        f"{address} did not open a WebSocket at {address.websocket_path}",
        f"check mqtt.port{hint} and mqtt.websocket_path, or set mqtt.transport: tcp",
    )


def untrusted(address: Address, error: ssl.SSLCertVerificationError) -> BrokerError:
    """Say why the broker's certificate is not believed."""
    its = f"the certificate of the broker at {address}"
    today = f"this machine's clock says {time.strftime('%Y-%m-%d')}"
    ca_file = address.tls.ca_file if address.tls else None
    code = error.verify_code
    if code == NOT_YET:
        return BrokerUntrustedError(
            f"{its} is not valid yet ({today})",
            "set the clock, or wait until it is set: one without a battery starts in the past",
        )
    if code == EXPIRED:
        return BrokerUntrustedError(
            f"{its} has expired ({today})", "renew it at the broker, or set this machine's clock"
        )
    if code in WRONG_NAME:
        wanted = (address.tls and address.tls.server_name) or address.host
        return BrokerUntrustedError(
            f'{its} is not for "{wanted}"',
            "set mqtt.host to a name that it is for, or name that in mqtt.tls_server_name",
        )
    if code in SELF_SIGNED and not ca_file:
        return BrokerUntrustedError(
            f"{its} comes from an authority of its own",
            "copy that authority's certificate here and name it in mqtt.tls_ca_file",
        )
    if code in (*UNKNOWN_AUTHORITY, *SELF_SIGNED):
        trusted = f"is not in {ca_file}" if ca_file else "this system does not know"
        mend = "name the right authority's certificate in mqtt.tls_ca_file"
        return BrokerUntrustedError(f"{its} comes from an authority that {trusted}", mend)
    return BrokerUntrustedError(
        f"{its} cannot be believed ({error.verify_message})", "renew it at the broker"
    )


def tls_failed(address: Address, reason: str) -> BrokerError:
    """Say what an alert of the broker, or a fault that OpenSSL found, means."""
    _, alert, name = reason.partition("_ALERT_")
    has_own = bool(address.tls and address.tls.cert_file)
    if alert and name in OUR_CERTIFICATE:
        what, mend = OUR_CERTIFICATE[name]
        return BrokerRefusedError(f"the broker at {address} {what}", mend)
    if alert and name == "HANDSHAKE_FAILURE" and not has_own:
        # So says a broker that wants one in TLS 1.2: RFC 5246, 7.4.6.
        return BrokerRefusedError(
            f"the broker at {address} refuses TLS with us; it may want a certificate from us",
            "set mqtt.tls_cert_file, or look into the broker's log",
        )
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return BrokerRefusedError(
            f"the broker at {address} speaks no TLS that is still safe (1.2 or newer)",
            "update the broker, or allow TLS 1.2 in its settings",
        )
    if not alert and ("WRONG_VERSION" in reason or "RECORD_LAYER" in reason):
        return BrokerError(f"{address} does not speak TLS", _check(TLS))
    words = (name or reason).replace("_", " ").lower()
    who = "the broker refuses" if alert else "no"
    return BrokerError(f"{who} TLS at {address} ({words})", "look into the broker's log")


def no_answer(address: Address, heard: bytes) -> NoAnswerError:
    """Say that something else than a broker of this version seems to be at the port.

    `heard` is what it said first.
    """
    silent = f"{address} took the connection but did not answer as an MQTT broker"
    if heard.startswith(TLS_RECORDS):
        return NoAnswerError(f"{silent}: it speaks TLS", "set mqtt.tls: true")
    if heard.startswith(b"HTTP/"):
        return NoAnswerError(
            f"{silent}: it speaks HTTP",
            "set mqtt.transport: websocket, or mqtt.port to the broker's port for MQTT",
        )
    if address.port == USUAL_TLS_PORT and not address.tls:
        return NoAnswerError(silent, f"set mqtt.tls: true, port {USUAL_TLS_PORT} is usually TLS")
    hint = "" if address.tls else TLS_HINT
    return NoAnswerError(silent, f"check mqtt.host, mqtt.port{hint} and mqtt.protocol")


def refused(address: Address, version: str, code: Any) -> BrokerError:
    """Say why the broker refused the login; `code` is paho's reason code."""
    if code.value in BUSY:
        return BrokerError(f"the broker at {address} cannot take us now ({code})")
    if code.value == VERSION_REFUSED:
        return ProtocolRefusedError(
            f"the broker at {address} does not speak MQTT {version}",
            "set mqtt.protocol to auto",
        )
    if code.value == NAME_REFUSED:
        return BrokerRefusedError(
            f'the broker at {address} refused the client id "{address.client_id}" ({code})',
            "set another mqtt.client_id; MQTT 3.1 allows 23 characters",
        )
    if code.value in LOGIN_REFUSED:
        password = f"the password in {address.password_file.path}" if address.password_file else ""
        return BrokerRefusedError(
            f"the broker at {address} refused the login ({code})",
            f"check mqtt.username and {password or 'mqtt.password'}",
        )
    return BrokerRefusedError(f"the broker at {address} refused the connection ({code})")
