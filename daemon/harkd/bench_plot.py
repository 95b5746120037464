"""Figures → a picture: what a second of audio costs by the recording's length, and word errors.

Drawn by matplotlib, which comes with ``harkd[plot]``. Runs on the calling thread.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harkd.bench_measure import BenchError
from harkd.bench_report import Figures, per

SUFFIXES = (".png", ".svg", ".pdf")


def require_plot(path: Path) -> None:
    """Look, before hours of measuring, whether a picture can be drawn. Raises BenchError."""
    if path.suffix.lower() not in SUFFIXES:
        raise BenchError(f"{path} is no name for a picture", f"end it in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise BenchError(f"there is no folder {path.parent}", "make it first")
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib", "pip install 'harkd[plot]'")


def draw(modes: Mapping[str, Sequence[Figures]], machine: str, path: Path) -> None:
    """Draw the figures of each mode into one picture. Raises BenchError."""
    from matplotlib.figure import Figure

    labelled = {f"{each.name}, {mode}": each for mode, found in modes.items() for each in found}
    with_errors = any(each.word_errors for each in labelled.values())
    figure = Figure(figsize=(12 if with_errors else 7, 5), layout="constrained")
    axes = figure.subplots(1, 2 if with_errors else 1, squeeze=False)[0]
    draw_cost(axes[0], labelled)
    if with_errors:
        draw_errors(axes[1], labelled)
    figure.suptitle(machine, fontsize=8)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise BenchError(
            f"{path} cannot be written ({error.strerror})", "choose another --plot"
        ) from error


def draw_cost(axes: Any, labelled: Mapping[str, Figures]) -> None:
    """Draw a dot for each recording."""
    for label, each in labelled.items():
        seconds = [one.audio_s for one in each.recordings]
        costs = [per(one.cpu_s, one.audio_s) for one in each.recordings]
        axes.scatter(seconds, costs, s=12, alpha=0.7, label=label)
    axes.set(
        xlabel="length of the recording, s",
        ylabel="CPU seconds per second of audio",
        xlim=(0, None),
        ylim=(0, None),
    )
    axes.legend(fontsize=8)


def draw_errors(axes: Any, labelled: Mapping[str, Figures]) -> None:
    """Draw a group of bars for each category that has texts, a bar for each subject."""
    some = next(iter(labelled.values()))
    names = [name for name, one in some.categories.items() if one.word_errors]
    width = 0.8 / len(labelled)
    for number, (label, each) in enumerate(labelled.items()):
        errors = [each.categories[name].word_errors for name in names]
        percents = [100 * (one.rate or 0.0) if one else 0.0 for one in errors]
        places = [at + (number - (len(labelled) - 1) / 2) * width for at in range(len(names))]
        axes.bar(places, percents, width, label=label)
    words = [one.words if (one := some.categories[name].word_errors) else 0 for name in names]
    labels = [f"{name}\n{count} words" for name, count in zip(names, words, strict=True)]
    axes.set_xticks(range(len(names)), labels, fontsize=8)
    axes.set(ylabel="word error rate, %")
    axes.legend(fontsize=8)
