"""What hotwords gain, what wrong ones spoil, and what they cost, on recorded speech.

    .venv/bin/python bench/hotwords.py LIST [--boosts 0,1,2] [--without home_en]

LIST is as for bench/accuracy.py. The model is the one of the settings; each recording of up to 20 s
is one segment, without the voice detector. For each boost, three rows: with `RIGHT`, words that are
said in the recordings and that small models miss; with `WRONG` beside them, words that nobody says
there; and with these alone. A keyword is one of `RIGHT`. A false insertion is a hotword that was
written more often than it was said.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harkd.app import load  # noqa: E402
from harkd.audio import RATE_HZ  # noqa: E402
from harkd.hotword_list import Hotword, Hotwords  # noqa: E402
from harkd.model_store import find_model  # noqa: E402
from harkd.recognizer.protocol import Recognizer  # noqa: E402
from harkd.settings import find_file  # noqa: E402
from harkd.settings import load as load_settings  # noqa: E402
from speech import plain  # noqa: E402 - the tests compare in the same way

LONGEST_S = 20
COMPARED_EACH = 3
RIGHT = """cancel, timer, timers, pause, resume, Mood Lighting, Bed Light, brightness, clubs,
Candia, parishes, Holborn, St. Andrew's, St. Bride's, St. James's, temperate, turnpikes,
saddler, appoint, merchant, Southwark, Drury Lane, Clerkenwell, Whitechappel, Frenchmen,
infection"""
WRONG = """Siobhan, Ikea, Aoife, Nguyen, Joaquin, Saoirse, Xiaomi, Zigbee, Tasmota, Shelly, Sonos,
Philips Hue, Netflix, Spotify, Grafana, Niamh, Beatrix, Casimir, Leopold, Wilhelmina,
Octavia, Rashid, Yusuf, Amara, Thandiwe, Kowalski, Bergström, Rodriguez, Papadopoulos,
Takahashi, conservatory, veranda, dehumidifier, thermostat, dishwasher, carport,
radiator, larder, skylight, pergola, Roomba, Chromecast, Marmite, Worcestershire,
Llandudno, Reykjavik, Tuesday, Brenda, Curtis, Marlene"""
"""50 of them"""


def hotwords(text: str, boost: float) -> Hotwords:
    """Return words in a row as hotwords of one boost."""
    return tuple(Hotword(" ".join(each.split()), boost) for each in text.split(","))


def read(path: Path) -> NDArray[np.int16]:
    """Return a recording: int16, shape (n,), 16 kHz mono."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    resampled = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    return np.asarray(np.clip(resampled, -1, 1) * 32767, np.int16)


def said(word: str, text: str) -> int:
    """Return how often a word, or words in a row, are in a plain text."""
    return len(re.findall(rf"(?<!\S){re.escape(plain(word))}(?!\S)", text))


def heard(
    recognizer: Recognizer, recordings: Mapping[str, NDArray[np.int16]], words: Hotwords
) -> tuple[list[str], float]:
    """Return the texts of all recordings, and how many times as long they take with hotwords.

    Each third one is recognized with and without them for that, one right after the other, so that
    what else the machine does hits both.
    """
    texts, with_s, without_s = [], 0.0, 0.0
    for number, samples in enumerate(recordings.values()):
        text, spent_s = recognized(recognizer, samples, words)
        texts.append(text)
        if number % COMPARED_EACH == 0:
            with_s += spent_s
            without_s += recognized(recognizer, samples, ())[1]
    return texts, with_s / without_s


def recognized(
    recognizer: Recognizer, samples: NDArray[np.int16], words: Hotwords
) -> tuple[str, float]:
    """Return the text of a recording, and the seconds of one core that it took."""
    begin = time.process_time()
    stream = recognizer.stream(words) if words else recognizer.stream()
    stream.accept(samples)
    text = stream.finish().text
    return plain(text), time.process_time() - begin


def row(
    name: str,
    references: Sequence[str],
    texts: Sequence[str],
    words: Hotwords,
    cost: float,
) -> str:
    """Return one line of the table."""
    keywords = [each.phrase for each in hotwords(RIGHT, 0.0)]
    pairs = list(zip(references, texts, strict=True))
    wanted = sum(said(word, one) for word in keywords for one, _ in pairs)
    found = sum(min(said(word, one), said(word, two)) for word in keywords for one, two in pairs)
    false = sum(
        max(0, said(word.phrase, two) - said(word.phrase, one))
        for word in words
        for one, two in pairs
    )
    rate = 100 * jiwer.wer(list(references), list(texts))
    return f"| {name} | {rate:.2f} | {found} of {wanted} | {false} | {100 * cost - 100:+.0f} % |"


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--boosts", default="0,0.5,1,1.5,2,3,4")
    chosen = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    references, recordings = [], {}
    for line in chosen.list.read_text(encoding="utf-8").splitlines():
        path, seconds, _, reference, *_ = line.split("\t")
        if float(seconds) <= LONGEST_S:
            recordings[path] = read(chosen.list.parent / path)
            # Models write the name of a saint so.
            references.append(plain(re.sub(r"\bsaint (?=\w+'s\b)", "st. ", reference)))
    total_s = sum(map(len, recordings.values())) / RATE_HZ
    print(f"{recognizer.name}: {len(recordings)} recordings, {total_s:.0f} s\n")
    print("| hotwords | word errors, % | keywords heard | false insertions | CPU |")
    print("|---|---|---|---|---|")
    texts, _ = heard(recognizer, recordings, ())
    print(row("none", references, texts, hotwords(f"{RIGHT}, {WRONG}", 0), 1.0), flush=True)
    for boost in map(float, chosen.boosts.split(",")):
        lists = {"right": RIGHT, "right and 50 wrong": f"{RIGHT}, {WRONG}", "50 wrong": WRONG}
        for name, words in lists.items():
            given = hotwords(words, boost)
            recognizer.stream(given)  # the first one prepares them
            texts, cost = heard(recognizer, recordings, given)
            print(row(f"{name}, boost {boost:g}", references, texts, given, cost), flush=True)


if __name__ == "__main__":
    main()
