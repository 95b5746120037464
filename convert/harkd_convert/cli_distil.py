"""`harkd-convert distil`: teach a Moonshine to hear in passes.

In: words of the command line. Out: lines on stdout. Runs on the main thread.
"""

from __future__ import annotations

from pathlib import Path

import click

from harkd.interruption import terminable
from harkd_convert.cli_extra import extra

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", metavar="SOURCE", type=PATH)
@click.option(
    "--speech",
    "corpora",
    metavar="LIST",
    multiple=True,
    required=True,
    type=PATH,
    help="Recordings to train on: a tab-separated file with path, seconds, rate, text, source, or "
    "a folder. Texts are not needed. May be given again.",
)
@click.option("--out", metavar="DIR", required=True, type=PATH, help="Where everything is written.")
@click.option(
    "--plans",
    default="16:16=2,8:8,full",
    show_default=True,
    metavar="PLANS",
    help="Passes to train: chunk and look-ahead in frames of 24 ms, or full; =N: how often.",
)
@click.option(
    "--begin",
    "begin",
    metavar="WEIGHTS",
    multiple=True,
    type=PATH,
    help="Weights to begin with, taught before, instead of SOURCE's; their mean if given again.",
)
@click.option(
    "--noise", "noises", metavar="LIST", multiple=True, type=PATH, help="Noises and music."
)
@click.option(
    "--rooms", metavar="LIST", multiple=True, type=PATH, help="Rooms: the lines that say rir."
)
@click.option(
    "--eval", "evaluated", metavar="LIST", type=PATH, help="Recordings with text, never trained on."
)
@click.option(
    "--judge",
    metavar="PLANS",
    default="",
    help="Plans to evaluate, where they are not those to train.",
)
@click.option("--steps", type=click.IntRange(0), default=2000, show_default=True)
@click.option(
    "--batch", "batch_s", type=click.FloatRange(1), default=32.0, show_default=True, help="Seconds."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=3e-4,
    show_default=True,
    help="AdamW's learning rate.",
)
@click.option(
    "--warm",
    "warm_steps",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    help="Steps over which the rate rises.",
)
@click.option(
    "--decay",
    "decay_share",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="The part of the steps over which the rate falls.",
)
@click.option(
    "--pull",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="How strongly the weights are drawn back to the original ones.",
)
@click.option(
    "--divergence",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="The weight of the decoder's divergence in the loss.",
)
@click.option(
    "--keep",
    default="0",
    show_default=True,
    metavar="PARTS",
    help="So much of the original weights is mixed into what is evaluated; the first into what is "
    "written. Such as 0.4,0.2,0.",
)
@click.option(
    "--speaker",
    default="",
    metavar="REGEX",
    help="Finds the speaker in a file's name; speakers are held out as a whole.",
)
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="1: sources count by their seconds; 0: all alike.",
)
@click.option(
    "--joined",
    "joined_s",
    type=click.FloatRange(4),
    default=16.0,
    show_default=True,
    help="One utterance in three is several recordings, of so many seconds at most.",
)
@click.option(
    "--evaluate-steps",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Evaluate what is held out, and write, after so many steps.",
)
@click.option(
    "--evaluate-minutes",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Evaluate the list of --eval once so much has passed.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--bf16", "halved", is_flag=True, help="Products in 16 bits: faster with AMX.")
@click.option(
    "--device", default="cpu", show_default=True, help="What PyTorch computes on, such as cuda."
)
@click.option("--threads", type=click.IntRange(1), help="As many as there are cores, if not given.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--plot", metavar="FILE", type=PATH, help="Draw the curves, as .svg or .png.")
def distil(
    source: Path,
    corpora: tuple[Path, ...],
    out: Path,
    plans: str,
    begin: tuple[Path, ...],
    noises: tuple[Path, ...],
    rooms: tuple[Path, ...],
    evaluated: Path | None,
    judge: str,
    steps: int,
    batch_s: float,
    rate: float,
    warm_steps: int,
    decay_share: float,
    pull: float,
    divergence: float,
    keep: str,
    speaker: str,
    balance: float,
    joined_s: float,
    evaluate_steps: int,
    evaluate_minutes: float,
    seed: int,
    halved: bool,
    device: str,
    threads: int | None,
    resume: bool,
    plot: Path | None,
) -> None:
    """Teach the Moonshine in SOURCE to hear in passes what it hears at once.

    The encoder learns from itself: its hidden states, and the decoder's distributions, for whole
    utterances.
    """
    parts = _parts(keep)
    with terminable(), extra():
        import torch

        from harkd.bench_plot import require_plot
        from harkd_convert.distil.learning import Recipe
        from harkd_convert.distil.options import Options
        from harkd_convert.distil.passes import parse_weighted
        from harkd_convert.distil.run import Run

        if plot:
            require_plot(plot)
        if threads:
            torch.set_num_threads(threads)
        recipe = Recipe(steps, rate, warm_steps, decay_share, pull, divergence, halved)
        options = Options(
            source=source,
            corpora=corpora,
            out=out,
            plans=parse_weighted(plans),
            recipe=recipe,
            begin=begin,
            noises=noises,
            rooms=rooms,
            evaluated=evaluated,
            judged=tuple(parse_weighted(judge)) if judge else (),
            speaker=speaker,
            batch_s=batch_s,
            seed=seed,
            balance=balance,
            joined_s=joined_s,
            evaluate_steps=evaluate_steps,
            evaluate_minutes=evaluate_minutes,
            keep=parts,
            resume=resume,
            device=device,
            plot=plot,
        )
        Run(options, click.echo).go()


def _parts(text: str) -> tuple[float, ...]:
    try:
        parts = tuple(float(part) for part in text.split(","))
    except ValueError:
        parts = (2.0,)
    if not all(0 <= part <= 1 for part in parts):
        raise click.BadParameter("give parts from 0 to 1, such as 0.4,0", param_hint="--keep")
    return parts
