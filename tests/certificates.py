"""Certificates for the tests of TLS, made by openssl: two authorities, and good and bad leaves.

The keys are elliptic, so that all of them take a fraction of a second.
"""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from servers import program

CONF = """\
[ca]
default_ca = here
[here]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""
DAY = timedelta(days=1)
LOCAL = "DNS:localhost,IP:127.0.0.1"


def openssl(*words: str | Path) -> None:
    """Runs openssl, or raises AssertionError with what it says."""
    done = subprocess.run([program("openssl"), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"openssl {words}: {done.stderr}")


class Authority:
    """A certificate authority in a folder; `file` is its certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.file = folder / "ca.crt"
        self._key = folder / "ca.key"
        (folder / "index.txt").touch()
        (folder / "openssl.cnf").write_text(CONF.format(folder=folder))
        new_key(self._key)
        openssl(
            *("req", "-x509", "-new", "-key", self._key, "-days", "3650"),
            *("-subj", f"/CN={name}", "-out", self.file),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def issue(
        self,
        name: str,
        alternatives: str = LOCAL,
        *,
        begins: timedelta = -2 * DAY,
        ends: timedelta = 365 * DAY,
        use: str = "serverAuth,clientAuth",
    ) -> Path:
        """Makes a certificate and its key, and returns the first; the second ends in ``.key``.

        Args:
            name: Of the subject, and of the files.
            alternatives: The names that it is for.
            begins: When it begins to be valid, from now.
            ends: When it ends, from now.
            use: What it is for.
        """
        now = datetime.now(UTC)
        base = self.folder / name
        key, request, file = (base.with_suffix(suffix) for suffix in (".key", ".csr", ".crt"))
        extensions = base.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={alternatives}\nextendedKeyUsage={use}\n")
        new_key(key)
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        openssl(
            *("ca", "-batch", "-notext", "-config", self.folder / "openssl.cnf"),
            *("-cert", self.file, "-keyfile", self._key, "-in", request, "-out", file),
            *("-startdate", f"{now + begins:%Y%m%d%H%M%SZ}"),
            *("-enddate", f"{now + ends:%Y%m%d%H%M%SZ}", "-extfile", extensions),
        )
        return file


def new_key(file: Path) -> None:
    """Makes a private key."""
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file)


class Certificates:
    """All that the tests of TLS need; `folder` holds it."""

    def __init__(self, folder: Path) -> None:
        ours = Authority(folder / "ours", "The house's own CA")
        others = Authority(folder / "others", "Another CA")
        self.ca, self.other_ca = ours.file, others.file
        self.server = ours.issue("localhost")
        self.elsewhere = ours.issue("elsewhere", "DNS:broker.example")
        self.expired = ours.issue("expired", begins=-9 * DAY, ends=-3 * DAY)
        self.not_yet = ours.issue("not-yet", begins=3 * DAY)
        self.soon_over = ours.issue("soon-over", ends=5 * DAY)
        self.stranger = others.issue("stranger")
        self.client = ours.issue("client")
        self.expired_client = ours.issue("expired-client", begins=-9 * DAY, ends=-3 * DAY)
        self.strange_client = others.issue("strange-client")
        self.self_signed = self._self_signed(folder / "alone.crt")

    @staticmethod
    def _self_signed(file: Path) -> Path:
        new_key(file.with_suffix(".key"))
        openssl(
            *("req", "-x509", "-new", "-key", file.with_suffix(".key"), "-days", "30"),
            *("-subj", "/CN=localhost", "-addext", f"subjectAltName={LOCAL}", "-out", file),
        )
        return file


def server_lines(certificates: Certificates, certificate: Path, *more: str) -> list[str]:
    """What mosquitto's listener needs for TLS."""
    key = certificate.with_suffix(".key")
    ca = f"cafile {certificates.ca}"
    return [ca, f"certfile {certificate}", f"keyfile {key}", *more]
