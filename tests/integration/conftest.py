"""The real servers, each test with its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from alsa_mic import AlsaMic, build
from harkd.audio import RATE_HZ
from servers import Mosquitto, PulseServer

SPEECH_S = 2.5


@pytest.fixture
def pulse(tmp_path: Path) -> Iterator[PulseServer]:
    """A private PulseAudio whose default source is `mic.monitor`."""
    folder = tmp_path / "pulse"
    folder.mkdir()
    with PulseServer(folder) as server:
        yield server


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto that lets anybody in."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with Mosquitto(folder) as server:
        yield server


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Noise in the band of speech with the rhythm of syllables: unlike itself at other lags."""
    random = np.random.default_rng(1)
    size = round(RATE_HZ * SPEECH_S)
    spectrum = np.fft.rfft(random.standard_normal(size))
    hz = np.fft.rfftfreq(size, 1 / RATE_HZ)
    spectrum[(hz < 200) | (hz > 4000)] = 0
    rhythm = np.sin(np.pi * 4 * np.arange(size) / RATE_HZ) ** 2 + 0.05
    sound = np.fft.irfft(spectrum, size) * rhythm
    path = tmp_path / "speech.wav"
    soundfile.write(path, (sound / np.abs(sound).max() * 20_000).astype(np.int16), RATE_HZ)
    return path


@pytest.fixture(scope="session")
def alsa_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled plugin of the ALSA microphone."""
    return build(tmp_path_factory.mktemp("alsa-plugin"))


@pytest.fixture
def alsa_mic_factory(alsa_plugin: Path, tmp_path: Path) -> Iterator[Callable[..., AlsaMic]]:
    """Called as `AlsaMic` is, without folder and plugin: a plugged-in microphone."""
    with ExitStack() as stack:
        count = 0

        def plug_in(wav: Path, **options: Any) -> AlsaMic:
            nonlocal count
            count += 1
            folder = tmp_path / f"alsa-mic-{count}"
            folder.mkdir()
            return stack.enter_context(AlsaMic(folder, alsa_plugin, wav, **options))

        yield plug_in


@pytest.fixture
def env(model_dir: Path, broker: Mosquitto) -> dict[str, str]:
    """What a daemon of these tests needs in its environment."""
    return {
        "HARKD_MODELS": str(model_dir.parent),
        "HARKD_RECOGNIZER__MODEL": model_dir.name,
        "HARKD_MQTT__HOST": broker.host,
        "HARKD_MQTT__PORT": str(broker.port),
        "HARKD_DEVICE_ID": "test",
        "HARKD_HTTP__PORT": "0",
        "HARKD_STATE__DIR": str(broker.folder.parent / "state"),
    }
