"""What the signal is like: level, peak, offset, clipping, zeros and lag."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from harkd.audio import RATE_HZ, Int16
from harkd.signal_level import SILENT_DB, SignalAdvice, SignalLevel


def sine(seconds: float, amplitude: float, offset: float = 0.0) -> Int16:
    at = np.arange(round(seconds * RATE_HZ))
    wave = amplitude * np.sin(2 * np.pi * 400 * at / RATE_HZ) + offset
    return np.rint(32767 * wave).clip(-32768, 32767).astype(np.int16)


def heard(samples: Int16, block: int = 480, voiced: bool = False) -> SignalLevel:
    signal = SignalLevel()
    for at in range(0, len(samples), block):
        signal.take(samples[at : at + block], voiced_frames=int(voiced))
    return signal


def test_before_any_audio_it_is_silent() -> None:
    figures = SignalLevel().figures()
    assert (figures.level_dbfs, figures.peak_dbfs, figures.dc_offset) == (SILENT_DB, SILENT_DB, 0)
    assert (figures.frames, figures.clipped_samples, figures.lag_s) == (0, 0, 0)


@pytest.mark.parametrize("block", [160, 480, 1000, 5000])
def test_a_sine_has_its_peak_and_three_decibels_less_rms_in_any_blocks(block: int) -> None:
    figures = heard(sine(2, 0.1), block).figures()
    assert figures.peak_dbfs == pytest.approx(-20, abs=0.05)
    assert figures.level_dbfs == pytest.approx(-23.01, abs=0.05)
    assert figures.dc_offset == pytest.approx(0, abs=0.001)
    assert figures.frames == 100


def test_the_level_is_that_of_the_last_second() -> None:
    signal = heard(np.concatenate([sine(1, 0.9), sine(1.2, 0.01)]))
    assert signal.figures().peak_dbfs == pytest.approx(-40, abs=0.1)


def test_an_offset_is_told_with_its_sign_once_ten_seconds_were_heard() -> None:
    signal = heard(sine(10.5, 0.1, -0.08))
    assert signal.figures().dc_offset == pytest.approx(-0.08, abs=0.001)
    assert signal.offset == pytest.approx(-0.08, abs=0.001)
    assert heard(sine(5, 0.1, 0.08)).offset == 0.0


def test_samples_at_full_scale_are_counted_on_both_sides() -> None:
    samples = np.zeros(RATE_HZ, np.int16)
    samples[[3, 700]] = 32767
    samples[[4, 5, 6]] = [-32768, -32767, 32766]
    assert heard(samples).figures().clipped_samples == 4


def test_clipping_is_judged_in_speech_alone() -> None:
    loud = sine(10.5, 1.5)
    assert heard(loud).clipped_share == 0.0
    assert heard(loud, voiced=True).clipped_share > 0.3
    assert heard(sine(5, 1.5), voiced=True).clipped_share == 0.0, "too little to judge by"


def test_zeros_lag_and_voice_are_as_they_were_given() -> None:
    signal = SignalLevel()
    signal.take(np.zeros(320, np.int16), zeros_s=3.5, lag_s=0.25, voiced_frames=1)
    signal.take(np.zeros(320, np.int16), zeros_s=3.52, lag_s=0.5)
    figures = signal.figures()
    assert (figures.zeros_s, figures.lag_s) == (3.52, 0.5)
    assert (figures.voiced_frames, figures.frames) == (1, 2)


def test_another_input_begins_with_fresh_levels_while_counts_go_on() -> None:
    signal = heard(sine(1, 1.5))
    clipped = signal.figures().clipped_samples
    signal.reset()
    figures = signal.figures()
    assert figures.level_dbfs == SILENT_DB
    assert figures.clipped_samples == clipped > 0
    assert figures.frames == 50


def test_a_microphone_that_is_too_loud_is_told_once_with_the_command_that_mends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    advice, signal = SignalAdvice(), heard(sine(10.5, 1.5), voiced=True)
    for _ in range(3):
        advice.look(signal, "alsa_input.usb")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "pactl set-source-volume alsa_input.usb 60%" in record.getMessage()


def test_a_large_offset_is_told_once_and_a_small_one_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    advice = SignalAdvice()
    advice.look(heard(sine(10.5, 0.1, 0.04)), "")
    assert not caplog.records
    for _ in range(2):
        advice.look(heard(sine(10.5, 0.1, 0.06)), "")
    (record,) = caplog.records
    assert "6%" in record.getMessage()
    assert "alsamixer" in record.getMessage()


def test_the_most_negative_sample_is_full_scale_and_no_more() -> None:
    figures = heard(np.full(RATE_HZ, -32768, np.int16)).figures()
    assert figures.peak_dbfs == figures.level_dbfs == 0.0
    assert math.isclose(figures.dc_offset, -1.0)
