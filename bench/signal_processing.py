"""What high-pass, noise suppression and automatic gain do to the word error rate.

    .venv/bin/python bench/signal_processing.py LIST --noise FOLDER --limit 60

LIST is the list of `harkd bench`, FOLDER holds sound files of noise. Each recording is heard clean,
quiet, in noise, with a constant offset and with hum, and each of these with every setting of the
signal options: through the daemon's own segmenter and recognizer, as `harkd transcribe` hears it.
Recordings of one condition are played in one stream with a second between them, so that what
adapts has learnt the room as it has in a daemon. Prints a table of word errors in percent
(lower case, no punctuation), one of recordings without any text, and the cost of the processing.

`--raw-vad` lets the voice activity detection hear the unprocessed audio, for comparison.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harkd.app import load  # noqa: E402
from harkd.audio import RATE_HZ, AudioBlock, FileSource, Int16, SourceOpened  # noqa: E402
from harkd.model_store import find_model  # noqa: E402
from harkd.recognizer.protocol import Recognizer  # noqa: E402
from harkd.segmenter import Segmenter, SpeechEnded, SpeechStarted, within  # noqa: E402
from harkd.settings import AudioSettings, Settings, find_file  # noqa: E402
from harkd.settings import load as load_settings  # noqa: E402
from harkd.signal_processing import signal_stage  # noqa: E402
from harkd.speech_list import Recording, read_list  # noqa: E402
from harkd.transcribe import Ears, FileSegment, Utterance  # noqa: E402
from speech import plain  # noqa: E402 - the tests compare in the same way

PAUSE_S = 1.0
ROUNDS = 5
"""Of the cost, the least of so many: other programs only add to it."""
BLOCK_SAMPLES = 480
Float = NDArray[np.float64]
PROCESSING = {
    "off": AudioSettings(),
    "high_pass": AudioSettings(high_pass=True),
    "noise_suppression 1": AudioSettings(noise_suppression=1),
    "noise_suppression 2": AudioSettings(noise_suppression=2),
    "noise_suppression 4": AudioSettings(noise_suppression=4),
    "auto_gain_db 30": AudioSettings(auto_gain_db=30),
    "all: true, 2, 30": AudioSettings(high_pass=True, noise_suppression=2, auto_gain_db=30),
}


@dataclass(frozen=True)
class Stream:
    """Recordings one after the other."""

    samples: Int16
    """int16, shape (n,), 16 kHz mono."""
    spans: list[tuple[int, int]]
    """Where each of them lies, with what is around it."""


def main() -> None:
    """Read the words of the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0, help="recordings, spread over the list")
    parser.add_argument("--only", default="", help="conditions, with ; between them")
    parser.add_argument("--settings", default="", help="settings of the table, with ; between them")
    parser.add_argument("--raw-vad", action="store_true")
    words = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    recordings = spread(read_list(words.list), words.limit)
    clean = joined([decoded(recording.path, settings) for recording in recordings])
    noise = looped(
        [decoded(p, settings) for p in sorted(words.noise.iterdir())], len(clean.samples)
    )
    references = [plain(recording.text or "") for recording in recordings]
    count = sum(len(reference.split()) for reference in references)
    print(f"{len(recordings)} recordings, {count} words, {len(clean.samples) / RATE_HZ:.0f} s\n")
    chosen = {name: PROCESSING[name] for name in listed(words.settings) or PROCESSING}
    only = listed(words.only)
    print(f"| | {' | '.join(chosen)} |\n|{'---|' * (len(chosen) + 1)}", flush=True)
    silent: list[str] = []
    for condition, make in conditions(clean, noise).items():
        if only and condition not in only:
            continue
        made = whole(make())
        heard_by = [
            hear(made, clean.spans, audio, recognizer, settings, raw_vad=words.raw_vad)
            for audio in chosen.values()
        ]
        rates = [f"{100 * jiwer.wer(references, heard):.1f}" for heard in heard_by]
        print(f"| {condition} | {' | '.join(rates)} |", flush=True)
        silent.append(f"| {condition} | {' | '.join(str(h.count('')) for h in heard_by)} |")
    print("\nrecordings without any text:\n", *silent, "", sep="\n")
    for name, audio in chosen.items():
        spent_ms = min(cost_ms(clean.samples, audio) for _ in range(ROUNDS))
        print(f"{name}: {spent_ms:.2f} ms of CPU for a second of audio")


def cost_ms(samples: Int16, audio: AudioSettings) -> float:
    """Return the milliseconds of CPU time that a second of audio takes, of the first 100 s."""
    samples = samples[: 100 * RATE_HZ]
    begin_s = time.process_time()
    processed(samples, audio)
    return 1000 * (time.process_time() - begin_s) / (len(samples) / RATE_HZ)


def listed(names: str) -> list[str]:
    """Return names that stand with ; between them."""
    return [name.strip() for name in names.split(";") if name.strip()]


def spread(recordings: list[Recording], limit: int) -> list[Recording]:
    """Return every n-th recording with a text, `limit` in all; all for 0."""
    known = [recording for recording in recordings if recording.text]
    if not 0 < limit < len(known):
        return known
    return [known[number * len(known) // limit] for number in range(limit)]


def decoded(path: Path, settings: Settings) -> Int16:
    """Return a file as the daemon hears it."""
    source = FileSource(path, str(settings.audio.channel), paced=False)
    blocks = [event.samples for event in source.events() if isinstance(event, AudioBlock)]
    return np.concatenate(blocks)


def joined(recordings: list[Int16]) -> Stream:
    """Return recordings with a pause before, between and after them."""
    pause = np.zeros(int(PAUSE_S * RATE_HZ), np.int16)
    pieces, spans, at = [pause], [], len(pause)
    for samples in recordings:
        spans.append((at - len(pause) // 2, at + len(samples) + len(pause) // 2))
        pieces += [samples, pause]
        at += len(samples) + len(pause)
    return Stream(np.concatenate(pieces), spans)


def looped(sounds: list[Int16], length: int) -> Float:
    """Return noises of one loudness, 10 s of each in turn, as long as asked for; RMS 1."""
    pieces = []
    for sound in sounds:
        piece = sound[: 10 * RATE_HZ].astype(np.float64)
        if level := np.sqrt(np.mean(piece**2)):
            pieces.append(piece / level)
    whole = np.concatenate(pieces)
    return np.tile(whole, length // len(whole) + 1)[:length]


def conditions(clean: Stream, noise: Float) -> dict[str, Callable[[], Float]]:
    """Return what makes each condition of the clean stream, by name."""
    samples = clean.samples.astype(np.float64)
    quiet = 10 ** (-30 / 20)

    def in_noise(snr_db: float) -> Float:
        """Each recording has this ratio, from the middle of the pause before it on."""
        level = np.zeros(len(samples))
        for begin, end in clean.spans:
            speech = samples[begin:end]
            level[begin:end] = np.sqrt(np.mean(speech[speech != 0] ** 2)) * 10 ** (-snr_db / 20)
        return samples + level * noise

    def hum() -> Float:
        at = np.arange(len(samples)) / RATE_HZ
        wave: Float = sum((np.sin(2 * np.pi * 50 * k * at) / k for k in (1, 2, 3)), np.zeros(1))
        return samples + 0.03 * 32768 * wave

    return {
        "clean": lambda: samples,
        "quiet, −30 dB": lambda: samples * quiet,
        "noise, 10 dB": lambda: in_noise(10),
        "noise, 5 dB": lambda: in_noise(5),
        "noise, 10 dB, and quiet, −30 dB": lambda: in_noise(10) * quiet,
        "offset of 10 %": lambda: samples + 0.1 * 32768,
        "hum, 50 Hz, −30 dB": hum,
    }


def whole(samples: Float) -> Int16:
    """Return samples as a sound card delivers them."""
    rounded: Int16 = np.rint(samples).clip(-32768, 32767).astype(np.int16)
    return rounded


def processed(samples: Int16, audio: AudioSettings) -> Int16:
    """Return a stream as it comes out of the signal processing: of the same length."""

    def events() -> Iterator[SourceOpened | AudioBlock]:
        yield SourceOpened("stream", RATE_HZ, 1)
        for at in range(0, len(samples), BLOCK_SAMPLES):
            yield AudioBlock(samples[at : at + BLOCK_SAMPLES], at * 1_000_000_000 // RATE_HZ)

    done = [e.samples for e in signal_stage(audio)(events()) if isinstance(e, AudioBlock)]
    return np.concatenate(done)


def hear(
    stream: Int16,
    spans: list[tuple[int, int]],
    audio: AudioSettings,
    recognizer: Recognizer,
    settings: Settings,
    *,
    raw_vad: bool,
) -> list[str]:
    """Return the words heard in each of a stream's recordings."""
    samples = processed(stream, audio)
    judged = stream if raw_vad else samples
    texts = []
    for begin, end in spans:
        said = [
            Ears(recognizer, settings).hear(segment)
            for segment in cut(judged[begin:end], samples[begin:end], recognizer, settings)
        ]
        texts.append(plain(" ".join(each.text for each in said if isinstance(each, Utterance))))
    return texts


def cut(
    judged: Int16, samples: Int16, recognizer: Recognizer, settings: Settings
) -> Iterator[FileSegment]:
    """Yield segments of `samples` where there is speech in `judged`."""
    segmenter = Segmenter(settings.vad, within(settings.endpoint, recognizer.max_segment_s))
    begin = 0
    for event in [*segmenter.push(judged), *segmenter.flush()]:
        if isinstance(event, SpeechStarted):
            begin = event.audio_start
        elif isinstance(event, SpeechEnded):
            short = event.voiced_ms < settings.vad.min_speech_ms
            yield FileSegment(0, 0, None if short else samples[begin : event.audio_end])


if __name__ == "__main__":
    main()
