"""The files of TLS: each fault is one line that names the option, the file and the mend."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from certificates import Certificates, openssl
from harkd.errors import SettingsError
from harkd.mqtt_address import Tls, address_of
from harkd.mqtt_settings import MqttSettings
from harkd.mqtt_tls import check_files, make_context


def faults(**options: Any) -> list[str]:
    """What is wrong with the files, one line each."""
    try:
        texts: dict[str, Any] = {name: str(value) for name, value in options.items()}
        check_files(MqttSettings(host="pi", tls=True, **texts))
    except SettingsError as error:
        return error.message.splitlines()
    return []


def test_whole_files_have_no_fault(certificates: Certificates, tmp_path: Path) -> None:
    key = certificates.client.with_suffix(".key")
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + certificates.client.read_text())
    assert faults() == []
    assert faults(tls_ca_file=certificates.ca) == []
    assert faults(tls_cert_file=certificates.client, tls_key_file=key) == []
    assert faults(tls_cert_file=both) == []


def test_files_are_not_read_where_tls_is_off() -> None:
    check_files(MqttSettings(host="pi", tls_ca_file="/no/such/file"))


def test_all_faults_of_the_files_are_told_together(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("this is no certificate\n")
    lines = faults(
        tls_ca_file=tmp_path / "missing",
        tls_cert_file=text,
        tls_key_file=tmp_path,
        username="ha",
        password_file=tmp_path / "password",
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "mqtt.password_file",
        "mqtt.tls_ca_file",
        "mqtt.tls_cert_file",
        "mqtt.tls_key_file",
    ]
    assert lines[0].endswith("password: there is no such file; correct the path")
    assert lines[1].endswith("missing: there is no such file; correct the path")
    assert "text: holds no certificate in PEM form; name one with a line" in lines[2]
    assert "is a folder, not a file" in lines[3]


def test_a_file_that_may_not_be_read_says_who_could(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def barred(_path: Path, *_: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", barred)
    (line,) = faults(tls_ca_file=certificates.ca)
    assert f"must not be read by this user (uid {os.geteuid()})" in line


def test_a_file_in_another_form_says_how_to_convert_it(
    certificates: Certificates, tmp_path: Path
) -> None:
    der = tmp_path / "ca.der"
    openssl("x509", "-in", certificates.ca, "-outform", "der", "-out", der)
    (line,) = faults(tls_ca_file=der)
    assert f"convert it: openssl x509 -inform der -in {der} -out NEW" in line


def test_a_damaged_certificate_is_told(certificates: Certificates, tmp_path: Path) -> None:
    damaged = tmp_path / "ca.crt"
    damaged.write_text(certificates.ca.read_text().replace("\nMII", "\n!II"))
    (line,) = faults(tls_ca_file=damaged)
    assert f"mqtt.tls_ca_file: {damaged}: cannot be used" in line
    key = certificates.client.with_suffix(".key")
    (line,) = faults(tls_cert_file=damaged, tls_key_file=key)
    assert f"{damaged} with {key}: cannot be used" in line


def test_a_key_of_another_certificate_is_told(certificates: Certificates) -> None:
    key = certificates.server.with_suffix(".key")
    (line,) = faults(tls_cert_file=certificates.client, tls_key_file=key)
    assert f"{key}: does not belong to the certificate in {certificates.client}" in line


def test_a_certificate_without_a_key_is_told(certificates: Certificates) -> None:
    (line,) = faults(tls_cert_file=certificates.client)
    assert "holds no private key; name the file that does in mqtt.tls_key_file" in line


def test_a_key_with_a_passphrase_is_told_with_the_command_that_takes_it_off(
    certificates: Certificates, tmp_path: Path
) -> None:
    """OpenSSL would ask for it on the terminal, and wait."""
    plain, locked = certificates.client.with_suffix(".key"), tmp_path / "locked.key"
    secret = token_hex(8)
    openssl("pkey", "-in", plain, "-aes256", "-passout", f"pass:{secret}", "-out", locked)
    (line,) = faults(tls_cert_file=certificates.client, tls_key_file=locked)
    assert "needs a passphrase" in line
    assert f"openssl pkey -in {locked} -out NEW" in line
    assert secret not in line


def test_nothing_older_than_tls_1_2_is_spoken_and_the_broker_is_checked() -> None:
    context = make_context(Tls())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert make_context(Tls(verify=False)).verify_mode == ssl.CERT_NONE


def test_the_files_are_read_anew_for_each_connection(
    certificates: Certificates, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.crt"
    with pytest.raises(SettingsError, match="there is no such file"):
        make_context(Tls(ca))
    shutil.copy(certificates.ca, ca)
    (name,) = make_context(Tls(ca)).get_ca_certs()
    assert "The house's own CA" in str(name["subject"])


# ------------------------------------------------------------------ the address


def test_the_address_has_what_the_settings_say() -> None:
    mqtt = MqttSettings(
        host="pi",
        port=9001,
        transport="websocket",
        websocket_path="/ws",
        tls=True,
        tls_ca_file="/etc/ca.crt",
        tls_server_name="broker.example",
    )
    address = address_of(mqtt, "127.0.0.1", "harkd-kitchen", {})
    assert (str(address), address.websocket_path) == ("pi:9001", "/ws")
    assert address.tls == Tls(Path("/etc/ca.crt"), None, None, "broker.example", verify=True)
    plain = address_of(MqttSettings(), "127.0.0.1", "harkd-kitchen", {})
    assert (str(plain), plain.tls, plain.websocket_path) == ("127.0.0.1:1883", None, "")


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    assert str(address_of(MqttSettings(host="::1"), "", "harkd", {})) == "[::1]:1883"


def test_systemds_credential_is_the_password_where_nothing_else_is(tmp_path: Path) -> None:
    secret, inline = token_hex(8), token_hex(8)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    def password(**options: Any) -> str:
        return address_of(MqttSettings(host="h", **options), "", "harkd", environ).read_password()

    assert password(username="ha") == "", "a unit may have other credentials"
    (tmp_path / "mqtt-password").write_text(secret + "\n")
    assert password() == "", "nobody to log in as"
    assert password(username="ha") == secret
    assert password(username="ha", password=inline) == inline
    (tmp_path / "mqtt-password").write_text("")
    with pytest.raises(SettingsError) as told:
        password(username="ha")
    assert str(told.value).startswith("the systemd credential mqtt-password: ")
    shown = repr(address_of(MqttSettings(host="h", username="ha"), "", "harkd", environ))
    assert secret not in shown
    (tmp_path / "mqtt-password").write_text("\n")
    assert password(username="ha") == "", "what the unit gives where there is no file"
