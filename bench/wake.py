"""How often wake words are missed, how often they are heard where nobody said one, and the cut.

    .venv/bin/python bench/wake.py false LIST.tsv…
    .venv/bin/python bench/wake.py misses --clips LIST.tsv --noise NOISE.flac --room ROOM.flac
    .venv/bin/python bench/wake.py cut --clips LIST.tsv --commands LIST.tsv

A list has lines of path (from the list's folder), seconds, rate and text, with tabs between them.
`false`: all recordings of the lists through the daemon's own way to the detector, with pauses
between them; those whose text has the word's last part are counted apart. `misses`: the words as
flite and espeak-ng say them, which nobody speaks like, and the recordings of the list whose whole
text is a word; clean, in noise and in a room. `cut`: such recordings, each with a recorded command
after it, through the daemon's segmenter and recognizer in virtual time, against the command alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import soxr
from scipy.signal import fftconvolve
from whisper_normalizer.english import EnglishTextNormalizer

from harkd.app import load
from harkd.audio import RATE_HZ, AudioBlock, Int16, SourceEvent, SourceOpened
from harkd.events import Event, Final
from harkd.model_store import find_model
from harkd.settings import Settings, WakeSettings, find_file
from harkd.settings import load as load_settings
from harkd.virtual_time import run_in_virtual_time
from harkd.wake_gate import WakeGate
from harkd.wake_models import MicroWakeWords, load_detector
from harkd.wake_word import Reading, WordHeard, WordTracker
from harkd.waking import WakingSegmenter

WORDS = {
    "alexa": "alexa",
    "hey_jarvis": "hey jarvis",
    "hey_mycroft": "hey mycroft",
    "okay_nabu": "okay nahboo",
}
"""Each word, and how it is spelled for synthesizers."""
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97)
VOICES = [
    ("flite", voice, speed)
    for voice in ("awb", "kal16", "rms", "slt")
    for speed in (0.8, 1, 1.2, 1.4)
] + [
    ("espeak-ng", f"en-us+{voice}", speed)
    for voice in ("f2", "f4", "m3", "m7")
    for speed in (140, 175)
]
COMMAND = "turn on the kitchen light"
SNRS_DB = (20, 10, 5)
MOST_CLIPS = 100
GAPS_S = (0.0, 0.15, 0.4)


def pause(seconds: float) -> Int16:
    """Return a very quiet hiss: int16, shape (n,)."""
    hiss = np.random.default_rng(1).standard_normal(int(seconds * RATE_HZ)) * 8
    return hiss.astype(np.int16)


def read(path: Path) -> Int16:
    """Return a recording: int16, shape (n,), 16 kHz mono."""
    sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(sound.mean(axis=1), rate_hz, RATE_HZ)
    samples: Int16 = (np.clip(mono, -1, 1) * 32767).astype(np.int16)
    return samples


def listed(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield each recording of a list with its text, but room responses."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row[3] != "rir":
                yield path.parent / row[0], row[3]


class Listener:
    """The daemon's way to the detector, with a detector that only writes down what it reads."""

    def __init__(self) -> None:
        self._detector: MicroWakeWords = load_detector(WakeSettings(word=",".join(WORDS)))
        self.utterances: list[list[Reading]] = []

    def push(self, samples: Int16) -> list[Reading]:
        """Write down; wake nobody."""
        self.utterances[-1] += self._detector.push(samples)
        return []

    def reset(self) -> None:
        """Another utterance begins."""
        self._detector.reset()
        self.utterances.append([])

    def heard(self, audio: Int16) -> Counter[tuple[str, float]]:
        """Return how often each word is heard at each threshold."""
        self.utterances.clear()
        settings = Settings()
        segmenter = WakingSegmenter(
            settings.vad, settings.endpoint, settings.wake, self, WakeGate()
        )
        segmenter.push(audio)
        found: Counter[tuple[str, float]] = Counter()
        for word in WORDS:
            for threshold in THRESHOLDS:
                found[word, threshold] += sum(self._words(word, threshold))
        return found

    def _words(self, word: str, threshold: float) -> Iterator[int]:
        for readings in self.utterances:
            tracker = WordTracker()
            for reading in (each for each in readings if each.word == word):
                told = tracker.follow(replace(reading, threshold=threshold))
                if isinstance(told, WordHeard):
                    yield 1
                elif told:
                    tracker.reset()


def table(title: str, rows: dict[str, Counter[tuple[str, float]]]) -> None:
    """Print a table: a line for each row and word, a column for each threshold."""
    print(f"\n| {title} | word | " + " | ".join(map(str, THRESHOLDS)) + " |")
    print("|---|---|" + "---|" * len(THRESHOLDS))
    for name, counts in rows.items():
        for word in WORDS:
            if any(counts[word, threshold] for threshold in THRESHOLDS):
                figures = " | ".join(str(counts[word, t]) for t in THRESHOLDS)
                print(f"| {name} | {word} | {figures} |", flush=True)


def false_accepts(lists: Sequence[Path]) -> None:
    """Count what is heard where nobody said it: a table after each list, of all folders so far."""
    listener = Listener()
    hours: dict[str, float] = defaultdict(float)
    heard: dict[str, Counter[tuple[str, float]]] = defaultdict(Counter)
    for one in lists:
        for path, text in listed(one):
            audio = np.concatenate([pause(1.0), read(path), pause(1.0)])
            hours[path.parent.name] += len(audio) / RATE_HZ / 3600
            for (word, threshold), count in listener.heard(audio).items():
                if word.rpartition("_")[2] not in text.lower():
                    heard[path.parent.name][word, threshold] += count
                elif text.lower() != WORDS[word]:
                    heard["a part of the word alone"][word, threshold] += count
        print(f"\nhours: {', '.join(f'{name} {each:.2f}' for name, each in hours.items())}")
        table("heard", heard)


def spoken(program: str, voice: str, speed: float, text: str) -> Int16:
    """Return a text as a synthesizer says it: int16, shape (n,)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        if program == "flite":
            stretch = f"duration_stretch={speed}"
            words = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", str(path)]
        else:
            words = ["espeak-ng", "-v", voice, "-s", str(int(speed)), "-w", str(path), text]
        subprocess.run(words, check=True, capture_output=True)
        return read(path)


def variants(audio: Int16, noise: Int16, room: Int16) -> Iterator[tuple[str, Int16]]:
    """Yield a recording clean, in noise, and in a room with noise."""
    yield "clean", audio
    loud = np.sqrt(np.mean(np.square(audio[np.abs(audio) > 200], dtype=np.float64)))
    bed = np.resize(noise, len(audio)).astype(np.float64)
    bed /= np.sqrt(np.mean(np.square(bed)))
    for snr_db in SNRS_DB:
        mixed = audio + bed * loud / 10 ** (snr_db / 20)
        yield f"{snr_db} dB", np.clip(mixed, -32768, 32767).astype(np.int16)
    response = room / np.abs(room).max()
    direct = int(np.argmax(np.abs(response)))
    wet = fftconvolve(audio.astype(np.float64), response[direct:])[: len(audio)]
    yield "room", (wet / np.abs(wet).max() * np.abs(audio).max()).astype(np.int16)


def said_words(clips: Path) -> Iterator[tuple[str, str, Int16]]:
    """Yield recordings in which a word is said: of which kind, the word, and the audio."""
    for word, spelled in WORDS.items():
        for program, voice, speed in VOICES:
            for comma in (",", ""):
                kind = f"{program}, {'pause' if comma else 'no pause'}"
                yield kind, word, spoken(program, voice, speed, f"{spelled}{comma} {COMMAND}")
    alone = [(path, text.lower()) for path, text in listed(clips) if text.lower() in WORDS]
    for path, text in alone[:: max(1, len(alone) // MOST_CLIPS)]:
        yield "recorded, alone", text, read(path)


def misses(clips: Path, noise_path: Path, room_path: Path) -> None:
    """Count what is heard of words that were said."""
    noise, room, listener = read(noise_path), read(room_path), Listener()
    rows: dict[str, Counter[tuple[str, float]]] = defaultdict(Counter)
    said: Counter[tuple[str, str]] = Counter()
    for kind, word, audio in said_words(clips):
        framed = np.concatenate([pause(1.0), audio, pause(1.0)])
        for name, variant in variants(framed, noise, room):
            said[f"{kind}, {name}", word] += 1
            for (heard, threshold), count in listener.heard(variant).items():
                if heard == word:
                    rows[f"{kind}, {name}"][word, threshold] += min(1, count)
    print("| said | word | times |\n|---|---|---|")
    for (kind, word), times in said.items():
        print(f"| {kind} | {word} | {times} |")
    table("of these heard", rows)


class Heard:
    """A source that gives a recording at once."""

    lossless = True

    def __init__(self, audio: Int16) -> None:
        self._audio = audio

    def events(self) -> Iterator[SourceEvent]:
        """Yield it."""
        yield SourceOpened("bench", RATE_HZ, 1)
        yield AudioBlock(self._audio, 0)

    def close(self) -> None:
        """Nothing to close."""


def trimmed(audio: Int16) -> tuple[Int16, Int16]:
    """Return a recording without the silence at its end, and without that at its beginning."""
    frames = audio[: len(audio) // 320 * 320].reshape(-1, 320).astype(np.float64)
    energy = np.sqrt(np.mean(np.square(frames), axis=1))
    loud = np.flatnonzero(energy > max(0.06 * energy.max(), 3 * np.percentile(energy, 10)))
    return audio[: (loud[-1] + 1) * 320], audio[loud[0] * 320 :]


def cut(clips: Path, commands: Path, count: int) -> None:
    """Compare what is recognized after a wake word with the command alone."""
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    normalize = EnglishTextNormalizer()
    listening = Settings(wake=WakeSettings(word="alexa"))

    def text(audio: Int16, gate: WakeGate | None) -> str:
        finals: list[str] = []

        def take(event: Event, _position: int) -> None:
            if isinstance(event, Final):
                finals.append(event.text)

        source = Heard(np.concatenate([pause(1.0), audio, pause(1.5)]))
        run_in_virtual_time(source, recognizer, listening, take, gate=gate)
        return str(normalize(" ".join(finals)))

    words = [path for path, said in listed(clips) if said == "alexa"]
    asked = [path for path, _ in listed(commands) if path.parent.name in ("home_en", "cmd_en")]
    print("| pause | runs | word missed | same text | WER against alone | word in the text |")
    print("|---|---|---|---|---|---|")
    for gap_s in GAPS_S:
        pairs, missed = [], 0
        for i in range(count):
            word, command = read(words[3 * i % len(words)]), read(asked[i % len(asked)])
            _, command = trimmed(command)
            alone = text(command, None)
            if not alone:
                continue
            loud = np.abs(command).max() / max(1, np.abs(word).max())
            scaled = np.clip(trimmed(word)[0] * loud, -32768, 32767).astype(np.int16)
            after = text(np.concatenate([scaled, pause(gap_s), command]), WakeGate())
            missed += not after
            if after:
                pairs.append((alone, after))
        same = sum(alone == after for alone, after in pairs)
        errors = jiwer.wer([alone for alone, _ in pairs], [after for _, after in pairs])
        left = sum("alexa" in after for _, after in pairs)
        runs = len(pairs) + missed
        print(f"| {gap_s} s | {runs} | {missed} | {same} | {errors:.1%} | {left} |", flush=True)


def main() -> None:
    """Read the words of the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("false")
    one.add_argument("lists", nargs="+", type=Path)
    one = what.add_parser("misses")
    one.add_argument("--clips", type=Path, required=True)
    one.add_argument("--noise", type=Path, required=True)
    one.add_argument("--room", type=Path, required=True)
    one = what.add_parser("cut")
    one.add_argument("--clips", type=Path, required=True)
    one.add_argument("--commands", type=Path, required=True)
    one.add_argument("--count", type=int, default=60)
    words = parser.parse_args()
    if words.what == "false":
        false_accepts(words.lists)
    elif words.what == "misses":
        misses(words.clips, words.noise, words.room)
    else:
        cut(words.clips, words.commands, words.count)


if __name__ == "__main__":
    main()
