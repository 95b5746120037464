"""Audio to log-mel features, as sherpa-onnx computes them for WeNet models.

In: int16 audio at 16 kHz. Out: features, a frame each 10 ms. Kaldi's filters in kaldi-native-fbank,
with what sherpa-onnx sets (csrc/features.h: no dither, bins from 20 Hz to 7,600 Hz, frames beyond
the edges mirrored) and, for WeNet models, samples that are not scaled down
(csrc/online-recognizer-ctc-impl.h). Runs on the caller's thread.
"""

from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16000
HIGH_HZ = -400.0
"""Below the highest frequency there is."""


def mel_features(samples: NDArray[np.int16], bins: int = 80) -> NDArray[np.float32]:
    """Return the features of a whole utterance.

    Args:
        samples: int16, (n,), 16 kHz.
        bins: Mel bins.

    Returns:
        float32, (frames, bins).
    """
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE_HZ
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = bins
    options.mel_opts.high_freq = HIGH_HZ
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(RATE_HZ, samples.astype(np.float32))
    fbank.input_finished()
    frames = [fbank.get_frame(number) for number in range(fbank.num_frames_ready)]
    return np.stack(frames) if frames else np.empty((0, bins), np.float32)
