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
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from harkd.app import load
from harkd.model_store import find_model
from harkd.recognizer.protocol import Recognizer
from harkd.second_look import SecondLook, find_second_look
from harkd.settings import Settings, find_file
from harkd.settings import load as load_settings
from harkd.transcribe import FileTranscriber, Utterance


def row(
    path: Path,
    seconds: float,
    recognizer: Recognizer,
    settings: Settings,
    second_look: SecondLook | None,
) -> str:
    """Run one file, repeated to `seconds`, and return its row of the table."""
    samples, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    wanted = int(seconds * rate_hz)
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "long.wav"
        soundfile.write(long, np.tile(samples, (wanted // len(samples) + 1, 1))[:wanted], rate_hz)
        begin_s = time.process_time()
        outcomes = list(FileTranscriber(long, recognizer, settings, second_look).outcomes())
        cpu_s = time.process_time() - begin_s
    texts = Counter(each.text for each in outcomes if isinstance(each, Utterance))
    reasons = Counter(each.reason.value for each in outcomes if not isinstance(each, Utterance))
    rejected = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common()) or "–"
    said = ", ".join(f"“{text[:40]}” ×{n}" for text, n in texts.most_common(2))
    figures = f"{len(outcomes)} | {texts.total()} | {rejected} | {cpu_s / seconds:.4f}"
    return f"| {path.stem} | {figures} | {said} |"


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("files", nargs="+", type=Path)
    words = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    second_look = find_second_look(settings.vad)
    print("| sound | segments | finals | rejected | CPU s per s | commonest texts |")
    print("|---|---|---|---|---|---|")
    for path in words.files:
        print(row(path, words.minutes * 60, recognizer, settings, second_look), flush=True)


if __name__ == "__main__":
    main()
