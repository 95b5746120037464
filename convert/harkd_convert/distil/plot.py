"""A run's log → a picture: losses, what was held out, and word errors, over seconds of audio.

Drawn by matplotlib, which comes with ``harkd[plot]``. Runs on the caller's thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harkd_convert.distil.evaluation import ALL
from harkd_convert.distil.run_log import HELD, LOSSES, WORDS
from harkd_convert.errors import ConvertError

SMOOTHED = 10
"""Logged losses, of which each has another plan and other recordings, that one point is of."""


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the curves.

    Args:
        lines: Of the log.
        path: The picture, as .svg, .png or .pdf.

    Raises:
        ConvertError: It cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    spoken = [each for each in lines if each["kind"] == WORDS]
    figure = Figure(figsize=(12 if spoken else 8.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 3 if spoken else 2)
    _draw_losses(axes[0], [each for each in lines if each["kind"] == LOSSES])
    held = [each for each in lines if each["kind"] == HELD]
    _draw_lines(axes[1], held, lambda each: 100 * (1 - each["agreement"]))
    axes[1].set(ylabel="held out: tokens unlike the teacher's, %", ylim=(0, None))
    if spoken:
        _draw_lines(axes[2], spoken, _percent)
        axes[2].set(ylabel="word error rate, %", ylim=(0, None))
    for each in axes:
        each.set(xlabel="seconds of audio")
        each.grid(alpha=0.3)
    try:
        with rc_context({"svg.hashsalt": "harkd"}):
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})
    except OSError as error:
        raise ConvertError(
            f"{path} cannot be written ({error.strerror})", "choose another --plot"
        ) from error


def _draw_losses(axes: Any, lines: Sequence[dict[str, Any]]) -> None:
    for name, label in (("hidden", "hidden states' error"), ("divergence", "divergence, nats")):
        values = [each[name] for each in lines]
        seconds = [each["seconds"] for each in lines]
        means = [
            sum(values[max(0, at + 1 - SMOOTHED) : at + 1]) / min(at + 1, SMOOTHED)
            for at in range(len(values))
        ]
        axes.plot(seconds, means, label=label)
    axes.set(ylabel="loss in training", ylim=(0, None))
    axes.legend(fontsize=7)


def _draw_lines(axes: Any, lines: Sequence[dict[str, Any]], value: Any) -> None:
    curves = defaultdict[str, list[tuple[float, float]]](list)
    for each in lines:
        kept = f", {each['keep']:g} kept" if each["keep"] else ""
        curves[each["plan"] + kept].append((each["seconds"], value(each)))
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    if curves:
        axes.legend(fontsize=7)


def _percent(line: dict[str, Any]) -> float:
    errors, words = line["errors"][ALL]
    return float(100 * errors / max(words, 1))
