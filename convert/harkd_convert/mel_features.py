"""Audio to log-mel features, as sherpa-onnx computes them for WeNet models.

In: int16 audio at 16 kHz. Out: features, a frame each 10 ms: the daemon's, of a whole utterance,
and of samples that are not scaled down (csrc/online-recognizer-ctc-impl.h). Runs on the caller's
thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.recognizer.fbank import FeatureSettings


def mel_features(samples: NDArray[np.int16], bins: int = 80) -> NDArray[np.float32]:
    """Return the features of a whole utterance.

    Args:
        samples: int16, (n,), 16 kHz.
        bins: Mel bins.

    Returns:
        float32, (frames, bins).
    """
    fbank = FeatureSettings(bins, scale=1.0).extractor(whole=True)
    fbank.accept_waveform(RATE_HZ, samples.astype(np.float32))
    fbank.input_finished()
    frames = [fbank.get_frame(number) for number in range(fbank.num_frames_ready)]
    return np.stack(frames) if frames else np.empty((0, bins), np.float32)
