"""What it takes to reach a broker: where it is, how to speak to it, how to log in.

In: the settings. Out: `Address`. Runs at start, on the main thread; its password's file is read on
the `mqtt` thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harkd.mqtt_settings import MqttSettings, PasswordFile, password_file
from harkd.settings_file import expand


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is encrypted, and whom it trusts."""

    ca_file: Path | None = None
    """Certificates of the authorities to trust; None for the system's."""
    cert_file: Path | None = None
    """Our own certificate; None for none."""
    key_file: Path | None = None
    """Its private key; None where it stands in `cert_file`."""
    server_name: str = ""
    """Name that the broker's certificate must have; empty for the broker's host."""
    verify: bool = True
    """Whether the broker's certificate is checked."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and how to log in."""

    host: str
    """Name or address."""
    port: int
    """TCP port."""
    client_id: str
    """MQTT client identifier; must be unique at the broker."""
    username: str = ""
    """Empty for none."""
    password: str = field(default="", repr=False)
    """Empty for none."""
    keepalive_s: int = 30
    """Seconds between signs of life."""
    password_file: PasswordFile | None = None
    """Holds the password instead, and is read at each connect."""
    tls: Tls | None = None
    """None for an open connection."""
    websocket_path: str = ""
    """Path of the WebSocket; empty for plain TCP."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def read_password(self) -> str:
        """Return the password as it is now. Raises SettingsError."""
        return self.password_file.read() if self.password_file else self.password


def address_of(
    mqtt: MqttSettings, host: str, client_id: str, environ: Mapping[str, str] | None = None
) -> Address:
    """Return the address that the settings name; `host` stands in for one that is not set."""
    return Address(
        host=mqtt.host or host,
        port=mqtt.port,
        client_id=client_id,
        username=mqtt.username,
        password=mqtt.password,
        keepalive_s=mqtt.keepalive_s,
        password_file=password_file(mqtt, environ),
        tls=tls_of(mqtt),
        websocket_path=mqtt.websocket_path if mqtt.transport == "websocket" else "",
    )


def tls_of(mqtt: MqttSettings) -> Tls | None:
    """Return what the settings say of TLS; None where it is not wanted."""
    if not mqtt.tls:
        return None
    ca_file, cert_file, key_file = (
        expand(name) if name else None
        for name in (mqtt.tls_ca_file, mqtt.tls_cert_file, mqtt.tls_key_file)
    )
    return Tls(ca_file, cert_file, key_file, mqtt.tls_server_name, mqtt.tls_verify)
