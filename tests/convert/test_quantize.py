"""Weights in 8 bits: what is exact, and how far off the rest is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harkd_convert.checkpoint import Quantized
from harkd_convert.quantize import from_floats, from_integers, is_listed, quantized
from small_moonshine import random_source


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))),
    st.integers(0, 255),
    st.floats(2**-20, 8, width=32),
)
def test_published_integers_stay_as_they_are_where_they_fit(
    values: np.ndarray[tuple[int, int], np.dtype[np.uint8]], zero_point: int, scale: float
) -> None:
    published = Quantized(values, scale, zero_point)
    matrix = from_integers(published)
    centred = values.astype(int) - zero_point
    fits = np.abs(centred).max(axis=0) <= 127
    np.testing.assert_array_equal(matrix.values[:, fits], centred[:, fits])
    assert (matrix.scales[fits] == np.float32(scale)).all()
    np.testing.assert_array_equal(matrix.dequantized()[:, fits], published.dequantized().T[:, fits])
    # The others are off by half a step of their own scale, which is at most 255 / 127 as large.
    error = np.abs(matrix.dequantized() - published.dequantized().T)
    assert (error <= matrix.scales * 0.5001).all()
    assert (matrix.scales <= np.float32(scale) * 2.01).all()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_floats_are_off_by_half_a_step_of_their_column_at_most(
    weight: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    matrix = from_floats(weight)
    assert matrix.values.dtype == np.int8
    assert matrix.values.min() >= -127
    reach = np.abs(weight).max(axis=0)
    error = np.abs(matrix.dequantized() - weight)
    assert (error <= reach / 127 * 0.5001 + 1e-30).all()
    assert (matrix.scales > 0).all()


def test_a_column_and_its_negative_are_rounded_alike() -> None:
    column = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    both = from_floats(np.concatenate([column, -column], axis=1))
    np.testing.assert_array_equal(both.values[:, 0], -both.values[:, 1])


@pytest.mark.parametrize("least", [0.0, 1e-45, 1e-38])
def test_columns_of_nothing_become_zeros(least: float) -> None:
    matrix = from_floats(np.full((3, 2), least, np.float32))
    assert not matrix.values.any()
    assert np.isfinite(matrix.scales).all()
    assert (matrix.scales > 0).all()


def test_a_weight_is_transposed_and_taken_from_its_integers_where_they_are_known() -> None:
    source = random_source()
    name = "encoder.layers.0.mlp.fc1.weight"
    weight = source.weights[name]  # (out, in)
    assert quantized(source, name).values.shape == weight.shape[::-1]
    step = np.abs(weight.T).max(axis=0) / 127
    assert (np.abs(quantized(source, name).dequantized() - weight.T) <= step * 0.501).all()
    integers = np.arange(weight.size, dtype=np.uint8).reshape(weight.T.shape)
    source.quantized[name] = Quantized(integers, 0.25, 100)
    assert (quantized(source, name).scales >= 0.25).all()


def test_names_are_listed_by_shell_patterns() -> None:
    assert is_listed("encoder.layers.0.mlp.fc1.weight", ("decoder.*", "*.mlp.*"))
    assert not is_listed("encoder.layers.0.mlp.fc1.weight", ("mlp", "*.fc2.*"))
    assert not is_listed("encoder.layers.0.mlp.fc1.weight", ())
