"""`harkd-convert`: make, verify and look into models for harkd.

In: words of the command line. Out: lines on stdout, progress on stderr, and exit codes: 0 for
success, 1 for an error that is told in one message or for a refused verification, 2 for wrong
words, 130 for Ctrl-C. Nothing heavy is imported before a command needs it. Runs on the main thread.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from harkd import __version__, entry
from harkd.interruption import terminable
from harkd.model_package import Streaming
from harkd_convert.cli_distil import distil
from harkd_convert.cli_extra import extra, plan_of, read_licence
from harkd_convert.cli_streaming import streaming as streaming_command
from harkd_convert.progress import progress_bar

EPILOG = (
    "Exit codes: 0 success; 1 an error, or a refused verification; 2 wrong words on the command "
    "line; 130 Ctrl-C."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="harkd-convert")
def cli() -> None:
    """Make models that harkd runs, from published ones; on a PC, for any machine."""


@cli.command()
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option(
    "--out",
    "target",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the package is written.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp32", "fp16"]),
    default="int8",
    show_default=True,
    help="Of the linear layers: int8 for CPUs, fp16 for GPUs, fp32 to compare with.",
)
@click.option(
    "--keep-float",
    "keep_float",
    metavar="PATTERN",
    multiple=True,
    help="Weights that stay in float32 though the precision is int8, as a shell pattern such as "
    "'encoder.layers.0.*'; may be given again. The convolutions always do.",
)
@click.option(
    "--streaming",
    metavar="CHUNK:LOOK_AHEAD",
    callback=plan_of,
    help="Listen chunk by chunk, such as 16:16, in frames of 24 ms; for weights that were taught "
    "to. Their sum is the delay.",
)
@click.option(
    "--name", default="", help="The package's name; else the source's, with -lean or -streaming."
)
@click.option(
    "--language",
    "languages",
    metavar="TAG",
    multiple=True,
    help="The model's language, such as en; where the source does not say. May be given again.",
)
@click.option(
    "--licence", default="", metavar="SPDX", help="Its licence, where the source does not say."
)
@click.option(
    "--licence-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The licence's text, where the source does not bring it.",
)
@click.option("--force", is_flag=True, help="Replace the package that is in DIR.")
def moonshine(
    source: Path,
    target: Path,
    precision: str,
    keep_float: tuple[str, ...],
    streaming: Streaming | None,
    name: str,
    languages: tuple[str, ...],
    licence: str,
    licence_file: Path | None,
    force: bool,
) -> None:
    """Convert the Moonshine in the directory SOURCE.

    SOURCE is an installed model (`harkd models path NAME`), a directory of published .ort files, or
    a Hugging Face directory, published or fine-tuned.
    """
    text = read_licence(licence_file) if licence_file else ""
    with terminable(), extra():
        from harkd_convert.conversion import convert
        from harkd_convert.graph import Precision
        from harkd_convert.package import Options

        options = Options(
            Precision(precision), keep_float, name, languages, licence, text, streaming
        )
        with progress_bar() as progress:
            done = convert(source, target, options, force=force, progress=progress)
    manifest = done.manifest
    click.echo(
        f"{manifest.name} {manifest.version} is in {target}: {manifest.size_bytes / 1e6:.1f} MB"
    )
    click.echo(
        "In float32, the exported graphs agree with PyTorch: keys and values within "
        f"{done.agreement.cross_error:.1e}, {done.agreement.tokens} tokens alike"
    )
    if done.trial and done.trial.text == done.trial.wanted:
        click.echo(f"{done.trial.recording}, as PyTorch hears it: {done.trial.text}")
    elif done.trial:
        click.echo(f"{done.trial.recording}: {done.trial.text}")
        click.echo(f"  in PyTorch: {done.trial.wanted}")
    click.echo(
        f"`harkd-convert verify {shlex.quote(str(target))} --against {shlex.quote(str(source))} "
        f"--speech LIST` measures it; `harkd models import {shlex.quote(str(target))}` installs it"
    )


@cli.command()
@click.argument("package", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--against",
    "source",
    metavar="SOURCE",
    required=True,
    type=click.Path(path_type=Path),
    help="What the package was converted from.",
)
@click.option(
    "--speech",
    metavar="LIST",
    required=True,
    type=click.Path(path_type=Path),
    help="Recordings: a tab-separated file with path, seconds, rate, text, source.",
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="Take N recordings, evenly spread."
)
@click.option("--all", "show_all", is_flag=True, help="List all finals that differ, not 20.")
@click.option("--no-write", is_flag=True, help="Leave the package's manifest as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    package: Path,
    source: Path,
    speech: Path,
    limit: int | None,
    show_all: bool,
    no_write: bool,
    as_json: bool,
) -> None:
    """Compare the package DIR with its source on recorded speech.

    Refuses it (exit code 1) when its word errors grow by more than 5 %. The figures go into the
    manifest of a package that passes.
    """
    with terminable(), extra():
        from harkd_convert import verify as verification
        from harkd_convert.verify_report import as_plain, as_text

        with progress_bar() as progress:
            found = verification.verify(package, source, speech, limit=limit, progress=progress)
        if found.passed and not no_write:
            verification.write_figures(package, found)
    if as_json:
        click.echo(json.dumps(as_plain(found), indent=2, ensure_ascii=False))
    else:
        click.echo(as_text(found, show_all=show_all))
    if not found.passed:
        sys.exit(1)


@cli.command()
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(path: Path, as_json: bool) -> None:
    """Print what is in the package DIR, or in an .onnx or .ort file."""
    with extra():
        from harkd_convert.inspection import as_plain, as_text, look_into

        found = look_into(path)
    click.echo(json.dumps(as_plain(found), indent=2) if as_json else as_text(found))


cli.add_command(distil)
cli.add_command(streaming_command)


def main() -> None:
    """Entry point."""
    entry.run(cli, "harkd-convert")
