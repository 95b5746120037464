"""`harkd-convert streaming`: a streaming checkpoint of PyTorch to a package.

In: words of the command line. Out: lines on stdout, progress on stderr. Runs on the main thread.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harkd.interruption import terminable
from harkd_convert.cli_extra import extra, read_licence
from harkd_convert.progress import progress_bar

if TYPE_CHECKING:
    from harkd_convert.streaming import StreamingConversion

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT", type=PATH)
@click.option(
    "--arch",
    type=click.Choice(["conformer_ctc"]),
    required=True,
    help="What is in it: a streaming Conformer with a CTC head, as WeNet trains them (U2++).",
)
@click.option("--config", required=True, metavar="FILE", type=PATH, help="Its train.yaml.")
@click.option("--tokens", required=True, metavar="FILE", type=PATH, help="Its units.txt.")
@click.option(
    "--out", "target", metavar="DIR", required=True, type=PATH, help="Where the package is written."
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp32"]),
    default="int8",
    show_default=True,
    help="Of the products; the stem and the depthwise convolutions are in float in any case.",
)
@click.option(
    "--keep-float",
    "keep_float",
    metavar="PATTERN",
    multiple=True,
    help="Weights that stay in float32 though the precision is int8, as a shell pattern such as "
    "'ctc.*'; may be given again.",
)
@click.option(
    "--calibrate",
    "calibration",
    metavar="LIST",
    type=PATH,
    help="Quantize statically, by what is measured on these recordings; else dynamically.",
)
@click.option(
    "--speech",
    metavar="LIST",
    type=PATH,
    help="Count word errors on these recordings, and refuse more than 5 % more than in PyTorch.",
)
@click.option(
    "--chunk",
    "chunk_frames",
    metavar="N",
    type=click.IntRange(1, 64),
    default=16,
    show_default=True,
    help="Frames of 40 ms that are heard at once.",
)
@click.option(
    "--left-chunks",
    metavar="N",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Chunks before, which attention sees.",
)
@click.option("--name", default="", help="The package's name; else that of CHECKPOINT's directory.")
@click.option("--language", "languages", metavar="TAG", multiple=True, help="Such as en.")
@click.option("--licence", default="", metavar="SPDX", help="The model's licence.")
@click.option("--licence-file", metavar="FILE", type=PATH, help="The licence's text.")
@click.option("--force", is_flag=True, help="Replace the package that is in DIR.")
def streaming(
    checkpoint: Path,
    arch: str,
    config: Path,
    tokens: Path,
    target: Path,
    precision: str,
    keep_float: tuple[str, ...],
    calibration: Path | None,
    speech: Path | None,
    chunk_frames: int,
    left_chunks: int,
    name: str,
    languages: tuple[str, ...],
    licence: str,
    licence_file: Path | None,
    force: bool,
) -> None:
    """Convert the streaming checkpoint CHECKPOINT, such as WeNet's final.pt.

    The package has one file with encoder and head, in the form that sherpa-onnx reads too.
    """
    del arch  # the only one there is
    text = read_licence(licence_file) if licence_file else ""
    with terminable(), extra():
        from harkd_convert.conformer_shape import Chunking
        from harkd_convert.graph import Precision
        from harkd_convert.streaming import Files, StreamingOptions, convert_streaming

        options = StreamingOptions(
            licence=licence,
            licence_text=text,
            languages=languages,
            precision=Precision(precision),
            keep_float=keep_float,
            calibration=calibration,
            speech=speech,
            chunking=Chunking(chunk_frames, left_chunks),
            name=name,
        )
        files = Files(checkpoint, config, tokens)
        with progress_bar() as progress:
            done = convert_streaming(files, target, options, force=force, progress=progress)
    _report(done, target)


def _report(done: StreamingConversion, target: Path) -> None:
    manifest, agreement = done.manifest, done.agreement
    size = manifest.files["model"].size_bytes
    click.echo(f"{manifest.name} {manifest.version} is in {target}: {size / 1e6:.1f} MB")
    click.echo(
        f"In float32, over {agreement.frames} frames: by chunks as at once in PyTorch within "
        f"{agreement.streaming_error:.1e}, and the export as PyTorch within "
        f"{agreement.export_error:.1e}"
    )
    if counted := done.counted:
        click.echo(
            f"Word errors in {counted.package.words} words: {counted.package.percent} %; in "
            f"PyTorch {counted.torch.percent} %"
        )
    click.echo(f"`harkd models import {shlex.quote(str(target))}` installs it")
