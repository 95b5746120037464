"""What phrases cost: seconds to compile, memory, and the size of their graph.

    .venv/bin/python bench/phrases.py compile [FILE…]

Without FILE, `config/phrases/house.en.yaml` and a made-up set of 2,000 templates. Each is measured
in a process of its own: reading and compiling; the graph kept on the disk and read back; everything
that a search could ever see of it; and how long a sentence takes to be interpreted. MB are 10^6
bytes of memory that the process has more than before, without what it freed in between.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import psutil

HOUSE = Path(__file__).resolve().parents[1] / "config" / "phrases" / "house.en.yaml"
TEMPLATES = 2_000
HEADER = (
    "set",
    "templates",
    "sentences",
    "compiling (s)",
    "read back (s)",
    "nodes / arcs",
    "for a search",
    "all of that (s)",
    "MB",
    "interpreting (ms)",
)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["compile"])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    words = parser.parse_args()
    with TemporaryDirectory() as folder:
        files = words.files
        if not files:
            made_up = Path(folder) / "made-up.yaml"
            made_up.write_text(made_up_set(Random(1), TEMPLATES), encoding="utf-8")  # noqa: S311
            files = [HOUSE, made_up]
        print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
        for file in files:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                print(f"| {' | '.join(pool.submit(measured, file, Path(folder)).result())} |")


def measured(file: Path, folder: Path) -> list[str]:
    """Return the cells of one file."""
    from harkd.phrases import loading

    loading.SLOW_S = 0.0  # type: ignore[misc]  # everything is kept, so that it can be read back
    before = memory_mb()
    found = loading.load_files([file], keep_in=folder / "kept")
    assert found
    graph = found.graph
    again = loading.load_files([file], keep_in=folder / "kept")
    assert again
    assert again.kept
    begun = time.monotonic()
    todo, seen = [graph.start], {graph.start}
    while todo:
        new = {arc.to for arc in graph.arcs(todo.pop())} - seen
        seen |= new
        todo.extend(new)
    seen_s = time.monotonic() - begun
    del again
    more_mb = memory_mb() - before
    random = Random(2)  # noqa: S311
    samples = [graph.sample(random).phrase.split() for _ in range(200)]
    begun = time.monotonic()
    for sample in samples:
        assert graph.best(sample)
    interpret_ms = (time.monotonic() - begun) / len(samples) * 1000
    nodes, arcs = graph.size()
    search_nodes, search_arcs = graph.seen()
    return [
        file.name,
        f"{len(graph.phrases):,}",
        f"{graph.expansions():,}",
        f"{found.compiled_s:.1f}",
        f"{reading_s(file, folder):.2f}",
        f"{nodes:,} / {arcs:,}",
        f"{search_nodes:,} / {search_arcs:,}",
        f"{seen_s:.1f}",
        f"{more_mb:.0f}",
        f"{interpret_ms:.1f}",
    ]


def reading_s(file: Path, folder: Path) -> float:
    """Return how long it takes to read a graph back from the disk."""
    from harkd.phrases.loading import load_files

    begun = time.monotonic()
    load_files([file], keep_in=folder / "kept")
    return time.monotonic() - begun


def memory_mb() -> float:
    """Return what this process has in memory."""
    return float(psutil.Process().memory_info().rss / 1e6)


def made_up_set(random: Random, count: int) -> str:
    """Return a phrases file with templates that share words, lists and endings, as people's do."""
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u")]

    def word() -> str:
        return "".join(random.choices(syllables, k=random.randint(1, 3)))

    verbs, nouns = [word() for _ in range(60)], [word() for _ in range(300)]
    lists = {
        "name": [f"{word()} {random.choice(nouns)}" for _ in range(120)],
        "area": [word() for _ in range(25)],
        "color": [word() for _ in range(15)],
    }
    endings = [
        "",
        " in <area>",
        " [in <area>]",
        " to {percent} [percent]",
        " to {color} [in <area>]",
        " for {minutes} minute[s]",
        " [please|now]",
    ]
    templates: dict[str, None] = {}
    while len(templates) < count:
        verb = "|".join(random.sample(verbs, random.randint(1, 3)))
        middle = random.choice(
            ["{name}", "[the] {name}", f"[the|my] {random.choice(nouns)}[s]", random.choice(nouns)]
        )
        more = f" [{random.choice(nouns)}]" if random.random() < 0.3 else ""
        templates[f"({verb}) {middle}{more}{random.choice(endings)}"] = None
    lines = ["intents:"]
    for number, template in enumerate(templates):
        if number % 20 == 0:
            lines.append(f"  intent_{number // 20}:")
        lines.append(f"    - '{template}'")
    lines.append("lists:")
    lines += [f"  {name}: [{', '.join(values)}]" for name, values in lists.items()]
    lines += [
        "  percent: {range: {from: 0, to: 100}}",
        "  minutes: {range: {from: 1, to: 120}}",
        "expansion_rules:",
        '  area: "[the] {area}"',
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
