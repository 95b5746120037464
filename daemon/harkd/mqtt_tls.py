"""TLS to the broker: the files, the context made of them, and what a connection turned out to be.

In: `Tls`. Out: an `ssl` context for one connection (the files are read anew for each, so that a
renewed certificate counts at the next), or what is wrong with the files. Runs on the main thread
at start, and on the `mqtt` thread.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from harkd.errors import SettingsError
from harkd.mqtt_address import Tls, tls_of
from harkd.mqtt_settings import MqttSettings, read_password
from harkd.settings_file import read_bytes

MOST_BYTES: Final = 4 * 1024 * 1024
"""The authorities of a system take 0.2 MB."""
DER_START: Final = b"\x30"
CERTIFICATE, KEY = "CERTIFICATE", "PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class Session:
    """What both sides agreed on, and who the broker says it is."""

    version: str
    """As ``TLSv1.3``."""
    cipher: str
    """As ``TLS_AES_256_GCM_SHA384``."""
    subject: str
    """Whose certificate it is; empty where it was not checked."""
    issuer: str
    """Who vouches for it; empty where it was not checked."""
    until: datetime | None
    """When it ends, UTC; None where it was not checked."""


class Context(ssl.SSLContext):
    """A context for one connection. It keeps the socket, which paho forgets when it fails."""

    server_name = ""
    """Name that the broker must have instead of the host that we connect to."""
    socket: ssl.SSLSocket | None = None
    """The connection, once it is begun."""

    def wrap_socket(self, sock: Any, *args: Any, **more: Any) -> ssl.SSLSocket:
        """Begin TLS on a socket; see the base class."""
        if self.server_name:
            more["server_hostname"] = self.server_name
        self.socket = super().wrap_socket(sock, *args, **more)
        return self.socket

    def session(self) -> Session | None:
        """Return what the connection turned out to be; None where there is none."""
        sock = self.socket
        cipher = sock.cipher() if sock else None
        if sock is None or cipher is None:
            return None
        try:
            certificate: dict[str, Any] = sock.getpeercert() or {}
        except ValueError:  # the handshake failed half-way
            return None
        ends = certificate.get("notAfter")
        return Session(
            version=sock.version() or "",
            cipher=cipher[0],
            subject=_name(certificate.get("subject", ())),
            issuer=_name(certificate.get("issuer", ())),
            until=datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if ends else None,
        )


def _name(parts: Any) -> str:
    """Return a common name, or what there is in its place, of a name as `ssl` gives it."""
    fields = {key: value for part in parts for key, value in part}
    return str(fields.get("commonName") or next(iter(fields.values()), ""))


def check_files(mqtt: MqttSettings) -> None:
    """Read the files that the login needs, as a connection will.

    Raises:
        SettingsError: `message` has all that is wrong with them, one a line.
    """
    faults: list[str] = []
    try:
        read_password(mqtt)
    except SettingsError as error:
        faults.append(error.message)
    if tls := tls_of(mqtt):
        faults.extend(_load(tls)[1])
    if faults:
        raise SettingsError("\n".join(faults))


def make_context(tls: Tls) -> Context:
    """Return a context with the files as they are now. Raises SettingsError."""
    context, faults = _load(tls)
    if faults:
        raise SettingsError("\n".join(faults))
    return context


def _load(tls: Tls) -> tuple[Context, list[str]]:
    # Not create_default_context: from Python 3.13 on it refuses the certificates of many guides
    # to a home's own authority (VERIFY_X509_STRICT wants key identifiers in them).
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.server_name = tls.server_name
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    faults: list[str] = []
    if tls.ca_file:
        # With it, the broker's own certificate may stand there, and be the only one trusted.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not (fault := _pem_fault(tls.ca_file, CERTIFICATE)):
            try:
                context.load_verify_locations(tls.ca_file)
            except (OSError, ValueError) as error:
                fault = f"{tls.ca_file}: cannot be used ({_reason(error)}); name another file"
        if fault:
            faults.append(f"mqtt.tls_ca_file: {fault}")
    else:
        context.load_default_certs()
    if tls.cert_file:
        faults.extend(_load_own(context, tls.cert_file, tls.key_file))
    return context, faults


def _load_own(context: Context, cert_file: Path, key_file: Path | None) -> list[str]:
    """Load our own certificate and its key; return what is wrong with them."""
    faults = []
    if fault := _pem_fault(cert_file, CERTIFICATE):
        faults.append(f"mqtt.tls_cert_file: {fault}")
    if key_file and (fault := _pem_fault(key_file, KEY)):
        faults.append(f"mqtt.tls_key_file: {fault}")
    if faults:
        return faults
    key, name = (key_file, "mqtt.tls_key_file") if key_file else (cert_file, "mqtt.tls_cert_file")
    if not key_file and _pem_fault(cert_file, KEY):
        return [
            f"mqtt.tls_cert_file: {cert_file}: holds no private key; name the file that does in "
            "mqtt.tls_key_file"
        ]
    try:
        context.load_cert_chain(cert_file, key, password=_no_passphrase)
    except _PassphraseError:
        return [
            f"{name}: {key}: needs a passphrase, which nobody is there to type; take it off: "
            f"openssl pkey -in {key} -out NEW, and protect the new file by its rights"
        ]
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return [
                f"{name}: {key}: does not belong to the certificate in {cert_file}; name the key "
                "that the certificate was made with"
            ]
        return [f"{name}: {cert_file} with {key}: cannot be used ({_reason(error)})"]
    except OSError as error:
        return [f"{name}: {key}: cannot be read ({error.strerror})"]
    return []


class _PassphraseError(Exception):
    """A key asks for its passphrase."""


def _no_passphrase() -> str:
    raise _PassphraseError


def _pem_fault(path: Path, kind: str) -> str:
    """Say what is wrong with a file that should hold something in PEM form, or nothing."""
    try:
        data = read_bytes(path, MOST_BYTES)
    except SettingsError as error:
        return error.message
    if b"-----BEGIN " in data and f"{kind}-----".encode() in data:
        return ""
    what = kind.lower()
    mend = f'name one with a line "-----BEGIN {kind}-----"'
    if data.startswith(DER_START):
        tool = "x509" if kind == CERTIFICATE else "pkey"
        mend = f"convert it: openssl {tool} -inform der -in {path} -out NEW (or openssl pkcs12)"
    return f"{path}: holds no {what} in PEM form; {mend}"


def _reason(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        return str(error.reason or error).replace("_", " ").lower()  # type: ignore[attr-defined]
    return str(error)
