"""Word error rate of recorded speech, through the daemon's own segmenter and recognizer.

    .venv/bin/python bench/accuracy.py LIST

LIST is a tab-separated file: path (relative to it), seconds, rate, reference text, source; the
folder before the first slash of the path is the category. Prints a table: per category the
utterances, the reference's words, the word error rate, and the utterances of which nothing was
published. Words are compared in lower case and without punctuation; numbers are not normalized.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from pathlib import Path

import jiwer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harkd.app import load  # noqa: E402
from harkd.model_store import find_model  # noqa: E402
from harkd.second_look import find_second_look  # noqa: E402
from harkd.settings import find_file  # noqa: E402
from harkd.settings import load as load_settings  # noqa: E402
from harkd.transcribe import FileTranscriber  # noqa: E402
from speech import plain  # noqa: E402 - the tests compare in the same way


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path)
    words = parser.parse_args()
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    second_look = find_second_look(settings.vad)
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in words.list.read_text(encoding="utf-8").splitlines():
        path, _, _, reference, *_ = line.split("\t")
        file = FileTranscriber(words.list.parent / path, recognizer, settings, second_look)
        heard = plain(" ".join(utterance.text for utterance in file.utterances()))
        pairs[path.partition("/")[0]].append((plain(reference), heard))
    pairs["all"] = [pair for category in list(pairs.values()) for pair in category]
    print("| category | utterances | words | word error rate, % | nothing published |")
    print("|---|---|---|---|---|")
    for category, texts in pairs.items():
        references, hypotheses = map(list, zip(*texts, strict=True))
        count = sum(len(reference.split()) for reference in references)
        rate = 100 * jiwer.wer(references, hypotheses)
        print(f"| {category} | {len(texts)} | {count} | {rate:.1f} | {hypotheses.count('')} |")


if __name__ == "__main__":
    main()
