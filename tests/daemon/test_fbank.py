"""Features: those of Kaldi, however the audio comes, and as far as it goes."""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import speech
from harkd.audio import RATE_HZ
from harkd.recognizer.fbank import LEAD_SAMPLES, Fbank, FeatureSettings

AUDIO = speech(400)
SETTINGS = FeatureSettings()


def kaldis(audio: NDArray[np.int16]) -> NDArray[np.float32]:
    """What sherpa-onnx computes: windows centred on their frames, the edge mirrored."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(RATE_HZ, (audio / 32768).astype(np.float32).tolist())
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


@given(st.lists(st.integers(1, 2000), max_size=12), st.data())
def test_any_split_gives_the_same_frames(sizes: list[int], data: st.DataObject) -> None:
    wanted, fbank, at, taken = kaldis(AUDIO), Fbank(SETTINGS), 0, 0
    for size in [*sizes, len(AUDIO)]:
        fbank.accept(AUDIO[at : at + size])
        at += size
        new = data.draw(st.integers(0, fbank.ready - taken))
        out = np.zeros((new, 80), np.float32)
        fbank.take(taken, new, out)
        assert np.array_equal(out, wanted[taken : taken + new])
        taken += new
    assert fbank.ready == len(wanted)


@pytest.mark.parametrize("samples", [1, LEAD_SAMPLES - 1, LEAD_SAMPLES, 399, 1000, 6400])
@pytest.mark.parametrize("taken", [0, 3])
def test_frames_before_silence_are_those_that_silence_would_have_made(
    samples: int, taken: int
) -> None:
    audio = AUDIO[:samples]
    wanted = kaldis(np.pad(audio, (0, 8000)))
    fbank = Fbank(SETTINGS)
    fbank.accept(audio)
    if taken >= fbank.ready:
        taken = 0
    fbank.take(taken, 0, np.zeros((0, 80), np.float32))
    assert np.array_equal(fbank.followed_by_silence(taken, 40), wanted[taken : taken + 40])
    fbank.accept(np.zeros(8000, np.int16))
    out = np.zeros((40, 80), np.float32)
    fbank.take(taken, 40, out)
    assert np.array_equal(out, wanted[taken : taken + 40]), "audio may follow"


@pytest.mark.parametrize("samples", [10, 1000, 6400])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_frames_may_begin_after_the_last_one_that_is_complete(samples: int, count: int) -> None:
    audio = AUDIO[:samples]
    wanted = kaldis(np.pad(audio, (0, 8000)))
    fbank = Fbank(SETTINGS)
    fbank.accept(audio)
    for first in range(max(0, fbank.ready - 2), fbank.ready + 5):
        found = fbank.followed_by_silence(first, count)
        assert np.array_equal(found, wanted[first : first + count])
