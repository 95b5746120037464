"""What phrases cost for each final: CPU of live recognition with them, against without.

    .venv/bin/python bench/phrase_cost.py LIST --model FOLDER

Each recording is spoken in virtual time, with all its partials, and with silence until its final;
with phrases, they are asked for at the final. Both take turns, and the least of a few runs counts.
Prints by category the CPU of each, what phrases add, and the median of what they add to a
recording. LIST is as for `phrase_scores.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from calibrate_features import decoded, whole
from phrase_cases import listed
from phrase_scores import HOUSE

from harkd.audio import RATE_HZ
from harkd.bench_live import Live, tail_s
from harkd.hotword_list import Hotwords
from harkd.model_package import load_manifest
from harkd.phrases.loading import load_files
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.phrase_scorer import PhraseRecognizer, PhraseScorer, PhraseStream
from harkd.recognizer.protocol import Hypothesis, Recognizer, Stream
from harkd.settings import Settings

ROUNDS = 4
LONGEST_S = 15


class Asking:
    """A recognizer whose streams are asked for phrases once they are finished.

    Args:
        recognizer: The loaded model.
        scorer: The phrases.
    """

    def __init__(self, recognizer: Recognizer, scorer: PhraseScorer) -> None:
        self._recognizer, self._scorer = recognizer, scorer

    def __getattr__(self, name: str) -> object:
        return getattr(self._recognizer, name)

    def stream(self, hotwords: Hotwords = ()) -> Stream:
        """Begin a segment."""
        stream = self._recognizer.stream(hotwords)
        if not isinstance(stream, PhraseStream):
            raise TypeError(f"a stream of {self._recognizer.name} scores no phrases")
        finish = stream.finish
        asked: list[object] = []

        def finish_and_ask() -> Hypothesis:
            hypothesis = finish()
            if not asked:
                asked.append(stream.phrases(self._scorer))
            return hypothesis

        stream.finish = finish_and_ask  # type: ignore[method-assign]
        return stream


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a model package's folder")
    parser.add_argument("--phrases", type=Path, default=HOUSE, help="what can be said")
    parser.add_argument("--most", type=int, default=20, help="recordings of a category")
    words = parser.parse_args()
    recognizer = load_recognizer(words.model, load_manifest(words.model), threads=1)
    phrases = load_files([words.phrases])
    if phrases is None or not isinstance(recognizer, PhraseRecognizer):
        raise SystemExit("there are no phrases, or the model scores none")
    scorer, settings = PhraseScorer(phrases.graph, recognizer.vocabulary()), Settings()
    tail = tail_s(settings.endpoint)
    asking: Recognizer = Asking(recognizer, scorer)  # type: ignore[assignment]
    subjects = [Live("open", recognizer, settings, tail), Live("phrases", asking, settings, tail)]
    found: dict[str, list[tuple[float, float]]] = {}
    for path, _ in listed(words.list):
        sound = whole(decoded(words.list.parent / path))
        own = found.setdefault(path.partition("/")[0], [])
        if len(own) >= words.most or len(sound) > LONGEST_S * RATE_HZ:
            continue
        costs: list[list[float]] = [[], []]
        for number in range(ROUNDS):
            for which in (0, 1) if number % 2 else (1, 0):
                begin = time.process_time()
                subjects[which].hear(sound)
                costs[which].append(time.process_time() - begin)
        own.append((min(costs[0]), min(costs[1])))
    print("| category | recordings | open, ms | phrases, ms | more, % | median, % |")
    print("|---|---|---|---|---|---|")
    for name, pairs in [*found.items(), ("all", [each for own in found.values() for each in own])]:
        opened, with_phrases = (sum(each[i] for each in pairs) for i in (0, 1))
        median = statistics.median(after / before for before, after in pairs)
        print(
            f"| {name} | {len(pairs)} | {1000 * opened / len(pairs):.0f} | "
            f"{1000 * (with_phrases - opened) / len(pairs):.0f} | "
            f"{100 * (with_phrases / opened - 1):.0f} | {100 * (median - 1):.0f} |"
        )


if __name__ == "__main__":
    main()
