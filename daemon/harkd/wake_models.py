"""Wake words by microWakeWord: the only module that knows its library (pymicro-wakeword).

In: the names of its models, or files of others, and audio. Out: `Reading`s. The library is loaded
with the first detector: without wake words it need not be there. Runs on the listening thread.

Its models stream: each takes what is new and keeps what it needs of the past inside. The library
can only begin afresh by reading the model's file again, which may be gone by then; but nothing is
kept for longer than 1.2 s, so `reset` lets that much nothing through.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from harkd.audio import Int16
from harkd.counters import Counters
from harkd.errors import SettingsError
from harkd.settings import Settings, WakeSettings
from harkd.settings_file import expand
from harkd.wake_gate import WakeGate
from harkd.wake_word import Reading
from harkd.waking import WakingSegmenter

STEP_SAMPLES: Final = 160
"""The features come every 10 ms."""
FEATURES: Final = 40
FORGET_STEPS: Final = 150
"""After so many empty features, what came before counts no more, in any of the four models."""
TFLITE: Final = b"TFL3"
"""Bytes 4…8 of each model. The library takes the process down where a file is none."""


def wanted_words(wake: WakeSettings) -> list[str]:
    """Return the names, or files, of the wanted wake words; none where there are no such."""
    return [word for part in wake.word.split(",") if (word := part.strip())]


def load_detector(wake: WakeSettings) -> MicroWakeWords:
    """Load the detector of all wanted wake words.

    Raises:
        SettingsError: The library is not there, or a word is none of its models and no file of one.
    """
    words = wanted_words(wake)
    try:
        import pymicro_wakeword as library
    except (ImportError, OSError) as error:
        raise SettingsError(
            f"wake.word is {wake.word}, and the library for wake words cannot be loaded ({error})",
            "pip install 'harkd[wake]', or leave wake.word empty",
        ) from error
    # First the models: where features go while an exception is on its way, pymicro-features 2.0.2
    # loses it, and Python raises a SystemError in its place.
    models = [_load(library, one) for one in words]
    return MicroWakeWords(library.MicroWakeWordFeatures(), models, wake.threshold)


def waking_segmenter(
    settings: Settings,
    gate: WakeGate | None,
    is_speech: Callable[[bytes], bool] | None = None,
    counters: Counters | None = None,
) -> WakingSegmenter | None:
    """Return the segmenter of a microphone with wake words; None where all speech is recognized.

    Args:
        settings: `vad`, `endpoint` and `wake` are used.
        gate: What opens it besides wake words; None where they are not waited for.
        is_speech: Judges frames in webrtcvad's place; see `Segmenter`.
        counters: Counts what is heard.

    Raises:
        SettingsError: See `load_detector`.
    """
    if gate is None or not wanted_words(settings.wake):
        return None
    return WakingSegmenter(
        settings.vad,
        settings.endpoint,
        settings.wake,
        load_detector(settings.wake),
        gate,
        is_speech,
        counters,
    )


class MicroWakeWords:
    """Several models on the same features.

    Args:
        features: The library's feature extractor.
        models: Its models, each with the name of its word.
        threshold: From which likelihood on a word counts as said; 0 for what its model says.
    """

    def __init__(
        self, features: Any, models: Sequence[tuple[str, Any]], threshold: float = 0.0
    ) -> None:
        self._threshold = threshold
        self._features = features
        self._models = models
        self._rest = b""
        self._steps = 0  # features since the models began, all in all
        self._position = 0

    @property
    def words(self) -> list[str]:
        """The names of the words."""
        return [word for word, _ in self._models]

    def push(self, samples: Int16) -> list[Reading]:
        """Take the next audio, int16, shape (n,), any n; return the readings that it gives."""
        data = self._rest + samples.tobytes()
        whole = len(data) - len(data) % (2 * STEP_SAMPLES)
        self._rest = data[whole:]
        readings: list[Reading] = []
        for at in range(0, whole, 2 * STEP_SAMPLES):
            self._position += STEP_SAMPLES
            for features in self._features.process_streaming(data[at : at + 2 * STEP_SAMPLES]):
                readings += self._judge(features)
        return readings

    def reset(self) -> None:
        """Forget all audio: the next sample is the first."""
        self._features.reset()
        self._rest, self._position = b"", 0
        nothing = np.zeros((1, 1, FEATURES))
        # A model that takes several features at a time must not begin in the middle.
        together = int(np.lcm.reduce([model.stride for _, model in self._models]))
        for _ in range(FORGET_STEPS + -(self._steps + FORGET_STEPS) % together):
            self._judge(nothing)

    def _judge(self, features: Any) -> list[Reading]:
        """Let each model take the next features; return the readings that are due now."""
        self._steps += 1
        readings = []
        for word, model in self._models:
            likelihood = model.process_streaming_prob(features)
            if self._steps % model.stride == 0:
                threshold = self._threshold or model.probability_cutoff
                readings.append(Reading(word, self._position, likelihood or 0.0, threshold))
        return readings


def _load(library: Any, word: str) -> tuple[str, Any]:
    """Return the name of a word and its model. Raises SettingsError."""
    known = [model.value for model in library.Model]
    if word in known:
        return word, library.MicroWakeWord.from_builtin(library.Model(word))
    if not word.endswith(".json"):
        near = difflib.get_close_matches(word.lower().replace(" ", "_"), known, 1)
        raise SettingsError(
            f'wake.word: "{word}" is no wake word that there is',
            f"write {near[0]}" if near else f"take {', '.join(known)} or a .json file",
        )
    path = expand(word)
    try:
        model = library.MicroWakeWord.from_config(_checked(path))
    except OSError as error:
        raise SettingsError(
            f"wake.word: {error.filename or path} cannot be read ({error.strerror})",
            "give the .json of a microWakeWord model, with its .tflite beside it",
        ) from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SettingsError(
            f"wake.word: {path} describes no microWakeWord model ({error!r})",
            "take the .json that came with the .tflite",
        ) from error
    return path.stem, model


def _checked(path: Path) -> Path:
    """Return the path of a model's description, once its model is one. Raises what reading does."""
    described = json.loads(path.read_text(encoding="utf-8"))
    model = path.parent / described["model"]
    with model.open("rb") as file:
        if file.read(8)[4:] != TFLITE:
            raise ValueError(f"{model} is no TensorFlow Lite model")
    return path
