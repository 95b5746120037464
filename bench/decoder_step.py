"""What a pass of the encoder and a token of the decoder cost, of models side by side.

    .venv/bin/python bench/decoder_step.py FILE --model moonshine-tiny-en --model PACKAGE

Encodes FILE (at most 10 s of it) and decodes it step by step, without a draft, in turns for each
model, on one core. Prints medians: CPU milliseconds of the encoder for a second of audio, and of
the decoder for a token.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.bench_measure import read_samples
from harkd.errors import HarkdError
from harkd.model_store import store_of
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.lean_decoder import DecoderState
from harkd.recognizer.lean_encoder import EncoderState
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.moonshine_tokens import Decoded
from harkd.settings import Settings

MOST_S = 10

Cost = tuple[float, float]
"""Seconds of the encoder, seconds of the decoder for each of its passes."""


def lean(model: MoonshineLean, audio: NDArray[np.float32]) -> Cost:
    """Run a lean model over audio: float32, shape (n,), 16 kHz, -1…1."""
    begin_s = time.process_time()
    encoder = EncoderState(model.encoder, 0.0)
    encoder.accept(audio)
    encoder.encode(None)
    encoded_s = time.process_time()
    decoder = DecoderState(model.decoder)
    decoder.attend_to(encoder.cross())
    decoded = decoder.decode(Decoded(), model.most_tokens(len(audio)))
    return encoded_s - begin_s, (time.process_time() - encoded_s) / decoded.passes


def published(model: Moonshine, audio: NDArray[np.float32]) -> Cost:
    """Run a published model over audio: float32, shape (n,), 16 kHz, -1…1."""
    begin_s = time.process_time()
    hidden = model.encode(audio)
    encoded_s = time.process_time()
    decoded = model.decode(hidden, len(audio))
    return encoded_s - begin_s, (time.process_time() - encoded_s) / decoded.passes


def main() -> None:
    """Read the words of the command line and print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", action="append", required=True, help="name or path; repeatable")
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        audio = read_samples(words.file)[: MOST_S * RATE_HZ].astype(np.float32) / np.float32(32768)
        found = [store_of(Settings()).locate(name) for name in words.model]
        models = [load_recognizer(each.dir, each.manifest, 1) for each in found]
    except HarkdError as error:
        raise SystemExit(f"decoder_step.py: {error}") from error
    costs: list[list[Cost]] = [[] for _ in models]
    for _ in range(words.rounds):
        for model, taken in zip(models, costs, strict=True):
            if isinstance(model, MoonshineLean):
                taken.append(lean(model, audio))
            elif isinstance(model, Moonshine):
                taken.append(published(model, audio))
            else:
                raise SystemExit(f"decoder_step.py: {model.name} is no Moonshine")
    for model, taken in zip(models, costs, strict=True):
        encoder_ms, token_ms = (1000 * statistics.median(each) for each in zip(*taken, strict=True))
        print(
            f"{model.name}: encoder {encoder_ms * RATE_HZ / len(audio):.2f} ms for a second of "
            f"audio, decoder {token_ms:.2f} ms for a token"
        )


if __name__ == "__main__":
    main()
