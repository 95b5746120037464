"""Aligns rows of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line for each row; a column that holds only numbers is aligned to the right.

    Args:
        rows: The first has the headings; all are of one length.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [_is_numeric(column[1:]) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]


def _is_numeric(cells: Sequence[str]) -> bool:
    return "".join(cells).strip("–") != "" and not "".join(cells).strip("0123456789.–")
