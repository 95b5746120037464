"""How far partials of a lean model are from exact recognition, by how much is encoded again.

    .venv/bin/python bench/look_ahead.py LIST --model NAME [--limit N] [--frames 16 24 …]

Each recording of LIST is fed in pieces of 0.5 s. After each piece the partial's text is compared
with the text that a fresh pass over the same audio gives: words that differ, and partials whose
words are all the same. Words are compared as `harkd bench` compares them. Unlikely words are not
left out (`recognizer.partial_confidence` is 0).
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

from harkd.app import load
from harkd.audio import RATE_HZ, Int16
from harkd.bench_measure import read_samples
from harkd.bench_words import count_errors, load_normalizer
from harkd.model_store import find_model
from harkd.recognizer import moonshine_lean
from harkd.recognizer.protocol import Recognizer
from harkd.settings import find_file
from harkd.settings import load as load_settings
from harkd.speech_list import read_list, spread

STEP = RATE_HZ // 2


def main() -> None:
    """Read the words of the command line and print a line for each look-ahead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 24, 32, 48, 64])
    words = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    chosen = replace(settings.recognizer, model=words.model, partial_confidence=0.0)
    settings = replace(settings, recognizer=chosen)
    recognizer = load(find_model(settings), settings)
    normalizer = load_normalizer("en")
    if normalizer is None:
        raise SystemExit("install the extra: pip install 'harkd[bench]'")
    recordings = [read_samples(each.path) for each in spread(read_list(words.list), words.limit)]
    exact = [[text(recognizer, audio[:end]) for end in ends(audio)] for audio in recordings]
    for frames in words.frames:
        setattr(moonshine_lean, "LOOK_AHEAD_FRAMES", frames)  # noqa: B010 - no setting
        begin_s, before = time.process_time(), recognizer.work.snapshot()
        rough = [partials(recognizer, audio) for audio in recordings]
        spent_s, work = time.process_time() - begin_s, recognizer.work.since(before)
        wanted = [one for texts in exact for one in texts]
        found = [one for texts in rough for one in texts]
        errors = count_errors(wanted, found, normalizer)
        same = sum(normalizer(a) == normalizer(b) for a, b in zip(wanted, found, strict=True))
        audio_s = sum(map(len, recordings)) / RATE_HZ
        print(
            f"{frames} frames ({frames * 24} ms): {spent_s / audio_s:.4f} CPU s per s, "
            f"{work.encoded_s / audio_s:.2f} s encoded per s, {errors.percent} % of "
            f"{errors.words} words differ, {same} of {len(wanted)} partials alike"
        )


def ends(audio: Int16) -> range:
    """Return where each piece of a recording ends, but for the last."""
    return range(STEP, len(audio), STEP)


def text(recognizer: Recognizer, audio: Int16) -> str:
    """Recognize audio afresh: int16, shape (n,), 16 kHz."""
    stream = recognizer.stream()
    stream.accept(audio)
    return stream.finish().text


def partials(recognizer: Recognizer, audio: Int16) -> list[str]:
    """Return the partial after each piece."""
    stream = recognizer.stream()
    texts = []
    for end in ends(audio):
        stream.accept(audio[end - STEP : end])
        texts.append(stream.hypothesis().text)
    return texts


if __name__ == "__main__":
    main()
