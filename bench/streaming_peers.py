"""harkd and sherpa-onnx with the same streaming model, in turns, in one process, on one core.

    .venv/bin/python bench/streaming_peers.py DIR RECORDING… --rounds 10
    .venv/bin/python bench/streaming_peers.py DIR --speech LIST --limit 40

DIR is a package of a streaming CTC model or transducer, or such a model as sherpa-onnx publishes
it. Where none is at hand, one of random weights with the shapes of a published one does for the
cost:

    PYTHONPATH=tests .venv/bin/python -c "import pathlib, small_streaming as s; \
        s.write_published_size(pathlib.Path('DIR'), blocks=12, blank=6.0)"

Both get 100 ms at a time and are asked for their text each 0.5 s, as a daemon asks. harkd then
hears as much silence as it finds that the model needs; sherpa-onnx so much that it encodes as many
chunks, or 0.66 s as in its examples, or 1.5 s. What differs besides is what either spends around
the same graphs. LIST is as `harkd bench --speech` takes it; with texts in it, word errors are
counted, after Whisper's normalizer. The process pins itself to one core before anything is loaded.
Prints CPU seconds for each second of recording (of each recording the median of the rounds), and
on how many recordings texts and tokens are the same.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from streaming_compared import compare
from streaming_subjects import Harkd, SherpaOnnx, load_streaming, open_package, peers_of

from harkd.bench_machine import installed, this_machine
from harkd.bench_measure import Subject, measure, read_samples
from harkd.bench_report import Figures, errors_cell, figures_of, table
from harkd.bench_words import MISSING, Normalizer, load_normalizer
from harkd.errors import HarkdError
from harkd.speech_list import Recording, read_list, spread

HEADER = [
    "subject",
    "CPU s per s",
    "chunks",
    "word error rate, %",
    "errors / words",
    "harkd beside it",
    "harkd / it",
    "same texts",
    "same tokens",
]


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--speech", type=Path, help="a list of recordings")
    parser.add_argument("--category", help="take those of the list that lie in this folder")
    parser.add_argument("--limit", type=int, help="take so many, evenly over the list")
    parser.add_argument("--rounds", type=int, default=10)
    words = parser.parse_args()
    recordings = [Recording(path) for path in words.recordings]
    try:
        if words.speech:
            listed = read_list(words.speech)
            chosen = [each for each in listed if words.category in (None, each.category)]
            recordings += spread(chosen, words.limit)
        if not recordings:
            parser.error("name recordings, or a list of them with --speech")
        print("\n".join(report(words.model, recordings, words.rounds)))
    except HarkdError as error:
        sys.exit(f"streaming_peers.py: {error}")


def report(folder: Path, recordings: list[Recording], rounds: int) -> list[str]:
    """Measure, and return the lines."""
    machine = this_machine()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    package = open_package(folder)
    model = load_streaming(package)
    harkd, peers = Harkd(model), peers_of(package, model)
    audios = [read_samples(each.path) for each in recordings]
    equal = compare(harkd, peers, audios).equal  # learns how many chunks it is, too
    normalizer = load_normalizer(model.language)
    rows, harkds = [HEADER], list[Figures]()
    for peer in peers:
        # Two at a time: of three turns of one, two would find its weights in the cache.
        ours, theirs = pair(harkd, peer, recordings, rounds, normalizer)
        same = equal[peer.name]
        harkds.append(ours)
        rows.append(
            [
                *cells(theirs),
                f"{ours.cpu_s_per_s:.5f}",
                f"{ours.cpu_s_per_s / theirs.cpu_s_per_s:.3f}",
                str(same.texts),
                str(same.tokens),
            ]
        )
    found = harkds[0]
    rows.append([*cells(found), "", "", "", ""])
    total = f"{len(recordings)} recordings, {found.audio_s:.0f} s, {rounds} rounds"
    versions = f"sherpa-onnx {installed('sherpa-onnx')}; pinned to one core"
    missing = [] if normalizer else [MISSING]
    return [str(machine), f"{versions}; {total}", "", *table(rows), *missing]


def pair(
    harkd: Harkd,
    peer: SherpaOnnx,
    recordings: list[Recording],
    rounds: int,
    normalizer: Normalizer | None,
) -> list[Figures]:
    """Let both take turns on each recording."""
    subjects: list[Subject] = [harkd, peer]
    timed = measure(subjects, recordings, repeat=rounds)
    return figures_of([each.name for each in subjects], timed, normalizer)


def cells(found: Figures) -> list[str]:
    """Return what is told of one subject alone."""
    errors = found.word_errors
    return [
        found.name,
        f"{found.cpu_s_per_s:.5f}",
        str(found.counts.encoder_passes),
        errors.percent if errors else "–",
        errors_cell(errors),
    ]


if __name__ == "__main__":
    main()
