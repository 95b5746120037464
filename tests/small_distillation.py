"""A small run of distillation: noise for speech, and a model of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from harkd_convert.checkpoint import Shape
from harkd_convert.distil.learning import Recipe
from harkd_convert.distil.options import Options
from harkd_convert.distil.passes import Plan
from harkd_convert.distil.run import Run

SHAPE = Shape(24, 2, 2, 1, 32, 32, 29, 8)
ENDING = 49
"""A seed of weights that come to an end with most of `write_lists`."""
RATE_HZ = 16_000
RECIPE = Recipe(
    steps=8,
    rate=2e-3,
    warm_steps=2,
    decay_share=0.5,
    pull=0.1,
    divergence=1.0,
    halved=False,
)


def write_lists(folder: Path) -> Path:
    """Write recordings of two groups and six speakers, a noise and a room, and lists of them."""
    random = np.random.default_rng(3)

    def write(path: str, seconds: float, text: str, source: str = "") -> str:
        samples = int(seconds * RATE_HZ)
        envelope = np.abs(np.sin(np.linspace(0, 9, samples))) * 0.3
        (folder / path).parent.mkdir(exist_ok=True)
        soundfile.write(folder / path, random.normal(size=samples) * envelope, RATE_HZ)
        return f"{path}\t{seconds}\t{RATE_HZ}\t{text}\t{source}\n"

    lines = []
    for number in range(24):
        group, seconds = ("read", "words")[number % 2], 0.4 + 0.1 * (number % 7)
        path = f"{group}/s{number // 4}_{number}.wav"
        lines.append(write(path, seconds, "alder", f"of {group}"))
    others = [write("noise/one.wav", 1.0, "noise"), write("noise/room.wav", 0.2, "rir")]
    (folder / "train.tsv").write_text("".join(lines))
    (folder / "noise.tsv").write_text("".join(others))
    return folder


def small_options(lists: Path, source: Path, out: Path) -> Options:
    """Options of a run that takes a second."""
    return Options(
        source=source,
        corpora=(lists / "train.tsv",),
        out=out,
        plans={Plan(4, 4): 2.0, Plan(6, 0): 1.0, Plan(0): 1.0},
        recipe=RECIPE,
        noises=(lists / "noise.tsv",),
        rooms=(lists / "noise.tsv",),
        speaker=r"(s\d+)_",
        batch_s=1.5,
        joined_s=1.5,
        evaluate_steps=4,
    )


def run(options: Options) -> Run:
    """Run to the end, silently."""
    made = Run(options, lambda _: None)
    made.go()
    return made
