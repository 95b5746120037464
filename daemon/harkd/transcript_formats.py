"""A file's transcript as text, JSON, SubRip, WebVTT or tab-separated values. Pure.

In: a `Transcript`. Out: what is printed, or written to the transcript's file. The subtitle formats
are those of https://www.matroska.org/technical/subtitles.html (SubRip has no other specification)
and https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from harkd.events import PhraseMatch

LINE_CHARACTERS = 42
"""The longest line of a subtitle; what most style guides ask for, such as Netflix's."""
CUE_LINES = 2
"""Lines that are shown at once."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recognized utterance of a file."""

    start_s: float
    """Seconds from the file's start to the first speech."""
    end_s: float
    """Seconds from the file's start to the last speech."""
    text: str
    """What was said."""
    confidence: float
    """exp(mean token log-probability), 0…1."""
    match: PhraseMatch | None = None
    """Which phrase it is."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What became of one file."""

    file: str
    """Its path, as it was given."""
    duration_s: float
    """Seconds of audio that were read."""
    took_s: float
    """Seconds from opening it to its last text."""
    utterances: tuple[Utterance, ...]
    """What is said, in order; up to where it went wrong, if it did."""
    error: str | None = None
    """What is wrong with it; None for a whole transcript."""


@dataclass(frozen=True, slots=True)
class Cue:
    """What a subtitle shows at one time."""

    start_ms: int
    """Milliseconds from the file's start, from here on."""
    end_ms: int
    """Milliseconds from the file's start, up to here."""
    lines: tuple[str, ...]
    """1…`CUE_LINES` lines of at most `LINE_CHARACTERS` characters, but for longer words."""


def as_text(transcript: Transcript) -> str:
    """Return one line for each utterance."""
    return "".join(f"{one_line(utterance.text)}\n" for utterance in transcript.utterances)


def utterance_fields(utterance: Utterance) -> dict[str, object]:
    """Return what is told of an utterance; of phrases only where it is one."""
    fields = asdict(utterance)
    if utterance.match is None:
        del fields["match"]
    return fields


def as_json(transcript: Transcript) -> str:
    """Return one object on one line."""
    report = {
        "file": transcript.file,
        "duration_s": round(transcript.duration_s, 2),
        "took_s": round(transcript.took_s, 3),
        "text": " ".join(utterance.text for utterance in transcript.utterances),
        "utterances": [utterance_fields(each) for each in transcript.utterances],
        "error": transcript.error,
    }
    return json.dumps(report, ensure_ascii=False) + "\n"


def as_srt(transcript: Transcript) -> str:
    """Return SubRip subtitles."""
    return "".join(
        f"{number}\n{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n"
        + "".join(f"{line}\n" for line in cue.lines)
        + "\n"
        for number, cue in enumerate(cues(transcript), 1)
    )


def as_vtt(transcript: Transcript) -> str:
    """Return WebVTT subtitles."""
    return "WEBVTT\n\n" + "".join(
        f"{clock(cue.start_ms, '.')} --> {clock(cue.end_ms, '.')}\n"
        + "".join(f"{escaped(line)}\n" for line in cue.lines)
        + "\n"
        for cue in cues(transcript)
    )


def as_tsv(transcript: Transcript) -> str:
    """Return a line of names, then one line for each utterance."""
    return "start_ms\tend_ms\ttext\n" + "".join(
        f"{to_ms(each.start_s)}\t{to_ms(each.end_s)}\t{one_line(each.text)}\n"
        for each in transcript.utterances
    )


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": as_text,
    "json": as_json,
    "srt": as_srt,
    "vtt": as_vtt,
    "tsv": as_tsv,
}
"""Name → how it is written."""
SUFFIXES = {name: f".{name}" for name in FORMATS} | {"text": ".txt"}
"""Name → how a file of it ends."""
JOINABLE = frozenset({"text", "json"})
"""Formats in which several transcripts can follow each other on stdout."""


def cues(transcript: Transcript) -> Iterator[Cue]:
    """Yield the subtitles of all utterances.

    An utterance that fills more than one cue is divided among them, its time by the length of
    their texts: speech is even enough for that, and nothing else is known of its middle.
    """
    for utterance in transcript.utterances:
        lines = balanced(one_line(utterance.text))
        groups = [tuple(lines[at : at + CUE_LINES]) for at in range(0, len(lines), CUE_LINES)]
        sizes = [sum(map(len, group)) for group in groups]
        start_ms, end_ms = to_ms(utterance.start_s), to_ms(utterance.end_s)
        before = 0
        for group, size in zip(groups, sizes, strict=True):
            first = start_ms + (end_ms - start_ms) * before // sum(sizes)
            before += size
            yield Cue(first, start_ms + (end_ms - start_ms) * before // sum(sizes), group)


def balanced(text: str) -> list[str]:
    """Break text into as few lines as `LINE_CHARACTERS` allows, of about the same length."""
    lines = wrapped(text, LINE_CHARACTERS)
    for width in range(LINE_CHARACTERS - 1, 0, -1):
        narrower = wrapped(text, width)
        if len(narrower) > len(lines) or max(map(len, narrower), default=0) > width:
            return lines
        lines = narrower
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Break text between its words; a longer word gets a line of its own."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def one_line(text: str) -> str:
    """Return the text with each run of white space, tabs and line ends too, as one space."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """Return the text with the characters that mean something in WebVTT written as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_ms(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1000)


def clock(ms: int, mark: str) -> str:
    """Return hours:minutes:seconds, the decimal mark, and the milliseconds."""
    seconds, rest_ms = divmod(ms, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}{mark}{rest_ms:03}"
