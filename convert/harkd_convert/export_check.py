"""Compares the exported graphs with the PyTorch module, so that no bug of the export is shipped.

In: a source, and audio. Out: how far they are apart, or an error. The graphs are made in float32,
whatever precision the package has: then all that may differ is the order of sums. Runs on the
caller's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from harkd.model_package import Streaming
from harkd.recognizer.encoding import Encoding
from harkd.recognizer.lean_decoder import DecoderState, LeanDecoder
from harkd.recognizer.lean_encoder import LeanEncoder
from harkd.recognizer.moonshine_lean import WholeEncoding
from harkd.recognizer.moonshine_streaming import StreamingEncoding
from harkd.recognizer.moonshine_tokens import TOKEN_END, Decoded
from harkd.recognizer.onnx import first_line
from harkd_convert.checkpoint import Float32, Source
from harkd_convert.errors import ConvertError
from harkd_convert.graph import Precision
from harkd_convert.moonshine_graphs import decoder_graph, encoder_graph, stem_graph
from harkd_convert.reference import Heard, Reference

MOST_ERROR = 1e-3
"""Relative; measured with tiny and base: 1e-5."""
AUDIO_SAMPLES = 40_000
"""2.5 s: enough for a dozen tokens, and quick."""
PIECE_SAMPLES = 5_000
MOST_TOKENS = 24
MEND = "this is a bug in harkd-convert: please report it, with the model's name"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the exported graphs are from PyTorch, in float32."""

    cross_error: float
    """Relative, the worst of all keys and values"""
    log_prob_error: float
    """Of the tokens, the worst"""
    tokens: int
    """Compared"""


def pseudo_speech(samples: int = AUDIO_SAMPLES) -> Float32:
    """Return syllables of a buzzing voice that glides, for sources that bring no recording.

    Returns:
        float32, (samples,), 16 kHz, -1…1; the same at each call.
    """
    seconds = np.arange(samples) / 16000
    pitch = 2 * np.pi * np.cumsum(120 + 25 * np.sin(2 * np.pi * 0.6 * seconds)) / 16000
    formants = 500 + 250 * np.sin(2 * np.pi * 1.3 * seconds), 1500 + 500 * np.sin(9 * seconds)
    voice = np.zeros(samples)
    for harmonic in range(1, 30):
        hertz = 120 * harmonic
        gain = sum(np.exp(-(((hertz - formant) / 200) ** 2)) for formant in formants)
        voice += (gain + 0.02) * np.sin(harmonic * pitch)
    voice *= np.clip(np.sin(2 * np.pi * 2.2 * seconds), 0, None)
    voice += 0.01 * np.random.default_rng(0).normal(size=samples)
    voice *= 0.3 / np.abs(voice).max()
    return np.asarray(voice, np.float32)


def check_export(
    source: Source,
    tokens: int,
    audio: Float32,
    scratch: Path,
    streaming: Streaming | None = None,
) -> Agreement:
    """Export in float32 and compare.

    Args:
        source: The model.
        tokens: So many of the vocabulary can be written.
        audio: float32, (n,), 16 kHz, -1…1.
        scratch: A directory for the graphs, which are left there.
        streaming: How it listens: the graphs in passes over chunks, PyTorch at once under a mask.

    Raises:
        ConvertError: They differ.
    """
    reference = Reference(source, tokens, streaming)
    heard = reference.hear(audio, MOST_TOKENS)
    try:
        cross, once, again = _run(source, tokens, audio, scratch, streaming)
    except Exception as error:  # onnxruntime's have no base of their own
        raise ConvertError(f"the exported graphs do not run ({first_line(error)})", MEND) from error
    cross_error = max(map(relative_error, heard.cross, cross))
    log_prob_error = _log_prob_error(reference, heard, once)
    found = {
        f"a relative error of {cross_error:.2g} in keys and values": not cross_error < MOST_ERROR,
        f"an error of {log_prob_error:.2g} in log-probabilities": not log_prob_error < 1,
        "other tokens from a draft than one by one": once.tokens != again.tokens,
    }
    if faults := [fault for fault, present in found.items() if present]:
        raise ConvertError(
            f"the exported graphs are not the model in PyTorch: {'; '.join(faults)}", MEND
        )
    return Agreement(cross_error, log_prob_error * MOST_ERROR, len(once.tokens))


def relative_error(wanted: Float32, found: Float32) -> float:
    """Return the distance of two arrays of one shape, as a part of the first's length."""
    if wanted.shape != found.shape:
        return float("inf")
    length = float(np.linalg.norm(wanted.astype(np.float64)))
    distance = float(np.linalg.norm(wanted.astype(np.float64) - found.astype(np.float64)))
    return distance / length if length else distance


def _run(
    source: Source, tokens: int, audio: Float32, scratch: Path, streaming: Streaming | None
) -> tuple[list[Float32], Decoded, Decoded]:
    """Return keys and values, and what is decoded token by token, and from that as a draft."""
    real = Precision.FP32
    files = {name: scratch / f"{name}.onnx" for name in ("stem", "encoder", "decoder")}
    onnx.save(stem_graph(source), files["stem"])
    onnx.save(encoder_graph(source, real), files["encoder"])
    onnx.save(decoder_graph(source, tokens, real), files["decoder"])
    loaded = LeanEncoder(files["stem"], files["encoder"], 1)
    encoder: Encoding = WholeEncoding(loaded, 0.0)
    if streaming:
        encoder = StreamingEncoding(loaded, streaming, 0.0)
    for piece in np.array_split(audio, 1 + len(audio) // PIECE_SAMPLES):
        encoder.accept(piece)
        if streaming:
            encoder.encode(exact=False, incremental=True)
    encoder.encode(exact=True, incremental=False)
    cross = encoder.cross()
    decoder = DecoderState(LeanDecoder(files["decoder"], 1, MOST_TOKENS + 1))
    decoder.attend_to(cross)
    once = decoder.decode(Decoded(), MOST_TOKENS)
    again = decoder.decode(once, MOST_TOKENS)
    return [each[0] for each in cross], once, again


def _log_prob_error(reference: Reference, heard: Heard, found: Decoded) -> float:
    """Return the worst error of a log-probability, with 1 for the most that is allowed.

    Each token must also be PyTorch's likeliest, but for ties: near silence, and with weights that
    were never trained, two may be alike.
    """
    wanted = reference.log_probs(heard.hidden, found.tokens)
    chosen = [*found.tokens, *([TOKEN_END] if found.ended else [])]
    scale = MOST_ERROR * max(1.0, float(np.abs(wanted).max()))
    worst = 0.0
    for row, token, log_prob in zip(wanted, chosen, found.log_probs, strict=False):
        worst = max(worst, abs(float(row[token]) - log_prob), float(row.max() - row[token]))
    return worst / scale
