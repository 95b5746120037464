"""Cosines and sines of the rotary positions, to the last bit the same on every machine. Pure.

A libm is free to be wrong in the last bit, and numpy's vectorized functions differ between CPUs; a
package would then have another checksum wherever it is made. So these are computed in decimal.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

from harkd_convert.checkpoint import Float32

DIGITS = 40
"""Far more than the 17 of a double, so that thousands of steps leave no error in them."""


def rotation_tables(base: float, dims: int, rows: int) -> tuple[Float32, Float32]:
    """Return cosines and sines of the angles ``position × base^(-2i / dims)``.

    Args:
        base: Above 1.
        dims: Rotated features, even.
        rows: Positions, from 0 on.

    Returns:
        float32, (rows, dims / 2), twice.

    Source: https://arxiv.org/abs/2104.09864, equation 15.
    """
    columns = [_turns(base, dims, i, rows) for i in range(dims // 2)]
    both = np.array(columns, np.float64).transpose(2, 1, 0)  # (2, rows, dims / 2)
    cosines, sines = np.ascontiguousarray(both.astype(np.float32))
    return cosines, sines


def _turns(base: float, dims: int, i: int, rows: int) -> list[tuple[float, float]]:
    """Turn by one angle again and again."""
    with localcontext(prec=DIGITS):
        angle = Decimal(base) ** (Decimal(-2 * i) / dims)
        step_cosine, step_sine = _cosine_and_sine(angle)
        cosine, sine = Decimal(1), Decimal(0)
        turns = []
        for _ in range(rows):
            turns.append((float(cosine), float(sine)))
            cosine, sine = (
                cosine * step_cosine - sine * step_sine,
                sine * step_cosine + cosine * step_sine,
            )
        return turns


def _cosine_and_sine(angle: Decimal) -> tuple[Decimal, Decimal]:
    """Sum the Taylor series of an angle of 0…1."""
    sums = [Decimal(0), Decimal(0)]
    term, n = Decimal(1), 0
    least = Decimal(10) ** -DIGITS
    while abs(term) > least:
        sums[n % 2] += term if n % 4 < 2 else -term
        n += 1
        term = term * angle / n
    return sums[0], sums[1]
