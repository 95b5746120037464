"""Measurements → what is printed: figures of one subject, and tables of several side by side.

Pure. In: `Timed` values. Out: frozen figures, which are the JSON, and lines of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harkd.bench_measure import Spread, Timed, spread_of
from harkd.bench_words import Normalizer, WordErrors, count_errors, differ

ALL = "all"
"""The category of all recordings."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was computed. Does not depend on how busy or fast the machine is."""

    encoder_passes: int
    """Calls of the encoder."""
    encoded_s: float
    """Seconds of audio that went through it."""
    decoder_passes: int
    """Calls of the decoder."""
    decoder_rows: int
    """Token positions computed in them."""
    tokens: int
    """Tokens in the results."""
    partials: int
    """Texts before the finals."""
    rewrites: int
    """Partials and finals that took words back."""
    words_taken_back: int
    """Those words."""
    finals: int
    """Utterances."""
    rejected: int
    """Segments without text."""


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """One subject on the recordings of one category."""

    recordings: int
    """How many there are."""
    audio_s: float
    """Their seconds."""
    cpu_s: float
    """CPU seconds, all threads."""
    word_errors: WordErrors | None
    """None where no texts are known, or nothing counts them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A subject against the first."""

    cpu_ratio: float
    """Its CPU seconds over the first's."""
    other_words: int
    """Recordings in which it heard other words."""
    word_error_change: float | None
    """Its errors over the first's, less 1; None where these are none, or not counted."""


@dataclass(frozen=True, slots=True)
class RecordingFigures:
    """One recording."""

    path: str
    """As in the list."""
    audio_s: float
    """Its seconds."""
    cpu_s: float
    """CPU seconds."""
    text: str
    """What was heard."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One subject on all recordings."""

    name: str
    """The subject."""
    audio_s: float
    """Seconds of the recordings."""
    cpu_s_per_s: float
    """CPU seconds, all threads, for each second of audio."""
    real_time_factor: float
    """Seconds for each second of audio."""
    counts: Counts
    """What was computed and said."""
    endpoint_ms: Spread | None
    """Audio from the last speech to the final, in ms; None where nothing decides endpoints."""
    categories: dict[str, CategoryFigures]
    """By name, `ALL` last."""
    compared: Comparison | None
    """Against the first subject; None for the first itself."""
    recordings: list[RecordingFigures]
    """Each of them."""

    @property
    def word_errors(self) -> WordErrors | None:
        """Of all recordings."""
        return self.categories[ALL].word_errors


def figures_of(
    names: Sequence[str], results: Sequence[Sequence[Timed]], normalizer: Normalizer | None
) -> list[Figures]:
    """Return the figures of each subject, compared with the first."""
    found: list[Figures] = []
    for name, timed in zip(names, results, strict=True):
        categories = categories_of(timed, normalizer)
        compared = compare(results[0], timed, normalizer) if found else None
        audio_s = sum(each.length_s for each in timed)
        endpoint_ms = [ms for each in timed for ms in each.heard.endpoint_ms]
        found.append(
            Figures(
                name=name,
                audio_s=round(audio_s, 3),
                cpu_s_per_s=per(sum(each.cpu_s for each in timed), audio_s),
                real_time_factor=per(sum(each.wall_s for each in timed), audio_s),
                counts=counts_of(timed),
                endpoint_ms=spread_of(endpoint_ms),
                categories=categories,
                compared=compared,
                recordings=[
                    RecordingFigures(
                        path="/".join(
                            filter(None, (each.recording.category, each.recording.path.name))
                        ),
                        audio_s=round(each.length_s, 3),
                        cpu_s=round(each.cpu_s, 5),
                        text=each.heard.text,
                    )
                    for each in timed
                ],
            )
        )
    return found


def per(seconds: float, audio_s: float) -> float:
    """Return seconds for each second of audio."""
    return round(seconds / audio_s, 6) if audio_s else 0.0


def counts_of(timed: Sequence[Timed]) -> Counts:
    """Add up what was computed."""
    heard = [each.heard for each in timed]
    return Counts(
        encoder_passes=sum(each.work.encoder_passes for each in heard),
        encoded_s=round(sum(each.work.encoded_s for each in heard), 3),
        decoder_passes=sum(each.work.decoder_passes for each in heard),
        decoder_rows=sum(each.work.decoder_rows for each in heard),
        tokens=sum(each.work.tokens for each in heard),
        partials=sum(each.partials for each in heard),
        rewrites=sum(each.rewrites for each in heard),
        words_taken_back=sum(each.words_taken_back for each in heard),
        finals=sum(each.finals for each in heard),
        rejected=sum(each.rejected for each in heard),
    )


def categories_of(
    timed: Sequence[Timed], normalizer: Normalizer | None
) -> dict[str, CategoryFigures]:
    """Return the figures by category, in the order in which they come; all of them last."""
    names = dict.fromkeys(each.recording.category for each in timed)
    members = {name: [each for each in timed if each.recording.category == name] for name in names}
    if len(members) == 1:
        members = {}
    members[ALL] = list(timed)
    return {
        name or "–": CategoryFigures(
            recordings=len(some),
            audio_s=round(sum(each.length_s for each in some), 3),
            cpu_s=round(sum(each.cpu_s for each in some), 4),
            word_errors=errors_of(some, normalizer),
        )
        for name, some in members.items()
    }


def errors_of(timed: Sequence[Timed], normalizer: Normalizer | None) -> WordErrors | None:
    """Count the errors in those recordings whose text is known."""
    pairs = [(each.recording.text, each.heard.text) for each in timed]
    known = [(said, heard) for said, heard in pairs if said is not None]
    if not known or normalizer is None:
        return None
    return count_errors([said for said, _ in known], [heard for _, heard in known], normalizer)


def compare(
    first: Sequence[Timed], other: Sequence[Timed], normalizer: Normalizer | None
) -> Comparison:
    """Return the other subject against the first, on the same recordings."""
    pairs = list(zip(first, other, strict=True))
    cpu_s = sum(each.cpu_s for each in first)
    errors, other_errors = errors_of(first, normalizer), errors_of(other, normalizer)
    change = None
    if errors and other_errors and errors.errors:
        change = round(other_errors.errors / errors.errors - 1, 4)
    return Comparison(
        cpu_ratio=round(sum(each.cpu_s for each in other) / cpu_s, 4) if cpu_s else 0.0,
        other_words=sum(differ(a.heard.text, b.heard.text, normalizer) for a, b in pairs),
        word_error_change=change,
    )


def lines_of(title: str, found: Sequence[Figures], *, live: bool) -> list[str]:
    """Return a title, a table with a column for each subject, and one of the categories."""
    first = found[0]
    total = first.categories[ALL]
    many = "recording" if total.recordings == 1 else "recordings"
    lines = [f"{title}; {total.recordings} {many}, {total.audio_s:.0f} s", ""]
    lines += table([["", *(each.name for each in found)], *rows_of(found, live=live)])
    if len(first.categories) > 1:
        lines += ["", *table(category_rows(found))]
    return [*lines, ""]


def rows_of(found: Sequence[Figures], *, live: bool) -> list[list[str]]:
    """Return a row for each figure."""

    def row(name: str, *cells: str) -> list[str]:
        return [name, *cells]

    counts = [each.counts for each in found]
    seconds = [each.audio_s or 1.0 for each in found]
    rows = [
        row("CPU seconds per second of audio", *(f"{each.cpu_s_per_s:.4f}" for each in found)),
        row("real-time factor", *(f"{each.real_time_factor:.4f}" for each in found)),
    ]
    if any(each.tokens for each in counts):
        rows += [
            row(
                name,
                *(f"{getattr(one, key) / s:.2f}" for one, s in zip(counts, seconds, strict=True)),
            )
            for name, key in (
                ("seconds encoded per second", "encoded_s"),
                ("decoder passes per second", "decoder_passes"),
                ("decoder rows per second", "decoder_rows"),
            )
        ]
    if live:
        rows += [
            row(name, *(str(getattr(one, key)) for one in counts))
            for name, key in (
                ("partials", "partials"),
                ("texts that took words back", "rewrites"),
                ("words taken back", "words_taken_back"),
                ("finals", "finals"),
                ("rejected", "rejected"),
            )
        ]
        spreads = [each.endpoint_ms for each in found]
        if any(spreads):
            cells = [f"{one.p50:.0f} / {one.p95:.0f}" if one else "–" for one in spreads]
            rows.append(row("last speech → endpoint, ms, median / p95", *cells))
    errors = [each.word_errors for each in found]
    if any(errors):
        rows += [
            row("word error rate, %", *(one.percent if one else "–" for one in errors)),
            row("errors / words", *(errors_cell(one) for one in errors)),
        ]
    if len(found) > 1:
        rows += compared_rows([each.compared for each in found])
    return rows


def compared_rows(compared: Sequence[Comparison | None]) -> list[list[str]]:
    """Return the rows in which the others stand against the first."""

    def change(one: Comparison) -> str:
        return "–" if one.word_error_change is None else f"{100 * one.word_error_change:+.1f} %"

    return [
        ["CPU, times the first's", *(f"×{one.cpu_ratio:.3f}" if one else "1" for one in compared)],
        ["recordings with other words", *(str(one.other_words) if one else "" for one in compared)],
        ["word errors against the first's", *(change(one) if one else "" for one in compared)],
    ]


def errors_cell(errors: WordErrors | None) -> str:
    """Return errors and words."""
    return f"{errors.errors} / {errors.words}" if errors else "–"


def category_rows(found: Sequence[Figures]) -> list[list[str]]:
    """Return a row for each category: its size, and each subject's CPU and errors."""
    header = ["category", "recordings", "seconds", *(f"{each.name}" for each in found)]
    rows = [header]
    for name, first in found[0].categories.items():
        cells = []
        for each in found:
            one = each.categories[name]
            cell = f"{per(one.cpu_s, one.audio_s):.4f}"
            if one.word_errors:
                cell += f"; {one.word_errors.percent} % ({errors_cell(one.word_errors)})"
            cells.append(cell)
        rows.append([name, str(first.recordings), f"{first.audio_s:.0f}", *cells])
    return rows


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the cells in columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
