"""Packages of one streaming model in several precisions: size, speed, word errors.

    .venv/bin/python bench/streaming_precisions.py --speech LIST FLOAT INT8 STATIC…

Each is a package of `harkd-convert streaming`. They take turns on each recording, in random order,
in one process with one thread, pinned to one core; each gets 100 ms at a time and is asked for its
text each 0.5 s, as a daemon asks. Prints a Markdown table: the model file in MB (10^6 bytes), CPU
seconds for each second of recording (of each recording the median of the rounds), word errors as
`streaming_daemon.py` counts them, and how many texts are those of the first package.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from harkd.bench_machine import this_machine
from harkd.bench_measure import measure
from harkd.bench_report import Figures, figures_of
from harkd.bench_words import Normalizer, count_errors, load_normalizer
from harkd.errors import HarkdError
from harkd.speech_list import Recording, read_list, spread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from streaming_subjects import Harkd, Package, load_streaming, open_package  # noqa: E402

from speech import plain  # noqa: E402 - the tests compare in the same way

HEADER = [
    "precision",
    "MB",
    "CPU s per s",
    "of the first",
    "word error rate, %: plain",
    "Whisper's",
    "texts of the first",
]


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--speech", type=Path, required=True, help="a list with texts")
    parser.add_argument("--category", help="take those of the list that lie in this folder")
    parser.add_argument("--limit", type=int, help="take so many, evenly over the list")
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    try:
        listed = [each for each in read_list(words.speech) if each.text is not None]
        chosen = [each for each in listed if words.category in (None, each.category)]
        print("\n".join(report(words.packages, spread(chosen, words.limit), words.rounds)))
    except HarkdError as error:
        sys.exit(f"streaming_precisions.py: {error}")


def report(folders: list[Path], recordings: list[Recording], rounds: int) -> list[str]:
    """Measure, and return the lines."""
    machine = this_machine()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    packages = [open_package(folder) for folder in folders]
    subjects = [Harkd(load_streaming(each), str(each.folder)) for each in packages]
    timed = measure(subjects, recordings, repeat=rounds)
    found = figures_of([each.name for each in subjects], timed, None)
    normalizer = load_normalizer(packages[0].manifest.languages[0])
    said = [each.text or "" for each in recordings]
    rows = [
        row(package, figures, found[0], said, normalizer)
        for package, figures in zip(packages, found, strict=True)
    ]
    total = f"{len(recordings)} recordings, {found[0].audio_s:.0f} s, {rounds} rounds, one thread"
    lines = [" | ".join(each) for each in [HEADER, ["---"] * len(HEADER), *rows]]
    return [str(machine), total, "", *(f"| {line} |" for line in lines)]


def row(
    package: Package,
    found: Figures,
    first: Figures,
    said: list[str],
    normalizer: Normalizer | None,
) -> list[str]:
    """Return a package's row."""
    heard = [each.text for each in found.recordings]
    same = sum(map(str.__eq__, heard, [each.text for each in first.recordings]))
    return [
        precision_of(package),
        f"{package.manifest.files['model'].size_bytes / 1e6:.2f}",
        f"{found.cpu_s_per_s:.5f}",
        f"{found.cpu_s_per_s / first.cpu_s_per_s:.2f}",
        count_errors(said, heard, plain).percent,
        count_errors(said, heard, normalizer).percent if normalizer else "–",
        f"{same} of {len(said)}",
    ]


def precision_of(package: Package) -> str:
    """Return what the converter wrote of it into the manifest; else its folder's name."""
    made: dict[str, Any] = package.manifest.measured.get("converter") or {}
    if made.get("precision") != "int8":
        return str(made.get("precision") or package.folder.name)
    kept = ", ".join(made.get("keep_float") or [])
    return f"int8, {made['activations']}" + (f", {kept} in float" if kept else "")


if __name__ == "__main__":
    main()
