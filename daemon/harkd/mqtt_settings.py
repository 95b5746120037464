"""The settings of MQTT: where the broker is, how to log in there, and what goes to it.

Out: `MqttSettings`, a section of `settings.Settings`; what in it does not fit together; and the
password, which may stand in a file. Runs where `settings` does; a password's file is read on the
`mqtt` thread, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta

from harkd.errors import SettingsError
from harkd.settings_file import expand, read_small

CREDENTIAL: Final = "mqtt-password"
"""The systemd credential that holds the password: systemd.exec(5), LoadCredential=."""

TopicLevel = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]+$", description='letters, digits, "-" and "_"')
]
TopicLevels = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        description='letters, digits, "-" and "_", and "/" between levels',
    ),
]
HostName = Annotated[
    str,
    # One colon is a port's; an IPv6 address has two at least.
    Meta(
        pattern=r"^(?!\[)(?![^:]*:[^:]*$)[^\s/]*$",
        description="a host name or an IP address, without mqtt:// or port",
    ),
]
HttpPath = Annotated[
    str, Meta(pattern=r"^/[!-~]*$", description='a path that begins with "/", without spaces')
]
Secret = Annotated[str, Meta(extra={"secret": True})]
NUMBER_AS_TEXT: Final = Meta(extra={"number_as_text": True})
"""Of an option where YAML's ``device: 2`` means the text "2"."""


@dataclass(frozen=True, kw_only=True)
class MqttSettings:
    """Where the transcripts go."""

    host: HostName = ""
    """Host name or address of the broker; empty for the embedded broker on loopback."""
    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    """TCP port of the broker, 1…65535."""
    transport: Literal["tcp", "websocket"] = "tcp"
    """What carries MQTT."""
    websocket_path: HttpPath = "/mqtt"
    """Path of the WebSocket at the broker."""
    tls: bool = False
    """Whether the connection is encrypted and the broker's certificate is checked."""
    tls_ca_file: str = ""
    """Certificates of the authorities to trust, PEM; empty for the system's."""
    tls_cert_file: str = ""
    """Our own certificate, PEM; empty for none."""
    tls_key_file: str = ""
    """Its private key, PEM; empty where it stands in `tls_cert_file`."""
    tls_server_name: HostName = ""
    """Name that the broker's certificate must have; empty for `host`."""
    tls_verify: bool = True
    """Whether the broker's certificate is checked."""
    username: str = ""
    """User name for the broker; empty for none."""
    password: Secret = field(default="", repr=False)
    """Password for the broker; see `read_password`."""
    password_file: str = ""
    """File that holds the password instead."""
    protocol: Annotated[Literal["auto", "5", "3.1.1", "3.1"], NUMBER_AS_TEXT] = "auto"
    """MQTT version; auto tries 5, then 3.1.1."""
    base_topic: TopicLevel = "harkd"
    """First level of every topic."""
    client_id: str = ""
    """MQTT client identifier; empty for ``harkd-<device_id>``."""
    keepalive_s: Annotated[int, Meta(ge=5, le=1200)] = 30
    """Seconds after which a silent connection is probed, 5…1200."""
    max_age_s: Annotated[int, Meta(ge=1, le=86400)] = 30
    """Seconds up to which a final still goes to ``transcript``, 1…86400."""
    retain_last: bool = True
    """Whether ``transcript/last`` is published, retained."""
    open_text: bool = True
    """Whether what was said is published, and logged, where it is no phrase."""
    discovery: Literal["device", "component", "off"] = "device"
    """How Home Assistant is told of this device."""
    discovery_prefix: TopicLevels = "homeassistant"
    """First levels of the topics on which it is told."""


NEEDS: Final = (
    (
        ("username", "password", "password_file", "tls", "transport"),
        "host",
        "no broker is; name the broker in mqtt.host",
    ),
    (
        ("tls_ca_file", "tls_cert_file", "tls_key_file", "tls_server_name", "tls_verify"),
        "tls",
        "mqtt.tls is not true; set mqtt.tls: true too",
    ),
    (
        ("tls_key_file",),
        "tls_cert_file",
        "mqtt.tls_cert_file is not; name the key's certificate there",
    ),
    (
        ("password", "password_file"),
        "username",
        "mqtt.username is not; set mqtt.username too",
    ),
    (
        ("websocket_path",),
        "transport",
        "mqtt.transport is tcp; set mqtt.transport: websocket",
    ),
)
"""Options that mean nothing while another has its default; that other; and the words for it."""


def contradictions(mqtt: MqttSettings) -> Iterator[tuple[str, str, str]]:
    """Yields each option that does not fit another: its name, the words, the other's name."""
    changed = {each.name for each in fields(mqtt) if getattr(mqtt, each.name) != each.default}
    for names, needed, words in NEEDS:
        if needed not in changed:
            for name in names:
                if name in changed:
                    yield name, f"is set, but {words}, or delete this", needed
    if mqtt.password and mqtt.password_file:
        yield "password_file", "mqtt.password is set too; delete one of the two", "password"


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A file that holds the password and nothing else."""

    path: Path
    """Where it is."""
    name: str
    """What its owner calls it: an option of the settings, or a credential."""

    def read(self) -> str:
        """Return the password.

        Raises:
            SettingsError: The file cannot be read, or does not hold one line of text.
        """
        try:
            password = read_small(self.path).strip()
        except SettingsError as exc:
            raise SettingsError(f"{self.name}: {exc.message}") from exc
        if not password:
            raise SettingsError(f"{self.name}: {self.path}: is empty; write the password into it")
        if any(character < " " for character in password):
            raise SettingsError(
                f"{self.name}: {self.path}: holds more than one line of text; leave only the "
                "password"
            )
        return password


def password_file(
    mqtt: MqttSettings, environ: Mapping[str, str] | None = None
) -> PasswordFile | None:
    """Return the file that holds the password: `password_file`, else systemd's credential.

    The credential counts where a user name is set and a password is not.
    """
    if mqtt.password_file:
        return PasswordFile(expand(mqtt.password_file), "mqtt.password_file")
    folder = (os.environ if environ is None else environ).get("CREDENTIALS_DIRECTORY", "")
    if not folder or not mqtt.username or mqtt.password:
        return None
    path = Path(folder) / CREDENTIAL
    # A single newline is what harkd.service gives where the administrator has made no file.
    there = path.exists() and path.stat().st_size != 1
    return PasswordFile(path, f"the systemd credential {CREDENTIAL}") if there else None


def read_password(mqtt: MqttSettings, environ: Mapping[str, str] | None = None) -> str:
    """Returns the broker's password, inline or from its file; empty for none.

    Raises:
        SettingsError: The file cannot be read, or does not hold one line of text.
    """
    file = password_file(mqtt, environ)
    return file.read() if file else mqtt.password
