"""``harkd transcribe``: recorded files and folders → text, on stdout or in files.

In: words of the command line. Out: transcripts; on stderr progress, faults and a summary. Runs on
the main thread, which takes the results that other threads make (`transcribe_many`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harkd.cli_config import config_option
from harkd.cli_progress import Board, Tally, board, stopped, summary
from harkd.errors import AudioError, HarkdError
from harkd.interruption import Interrupted, interruptible, leave_at_once
from harkd.logs import set_up
from harkd.phrases.loading import PhraseSet
from harkd.phrases.loading import load as load_phrases
from harkd.settings import Settings, find_file, load
from harkd.transcript_formats import FORMATS, JOINABLE, SUFFIXES, Transcript, Utterance, one_line

if TYPE_CHECKING:
    from harkd.transcribe_many import FileEnded, FileEvent


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    form: str
    """A name of `FORMATS`."""
    output_dir: Path | None
    """Where transcripts go; None for stdout."""
    force: bool
    """Whether files are done whose transcripts are there."""
    jobs: int | None
    """Segments that are recognized at the same time; None for what the cores allow."""
    verbose: bool
    """Whether much is logged, which no bar may disturb."""


@click.command(short_help="Print what is said in sound files and folders of them.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="text (if left out), json (one object a line for each file), subtitles as srt or vtt, or "
    "tsv: start_ms, end_ms, text.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a file for each input here instead of printing. Inputs that have theirs already "
    "are skipped, so the same command goes on where it was stopped.",
)
@click.option("--force", is_flag=True, help="Do those again that --output-dir would skip.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Recognize so much at the same time; as many as there are cores if left out.",
)
@config_option
@click.option("-v", "--verbose", is_flag=True, help="Log at debug level.")
def transcribe(
    files: tuple[Path, ...],
    form: str | None,
    as_json: bool,
    output_dir: Path | None,
    force: bool,
    jobs: int | None,
    explicit: Path | None,
    verbose: bool,
) -> None:
    """Print what is said in recorded FILES: wav, flac, ogg, opus, mp3, and folders of these.

    A file that cannot be read is told at the end; the others are still transcribed.
    """
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json is --format json, and --format {form} is not.")
    if force and output_dir is None:
        raise click.UsageError("--force is for --output-dir: without it, nothing is skipped.")
    form = form or ("json" if as_json else "text")
    file = find_file(explicit, os.environ)
    settings = load(file, os.environ)
    phrases = load_phrases(settings.phrases, file)
    set_up("debug" if verbose else settings.log.level, settings.log.format)
    tally = Tally()
    with interruptible():
        try:
            work(files, Wanted(form, output_dir, force, jobs, verbose), settings, phrases, tally)
        except Interrupted as interruption:
            tell([*tally.faults, stopped(tally, resumes=output_dir is not None)])
            leave_at_once(interruption.number)
    tell(tally.faults)
    if tally.total > 1 or (tally.total and output_dir):
        tell([summary(tally)])
    if tally.faults:
        sys.exit(1)


def tell(lines: Sequence[str]) -> None:
    """Write to stderr as all that harkd has to say there."""
    for line in lines:
        click.echo(f"harkd: {line}", err=True)


def work(
    named: Sequence[Path],
    wanted: Wanted,
    settings: Settings,
    phrases: PhraseSet | None,
    tally: Tally,
) -> None:
    """Do all that is to be done, and count it in `tally`, with what goes wrong.

    Raises:
        HarkdError: Nothing can be done: the model or the output folder cannot be used.
        click.UsageError: The format does not fit.
    """
    from harkd.sound_files import find
    from harkd.transcript_files import path_of, prepare

    found = find(named)
    tally.total = len(found.files)
    outputs: dict[Path, Path] = {}
    if wanted.output_dir:
        folder, suffix = wanted.output_dir, SUFFIXES[wanted.form]
        outputs = {file.path: path_of(file.place, folder, suffix) for file in found.files}
    elif tally.total > 1 and wanted.form not in JOINABLE:
        raise click.UsageError(
            f"{wanted.form} of {tally.total} files cannot be printed one after the other: "
            "write them to files with --output-dir DIR."
        )
    done = {path for path, output in outputs.items() if output.is_file() and not wanted.force}
    todo = [file.path for file in found.files if file.path not in done]
    tally.skipped = len(done)
    tally.faults += [str(fault) for fault in found.faults]
    if not todo:
        return
    if wanted.output_dir:
        prepare(wanted.output_dir)
    with (
        happening(todo, settings, wanted.jobs, phrases) as events,
        board(todo, wanted=not wanted.verbose) as shown,
    ):
        tally.begin()
        Delivery(wanted.form, outputs, tally, shown).take(events)


@contextmanager
def happening(
    paths: Sequence[Path], settings: Settings, jobs: int | None, phrases: PhraseSet | None
) -> Iterator[Iterator[FileEvent]]:
    """Load the model, if one of the files can be opened, and yield what happens to all of them."""
    from harkd import app
    from harkd.model_store import find_model
    from harkd.phrase_matching import matching_for
    from harkd.second_look import find_second_look
    from harkd.transcribe_many import ManyFiles

    bad = if_all_are_bad(paths)
    if bad:
        yield iter(bad)
        return
    jobs, threads = shared_out(jobs, settings.recognizer.threads, len(os.sched_getaffinity(0)))
    settings = replace(settings, recognizer=replace(settings.recognizer, threads=threads))
    wanted = phrases is not None and settings.phrases.mode != "open"
    recognizer = app.load(find_model(settings), settings, jobs, phrases=wanted)
    second_look = find_second_look(settings.vad)
    matching = matching_for(phrases, settings.phrases.mode, recognizer)
    with ManyFiles(
        paths, recognizer, settings, jobs, second_look=second_look, phrases=matching
    ) as many:
        yield many.events()


def if_all_are_bad(paths: Sequence[Path]) -> list[FileEvent]:
    """Return what happens to files none of which can be opened; nothing if one can."""
    from harkd.audio import open_sound_file
    from harkd.transcribe_many import FileBegan, FileEnded

    events: list[FileEvent] = []
    for path in paths:
        try:
            open_sound_file(path).close()
        except AudioError as error:
            events += [FileBegan(path, 0.0), FileEnded(path, 0.0, 0.0, error)]
        else:
            return []
    return events


def shared_out(jobs: int | None, threads: int, cores: int) -> tuple[int, int]:
    """Return how many jobs there are and how many threads each of their passes has.

    A pass of one thread is the least work for a given text; more of them are for those who set
    `recognizer.threads`, and make fewer jobs.
    """
    threads = threads or 1
    return jobs or max(1, cores // threads), threads


class Delivery:
    """Brings the results where they belong.

    Args:
        form: A name of `FORMATS`.
        outputs: Where each file's transcript is written; empty for stdout.
        tally: Counts the files.
        shown: Shows progress, and prints.
    """

    def __init__(self, form: str, outputs: dict[Path, Path], tally: Tally, shown: Board) -> None:
        self._form = form
        self._outputs = outputs
        self._tally = tally
        self._shown = shown
        self._live = form == "text" and not outputs

    def take(self, events: Iterator[FileEvent]) -> None:
        """Take all that happens, up to the end or until nothing more can be written."""
        from harkd.transcribe_many import FileBegan, SegmentRecognized
        from harkd.transcript_files import OutputFullError

        began = FileBegan(Path(), 0.0)
        said: list[Utterance] = []
        for event in events:
            if isinstance(event, FileBegan):
                began, said = event, []
                if self._live and self._tally.total > 1:
                    self._shown.print(f"{began.path}:")
                self._shown.show(self._tally, began.path, 0.0, began.length_s)
            elif isinstance(event, SegmentRecognized):
                if isinstance(event.outcome, Utterance):
                    said.append(event.outcome)
                    if self._live:
                        self._shown.print(one_line(event.outcome.text))
                self._shown.show(self._tally, began.path, event.end_s, began.length_s)
            else:
                fault = self._ended(event, said)
                self._count(event, fault)
                if isinstance(fault, OutputFullError):
                    break

    def _count(self, event: FileEnded, fault: HarkdError | None) -> None:
        self._tally.audio_s += event.duration_s
        if fault is None:
            self._tally.transcribed += 1
        else:
            self._tally.failed += 1
            named = str(event.path) in str(fault)
            self._tally.faults.append(str(fault) if named else f"{event.path}: {fault}")

    def _ended(self, event: FileEnded, said: list[Utterance]) -> HarkdError | None:
        """Write or print a file's transcript; return what is wrong with it."""
        from harkd.transcript_files import OutputError, write

        transcript = Transcript(
            file=str(event.path),
            duration_s=event.duration_s,
            took_s=event.took_s,
            utterances=tuple(said),
            error=str(event.fault) if event.fault else None,
        )
        if self._outputs:
            if event.fault is None:
                try:
                    write(self._outputs[event.path], FORMATS[self._form](transcript))
                except OutputError as error:
                    return error
        elif not self._live:
            self._shown.print(FORMATS[self._form](transcript).removesuffix("\n"))
        return event.fault
