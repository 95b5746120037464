"""How much text is invented from sounds that are no speech.

    .venv/bin/python bench/false_finals.py --minutes 10 FILE…

Repeats each file to the given length and runs it through the daemon's own segmenter and
recognizer, without waiting for real time: endpoints are decided on audio time, so the finals are
the same. Prints a table: segments, finals, rejections by reason, CPU seconds per second of sound
(finals only, no partials), and the commonest texts.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from harkd.app import find_model, load
from harkd.recognizer.protocol import Recognizer
from harkd.segment import History
from harkd.segmenter import Segmenter, SpeechEnded, SpeechStarted
from harkd.settings import Settings, find_file
from harkd.settings import load as load_settings
from harkd.verdict import rejection, too_short

RATE_HZ = 16000


@dataclass
class Count:
    """What came out of one file."""

    segments: int = 0
    texts: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0


def listen(path: Path, seconds: float, recognizer: Recognizer, settings: Settings) -> Count:
    """Run one file, repeated to `seconds`."""
    samples, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    audio = soxr.resample(samples[:, 0], rate_hz, RATE_HZ)
    audio = np.tile(audio, int(seconds * RATE_HZ / len(audio)) + 1)[: int(seconds * RATE_HZ)]
    segmenter = Segmenter(settings.vad, settings.endpoint)
    history = History(int((settings.endpoint.max_utterance_s + 10) * RATE_HZ))
    count = Count()
    start = 0
    begin_s = time.process_time()
    for at in range(0, len(audio), 1600):
        piece = audio[at : at + 1600]
        history.append(piece)
        for event in segmenter.push(piece):
            if isinstance(event, SpeechStarted):
                start = event.audio_start
            elif isinstance(event, SpeechEnded):
                judge(event, history.between(start, event.audio_end), recognizer, settings, count)
    count.cpu_s = time.process_time() - begin_s
    return count


def judge(
    event: SpeechEnded,
    audio: np.ndarray,
    recognizer: Recognizer,
    settings: Settings,
    count: Count,
) -> None:
    """Recognize one segment and count what became of it."""
    count.segments += 1
    if too_short(event.voiced_ms, settings.vad.min_speech_ms):
        count.rejections["too_short"] += 1
        return
    stream = recognizer.stream()
    stream.accept(audio)
    hypothesis = stream.finish()
    if reason := rejection(hypothesis, settings.recognizer.min_confidence):
        count.rejections[reason.value] += 1
    else:
        count.texts[hypothesis.text] += 1


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("files", nargs="+", type=Path)
    words = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    seconds = words.minutes * 60
    print("| sound | segments | finals | rejected | CPU s per s | commonest texts |")
    print("|---|---|---|---|---|---|")
    for path in words.files:
        count = listen(path, seconds, recognizer, settings)
        finals = sum(count.texts.values())
        rejected = ", ".join(f"{k} {n}" for k, n in count.rejections.items()) or "–"
        texts = ", ".join(f"“{text[:40]}” ×{n}" for text, n in count.texts.most_common(3))
        print(
            f"| {path.stem} | {count.segments} | {finals} | {rejected} | "
            f"{count.cpu_s / seconds:.4f} | {texts} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
