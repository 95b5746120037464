"""Streaming transducers: zipformer, zipformer2, conformer and LSTM, as icefall exports them.

In: a model package of the family ``streaming-transducer`` (encoder, decoder, joiner, tokens). Out:
`Hypothesis`. The decoder sees the last tokens alone; the joiner tells the token of a frame, or a
blank. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harkd.errors import ModelDamagedError
from harkd.hotword_list import Hotwords
from harkd.model_package import Manifest
from harkd.recognizer.beam_search import Beam, BeamSearch
from harkd.recognizer.chunk_layout import CTC_ONLY
from harkd.recognizer.chunk_model import WRONG_FILES, ChunkModel
from harkd.recognizer.chunk_stream import ChunkStream
from harkd.recognizer.onnx import bind_input, bind_output, fetch_anew, first_line
from harkd.recognizer.protocol import EVERYTHING, Effort
from harkd.recognizer.search import Found, Search, log_prob
from harkd.recognizer.symbols import UNKNOWN

BLANK, NOTHING = 0, -1
"""Ids of all published transducers; the first context is of the second, but for a blank at its end
(sherpa-onnx, online-transducer-greedy-search-decoder.cc, `GetEmptyResult`)."""

Float32 = NDArray[np.float32]


JOINED_FRAMES = 8
"""The joiner runs over so many frames at once: those of a chunk of 0.32 s. What comes after a token
is computed again, so for long chunks more would cost more than the calls that they save."""


class Transducer(ChunkModel):
    """A loaded model.

    Args:
        folder: The package's directory.
        manifest: Its manifest.
        threads: Threads for each pass.
        effort: Nothing can be left out.
        device: Where the encoder is tried.

    Raises:
        ModelDamagedError: A file is not what the family needs.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int,
        effort: Effort = EVERYTHING,
        device: str = "cpu",
    ) -> None:
        roles = ("encoder", "decoder", "joiner", "tokens")
        super().__init__(folder, manifest, threads, effort, roles, device)
        kind = self.encoder.layout.kind
        if kind in CTC_ONLY:
            raise ModelDamagedError(
                f"{self.paths['encoder']} is of the kind {kind}, no transducer's encoder",
                WRONG_FILES,
            )
        self.decoder, self.joiner = (
            self.placement.open(role, self.paths[role], threads, arena=True, small=True)
            for role in ("decoder", "joiner")
        )
        self._read_shapes()
        self.silent = frozenset({BLANK, self.symbols.ids.get(UNKNOWN, BLANK)})
        """Tokens that say nothing: the unknown is one of them, as in sherpa-onnx."""
        self.first_context = (*([NOTHING] * (self.context - 1)), BLANK)
        self.beam: Beam | None = None
        """How streams that begin from now on search; greedily for None."""

    def stream(self, hotwords: Hotwords = ()) -> ChunkStream:
        """Begin a segment; with hotwords, by beam search, which costs more."""
        if not hotwords:
            return ChunkStream(self, self.search)
        beam = Beam(hotwords=self.phrases(hotwords))
        return ChunkStream(self, lambda: BeamSearch(self, beam, self.first_context))

    def search(self) -> Search:
        """Begin a search."""
        if self.beam:
            return BeamSearch(self, self.beam, self.first_context)
        return GreedyTransducer(self)

    def _read_shapes(self) -> None:
        """Learn the decoder's and the joiner's sizes by running them once."""
        properties = self.decoder.get_modelmeta().custom_metadata_map
        frames, width = self.encoder.output_shape[1:]
        try:
            self.context = int(properties["context_size"])
            self.tokens = int(properties["vocab_size"])
            self.decoder_input = self.decoder.get_inputs()[0].name
            self.decoder_output = self.decoder.get_outputs()[0].name
            self.joiner_inputs = [each.name for each in self.joiner.get_inputs()]
            self.joiner_output = self.joiner.get_outputs()[0].name
            context = np.zeros((1, self.context), np.int64)
            (said,) = self.decoder.run([self.decoder_output], {self.decoder_input: context})
            self.decoder_width = int(said.shape[1])
            rows = [np.zeros((frames, size), np.float32) for size in (width, self.decoder_width)]
            feed = dict(zip(self.joiner_inputs, rows, strict=True))
            (logits,) = self.joiner.run([self.joiner_output], feed)
        except Exception as error:
            raise ModelDamagedError(
                f"{self.paths['decoder']} and {self.paths['joiner'].name} are no decoder and "
                f"joiner for the encoder beside them ({first_line(error)})",
                WRONG_FILES,
            ) from error
        if said.shape != (1, self.decoder_width) or logits.shape != (frames, self.tokens):
            raise ModelDamagedError(
                f"{self.paths['joiner']} makes {list(logits.shape)} of {frames} frames, and the "
                f"decoder knows {self.tokens} tokens: they are not from one model",
                fetch_anew(self.paths["joiner"]),
            )
        self.require_symbols(self.tokens)


class Buffers:
    """What the decoder and the joiner read and write, and the bindings to it.

    Args:
        model: The loaded model.
    """

    def __init__(self, model: Transducer) -> None:
        frames, width = model.encoder.output_shape[1:]
        self._decoder, self._joiner = model.decoder, model.joiner
        # onnxruntime keeps the addresses alone: what is bound must live as long as the bindings.
        self.context: NDArray[np.int64] = np.zeros((1, model.context), np.int64)
        """The last tokens"""
        self._said: Float32 = np.zeros((1, model.decoder_width), np.float32)
        self.encoded: Float32 = np.zeros((frames, width), np.float32)
        """The chunk's frames"""
        self._repeated: Float32 = np.zeros((frames, model.decoder_width), np.float32)
        self.logits: Float32 = np.zeros((frames, model.tokens), np.float32)
        """Of each frame, after the context"""
        self._decoding = model.decoder.io_binding()
        bind_input(self._decoding, model.decoder_input, self.context)
        bind_output(self._decoding, model.decoder_output, self._said)
        self._joining = []
        for first in range(frames):
            binding, rows = model.joiner.io_binding(), slice(first, first + JOINED_FRAMES)
            bind_input(binding, model.joiner_inputs[0], self.encoded[rows])
            bind_input(binding, model.joiner_inputs[1], self._repeated[rows])
            bind_output(binding, model.joiner_output, self.logits[rows])
            self._joining.append(binding)

    def decode(self) -> None:
        """Run the decoder over the context."""
        self._decoder.run_with_iobinding(self._decoding)
        self._repeated[:] = self._said

    def join(self, first: int) -> Float32:
        """Return the logits of up to `JOINED_FRAMES` from `first` on: (frames, tokens)."""
        self._joiner.run_with_iobinding(self._joining[first])
        return self.logits[first : first + JOINED_FRAMES]


class GreedyTransducer:
    """The likeliest token of each frame, at most one.

    The joiner runs over the frames of a chunk at once: up to the first token that is no blank the
    decoder's output stays the same, and only what comes after it is computed again.

    Args:
        model: The loaded model.
    """

    def __init__(self, model: Transducer, buffers: Buffers | None = None) -> None:
        self._model = model
        self._buffers = buffers or Buffers(model)
        self._context = list(model.first_context)
        self.found = Found()

    def advance(self, output: Float32) -> None:
        """Go on over an encoder's output: float32, shape (frames, width)."""
        buffers, found = self._buffers, self.found
        buffers.encoded[:] = output
        self._decode()
        at, frames = 0, len(output)
        while at < frames:
            best = buffers.join(at).argmax(axis=1).tolist()
            found.passes += 1
            found.rows += len(best)
            silent = self._model.silent
            said = next((i for i, each in enumerate(best) if each not in silent), None)
            if said is None:
                at += len(best)
                continue
            at += said
            token = best[said]
            found.add(token, found.heard + at, log_prob(buffers.logits[at], token))
            self._context = [*self._context, token][-len(self._context) :]
            self._decode()
            at += 1
        found.heard += frames

    def branch(self) -> GreedyTransducer:
        """Return a search that goes on from here; both may be used in turn."""
        other = GreedyTransducer(self._model, self._buffers)
        other._context = self._context.copy()
        other.found = self.found.copy()
        return other

    def _decode(self) -> None:
        if self._buffers.context[0].tolist() != self._context or not self.found.passes:
            self._buffers.context[0] = self._context
            self._buffers.decode()
