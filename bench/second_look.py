"""What the second look costs where somebody speaks, and what it saves where nobody does.

    .venv/bin/python bench/second_look.py --speech FILE… --noise FILE…

Hears each file live, in virtual time, partials and all, with `vad.second_look` on and off in turn.
Prints CPU seconds per second of audio, and finals and partials.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from calibrate_features import decoded, whole

from harkd.app import load
from harkd.audio import RATE_HZ, Int16
from harkd.bench_live import SpokenSamples
from harkd.events import Event, Final, Partial
from harkd.model_store import find_model
from harkd.recognizer.protocol import Recognizer
from harkd.second_look import SecondLook, find_second_look
from harkd.settings import Settings, find_file
from harkd.settings import load as load_settings
from harkd.virtual_time import run_in_virtual_time


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each file")
    parser.add_argument("--speech", nargs="+", type=Path, required=True)
    parser.add_argument("--noise", nargs="+", type=Path, required=True)
    words = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    second_look = find_second_look(settings.vad)
    print("| | seconds | CPU s per s without | with | finals without | with | partials | with |")
    print("|---|---|---|---|---|---|---|---|")
    for name, paths in (("speech", words.speech), ("noise", words.noise)):
        parts = [decoded(path)[: int(words.seconds * RATE_HZ)] for path in paths]
        pause = np.zeros(RATE_HZ)
        audio = whole(np.concatenate([each for part in parts for each in (part, pause)]))
        results = [
            hear(
                audio,
                recognizer,
                replace(settings, vad=replace(settings.vad, second_look=on)),
                second_look,
            )
            for on in (False, True)
        ]
        pairs = [f"{one:.4g} | {two:.4g}" for one, two in zip(*results, strict=True)]
        print(f"| {name} | {len(audio) / RATE_HZ:.0f} | {' | '.join(pairs)} |", flush=True)


def hear(
    audio: Int16, recognizer: Recognizer, settings: Settings, second_look: SecondLook | None
) -> tuple[float, int, int]:
    """Return CPU seconds per second, finals and partials."""
    events: list[Event] = []
    begin_s = time.process_time()
    run_in_virtual_time(
        SpokenSamples(audio),
        recognizer,
        settings,
        lambda event, _: events.append(event),
        second_look=second_look,
    )
    spent_s = time.process_time() - begin_s
    kinds = [sum(isinstance(each, kind) for each in events) for kind in (Final, Partial)]
    return spent_s / (len(audio) / RATE_HZ), kinds[0], kinds[1]


if __name__ == "__main__":
    main()
