"""How well commands are found among all that can be said, and what it costs.

    .venv/bin/python bench/phrase_scores.py LIST [NOISE] --model FOLDER [--snr 20,10,5 --rooms]

LIST and NOISE are tab-separated files: path (relative to them), seconds, rate, reference text or
kind, source; the folder before the first slash of the path is the category. Those of which
the reference can be said are commands, all others are not. What can be said is in
`config/phrases/house.en.yaml`, or --phrases. Prints what became of each command, how many commands
and how many others are matched at each threshold, thresholds that were chosen on one half of the
recordings and tried on the other, and the CPU time of the search next to that of open decoding.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

from phrase_cases import CLEAN, Heard, Listening, cases

from harkd.model_package import load_manifest
from harkd.phrases import PhraseGraph
from harkd.phrases.loading import load_files
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.moonshine_tokens import TOKEN_END
from harkd.recognizer.phrase_scorer import (
    MATCH_EVIDENCE_LEAST,
    MATCH_MARGIN_MOST,
    PhraseRecognizer,
    PhraseScorer,
    Scope,
)
from harkd.recognizer.phrase_search import Width

HOUSE = Path(__file__).resolve().parents[1] / "config" / "phrases" / "house.en.yaml"
MARGINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5)
EVIDENCES = (0.0, 4.0, 5.0, 6.0, 7.0, 8.0)
SPLITS = 200
FALSE_MOST = 0.02


def listen(words: argparse.Namespace) -> list[Heard]:
    """Recognize all recordings, openly and as phrases."""
    phrases = load_files([words.phrases])
    if phrases is None:
        raise SystemExit(f"{words.phrases} has no phrases")
    graph = phrases.graph
    recognizer = load_recognizer(words.model, load_manifest(words.model), threads=1)
    if not isinstance(recognizer, PhraseRecognizer):
        raise SystemExit(f"{words.model} is of a family that scores no phrases")
    scope = Scope(
        Width(paths=words.paths, first=words.first),
        words.near,
        words.sure,
        words.clear,
        words.exhaustive,
    )
    begin = time.process_time()
    scorer = PhraseScorer(graph, recognizer.vocabulary(), TOKEN_END, scope)
    scorer.automaton.choices(scorer.automaton.begin())
    print(f"{words.model.name}: made ready in {time.process_time() - begin:.2f} s\n")
    listening, found = Listening(recognizer, scorer, graph, live=words.live), []
    for case in cases(words.list, words.noise, words.snr, rooms=words.rooms):
        for heard in listening.hear(case):
            found.append(heard)
            if heard.sayable and (case.condition == CLEAN or words.all):
                tell(heard, graph)
    return found


def conditions(heard: list[Heard], margin: float, evidence: float) -> None:
    """Print how many are matched under each condition."""
    print(f"\nmargin ≤ {margin:g}, evidence ≥ {evidence:g}\n")
    print("| condition | commands | right | others | false | false of speech |")
    print("|---|---|---|---|---|---|")
    for name in dict.fromkeys(each.case.condition for each in heard):
        own = [each for each in heard if each.case.condition == name]
        commands = [each for each in own if each.sayable]
        others = [each for each in own if not each.sayable]
        false = [each for each in others if each.matched(margin, evidence)]
        print(
            f"| {name} | {len(commands)} | "
            f"{sum(each.right and each.matched(margin, evidence) for each in commands)} | "
            f"{len(others)} | {len(false)} | {sum(not each.case.noise for each in false)} |"
        )


def tell(heard: Heard, graph: PhraseGraph) -> None:
    """Print a line about a command."""
    best = heard.scores.phrases[:1]
    told = "".join(
        f"{graph.interpret(each.arcs).phrase} | {each.margin:.2f} | {each.evidence:.1f}"
        for each in best
    )
    print(
        f"| {heard.case.reference} | {heard.scores.open.text} | {told or '– | |'} |",
        "" if heard.right else "wrong",
    )


def shares(heard: list[Heard], margin: float, evidence: float) -> tuple[float, float]:
    """Return the shares of commands that are matched right, and of others that are matched."""
    commands = [each for each in heard if each.sayable]
    others = [each for each in heard if not each.sayable]
    right = sum(each.right and each.matched(margin, evidence) for each in commands)
    false = sum(each.matched(margin, evidence) for each in others)
    return right / max(1, len(commands)), false / max(1, len(others))


def chosen(heard: list[Heard], *, strict: bool) -> tuple[float, float]:
    """Return the thresholds that match most commands, at no more than `FALSE_MOST`.

    Args:
        heard: What to choose by.
        strict: Whether the strictest of those that are as good, or the most lenient.
    """
    best, found = -1.0, (0.0, 0.0)
    for margin in MARGINS if strict else MARGINS[::-1]:
        for evidence in EVIDENCES[::-1] if strict else EVIDENCES:
            right, false = shares(heard, margin, evidence)
            if false <= FALSE_MOST and right > best:
                best, found = right, (margin, evidence)
    return found


def halves(heard: list[Heard], *, strict: bool) -> None:
    """Choose thresholds on one half of the recordings, and try them on the other."""
    paths = sorted({each.case.path for each in heard})
    sayable = {each.case.path for each in heard if each.sayable}
    rights, falses, thresholds = [], [], []
    for seed in range(SPLITS):
        rng = random.Random(seed)  # noqa: S311 - the same splits each time
        first: set[str] = set()
        for group in ([p for p in paths if p in sayable], [p for p in paths if p not in sayable]):
            first |= set(rng.sample(group, len(group) // 2))
        threshold = chosen([each for each in heard if each.case.path in first], strict=strict)
        right, false = shares([each for each in heard if each.case.path not in first], *threshold)
        rights.append(100 * right)
        falses.append(100 * false)
        thresholds.append(threshold)
    kind = "strictest" if strict else "most lenient"
    print(f"\n{SPLITS} times chosen on one half, the {kind}, and tried on the other:")
    for name, values in (("matched, %", rights), ("false, %", falses)):
        ordered = sorted(values)
        print(
            f"{name}: mean {statistics.mean(values):.1f}, tenth percentile "
            f"{ordered[SPLITS // 10]:.1f}, ninetieth {ordered[-SPLITS // 10]:.1f}"
        )
    common = max(set(thresholds), key=thresholds.count)
    print(f"most often: margin {common[0]:g}, evidence {common[1]:g}")


def report(heard: list[Heard]) -> None:
    """Print the tables."""
    commands = [each for each in heard if each.sayable]
    exact = sum(each.scores.exact and each.right for each in commands)
    print(f"\n{len(commands)} can be said; the open text alone says it in {exact}")
    print(f"{len(heard) - len(commands)} others: false matches, in %\n")
    print("| margin | " + " | ".join(f"evidence ≥ {each:g}" for each in EVIDENCES) + " |")
    print("|---" * (len(EVIDENCES) + 1) + "|")
    for margin in MARGINS:
        cells = []
        for evidence in EVIDENCES:
            right, false = shares(heard, margin, evidence)
            cells.append(f"{100 * right:.1f} / {100 * false:.1f}")
        print(f"| ≤ {margin:g} | " + " | ".join(cells) + " |")
    print("\n| category | segments | open, ms | phrases, ms | more, % | passes |")
    print("|---|---|---|---|---|---|")
    categories = dict.fromkeys(each.category for each in heard)
    for name in [*categories, "all"]:
        own = [each for each in heard if name in (each.category, "all")]
        opened, more = sum(e.open_s for e in own), sum(e.phrases_s for e in own)
        passes = sum(e.scores.passes for e in own) / len(own)
        print(
            f"| {name} | {len(own)} | {1000 * opened / len(own):.0f} | "
            f"{1000 * more / len(own):.0f} | {100 * more / opened:.0f} | {passes:.1f} |"
        )
    print("\nOthers with the most evidence, up to a margin of 2:")
    near = [(h, h.scores.phrases[0]) for h in heard if not h.sayable and h.scores.phrases]
    for each, best in sorted(near, key=lambda pair: -pair[1].evidence)[:12]:
        if best.margin <= 2:
            print(
                f"{each.category}: {each.scores.open.text[:40]!r} "
                f"{best.margin:.2f} {best.evidence:.1f}"
            )


def decibels(words: str) -> list[int]:
    """Return several numbers."""
    return [int(each) for each in words.split(",")]


def main() -> None:
    """Read the words of the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("noise", type=Path, nargs="?")
    parser.add_argument("--model", type=Path, required=True, help="a model package's folder")
    parser.add_argument("--phrases", type=Path, default=HOUSE, help="what can be said")
    parser.add_argument("--paths", type=int, default=Width().paths, help="width of the beam")
    parser.add_argument("--first", type=int, default=Width().first, help="… for the first token")
    parser.add_argument("--near", type=int, default=Scope().near, help="phrases tried first")
    parser.add_argument("--sure", type=float, default=Scope().sure, help="margin that ends it")
    parser.add_argument("--clear", type=float, default=Scope().clear, help="no search above it")
    parser.add_argument("--exhaustive", action="store_true", help="never give up early")
    parser.add_argument("--snr", type=decibels, default=[], help="noise under speech: 20,10,5")
    parser.add_argument("--rooms", action="store_true", help="speech in rooms, too")
    parser.add_argument("--live", action="store_true", help="with a partial before each final")
    parser.add_argument("--all", action="store_true", help="tell of commands in noise, too")
    heard = listen(parser.parse_args())
    conditions(heard, MATCH_MARGIN_MOST, MATCH_EVIDENCE_LEAST)
    heard = [each for each in heard if each.case.condition == CLEAN]
    report(heard)
    halves(heard, strict=True)
    halves(heard, strict=False)


if __name__ == "__main__":
    main()
