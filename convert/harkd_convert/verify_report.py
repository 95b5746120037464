"""Turns a verification into text for people, and into plain values for JSON. Pure."""

from __future__ import annotations

from typing import Any

from harkd.bench_words import WordErrors, differ
from harkd_convert.comparison import Pair
from harkd_convert.tables import aligned
from harkd_convert.verify import MOST_GROWTH, Verified, figures

MOST_SHOWN = 20


def as_text(found: Verified, *, show_all: bool = False) -> str:
    """Return the report: figures, a table by category, and the finals that differ."""
    lines = [_summary(found), "", *_table(found), "", *_figures(found)]
    differing = differing_finals(found)
    if differing:
        shown = differing if show_all else differing[:MOST_SHOWN]
        lines += ["", f"Finals with other words than the reference's: {len(differing)}"]
        for pair in shown:
            lines += _final(pair)
        if len(shown) < len(differing):
            lines.append(f"  and {len(differing) - len(shown)} more, which --all shows")
    return "\n".join(lines)


def as_plain(found: Verified) -> dict[str, Any]:
    """Return the same as plain values."""
    return {
        "package": found.manifest.name,
        "version": found.manifest.version,
        "passed": found.passed,
        "allowed_word_errors": found.allowed,
        **figures(found),
        "categories": {
            category: {
                side: _counts(found.errors(side, category)) for side in ("package", "reference")
            }
            for category in found.categories
        },
        "finals_that_differ": [
            {
                "recording": pair.recording.path.name,
                "said": pair.recording.text,
                "reference": pair.reference.text,
                "package": pair.package.text,
            }
            for pair in differing_finals(found)
        ],
    }


def differing_finals(found: Verified) -> list[Pair]:
    """Return the recordings in which package and reference heard different words."""
    return [
        pair
        for pair in found.pairs
        if differ(pair.reference.text, pair.package.text, found.normalizer)
    ]


def _summary(found: Verified) -> str:
    package, reference = found.errors("package"), found.errors("reference")
    grown = (package.errors - reference.errors) / reference.errors if reference.errors else None
    growth = f"{100 * grown:+.1f} %" if grown is not None else "from none"
    verdict = "passes" if found.passed else "is REFUSED"
    limit = f"{100 * MOST_GROWTH:.0f} % more is the limit, here {found.allowed}"
    return (
        f"{found.manifest.name} {found.manifest.version} {verdict}: {package.errors} word errors "
        f"in {package.words} words, against {reference.errors} of the reference ({growth}; {limit})"
    )


def _table(found: Verified) -> list[str]:
    rows = [
        ("CATEGORY", "RECORDINGS", "WORDS", "REFERENCE", "WER %", "PACKAGE", "WER %", "PYTORCH")
    ]
    for category in [*found.categories, None]:
        reference, package, torch = (
            found.errors(side, category) for side in ("reference", "package", "torch")
        )
        rows.append(
            (
                "all" if category is None else category or "–",
                str(len(found.spoken(category))),
                str(package.words),
                str(reference.errors),
                reference.percent,
                str(package.errors),
                package.percent,
                str(torch.errors),
            )
        )
    lines = aligned(rows)
    return [*lines, f"The reference is {found.reference}; PyTorch runs in float32."]


def _figures(found: Verified) -> list[str]:
    published = found.pairs[0].published is not None
    mean, most = found.cross_error("package")
    lines = [
        f"Decoder's keys and values, error to float32: mean {mean:.2%}, most {most:.2%}"
        + (", published {:.2%}, {:.2%}".format(*found.cross_error("reference")) * published)
    ]
    for side in ("reference", "torch") if published else ("torch",):
        recordings, edits = found.token_edits(side)
        name = "the reference's" if side == "reference" else "PyTorch's"
        lines.append(
            f"Tokens other than {name}: {edits}, in {recordings} of {len(found.pairs)} recordings"
        )
    if published:
        package, reference = found.cpu("package"), found.cpu("reference")
        lines.append(
            f"CPU seconds for a second of audio: {package:.4f}, published {reference:.4f} "
            f"({reference / package:.2f} times as much)"
        )
    return lines


def _final(pair: Pair) -> list[str]:
    return [
        f"  {pair.recording.path.name}",
        f"    said:      {pair.recording.text or '(not known)'}",
        f"    reference: {pair.reference.text}",
        f"    package:   {pair.package.text}",
    ]


def _counts(errors: WordErrors) -> dict[str, Any]:
    return {"words": errors.words, "errors": errors.errors, "word_error_rate": errors.rate}
