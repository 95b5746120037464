"""What memory models take, beside what harkd expects of them before it loads one.

    .venv/bin/python bench/memory.py MODEL… [--threads N]

MODEL is the name of an installed model or a package's folder. Each is loaded in a process of its
own, which hears utterances of 15 and 30 s twice, with partials. Prints MB (10^6 bytes) besides
what the process has before, without pages of files, as a table and as lines for
`daemon/harkd/memory_need.py`.
"""

from __future__ import annotations

import argparse

from harkd.bench_memory import measure
from harkd.memory_need import MB, estimate
from harkd.model_store import store_of
from harkd.settings import Settings


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    store = store_of(Settings())
    rows, lines = [], []
    for name in words.models:
        model = store.locate(name)
        manifest = model.manifest
        size_mb = sum(file.size_bytes for file in manifest.files.values()) / MB
        found = measure(model.dir, words.threads)
        told = estimate(manifest.family, size_mb)
        cells = [manifest.name, manifest.family, f"{size_mb:.1f}"]
        cells += [beside(told.load_mb if told else None, found.figures.load_mb)]
        cells += [beside(told.loaded_mb if told else None, found.figures.loaded_mb)]
        for seconds, peak_mb in found.peaks_mb.items():
            expected_mb = told.at_most_mb(float(seconds)) if told else None
            cells.append(f"{beside(expected_mb, peak_mb)} ({seconds} s)")
        rows.append(f"| {' | '.join(cells)} |")
        lines.append(f"{manifest.family}: ({size_mb:.1f}, {found.figures})")
    print("| model | family | files | loading | loaded | utterance | utterance |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print("(expected / measured)\n")
    print("\n".join(lines))


def beside(expected_mb: float | None, measured_mb: float) -> str:
    """Return both, for a cell."""
    return f"{'?' if expected_mb is None else f'{expected_mb:.0f}'} / {measured_mb:.0f}"


if __name__ == "__main__":
    main()
