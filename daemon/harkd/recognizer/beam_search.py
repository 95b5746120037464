"""Modified beam search over a transducer, with hotwords: several hypotheses, a token a frame each.

In: an encoder's output, chunk by chunk. Out: the best hypothesis so far. Hypotheses of the same
tokens are one, whatever their blanks; the best is the likeliest for its length. As sherpa-onnx's
online-transducer-modified-beam-search-decoder.cc. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.hotwords import Hotwords, Place
from harkd.recognizer.onnx import bind_input, bind_output
from harkd.recognizer.search import Found

if TYPE_CHECKING:
    from harkd.recognizer.transducer import Transducer

REMEMBERED_MOST = 2000
"""Contexts for which the decoder's output is kept; a segment has a few hundred."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Beam:
    """How wide a search is, and what it should rather hear."""

    paths: int = 4
    """Hypotheses, 1 or more"""
    hotwords: Hotwords | None = None
    """None for none"""


@dataclass(frozen=True, slots=True)
class Path:
    """A hypothesis."""

    tokens: tuple[int, ...]
    """With the first context before them"""
    score: float
    """Log-probability of all its blanks and tokens, and what hotwords are worth"""
    frames: tuple[int, ...] = ()
    """Of each token after the context"""
    log_probs: tuple[float, ...] = ()
    """Of each of them"""
    place: Place | None = None
    """In the hotwords"""


class Rows:
    """What the joiner reads and writes for up to so many hypotheses, and the bindings to it.

    Args:
        model: The loaded model.
        paths: Hypotheses.
    """

    def __init__(self, model: Transducer, paths: int) -> None:
        width = model.encoder.output_shape[2]
        self._joiner = model.joiner
        # onnxruntime keeps the addresses alone: what is bound must live as long as the bindings.
        self.encoded: Float32 = np.zeros((paths, width), np.float32)
        self.said: Float32 = np.zeros((paths, model.decoder_width), np.float32)
        self._logits: Float32 = np.zeros((paths, model.tokens), np.float32)
        self._bindings = []
        for count in range(1, paths + 1):
            binding = model.joiner.io_binding()
            bind_input(binding, model.joiner_inputs[0], self.encoded[:count])
            bind_input(binding, model.joiner_inputs[1], self.said[:count])
            bind_output(binding, model.joiner_output, self._logits[:count])
            self._bindings.append(binding)

    def join(self, count: int) -> Float32:
        """Return the log-probabilities of the first hypotheses: (count, tokens)."""
        self._joiner.run_with_iobinding(self._bindings[count - 1])
        logits = self._logits[:count]
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs: Float32 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs


class BeamSearch:
    """A search over one segment.

    Args:
        model: The loaded model.
        beam: How wide.
        context: The first context.
        rows: Those of the search that this one goes on from, which is used in turn with it.
    """

    def __init__(
        self, model: Transducer, beam: Beam, context: tuple[int, ...], rows: Rows | None = None
    ) -> None:
        self._model = model
        self._beam = beam
        self._lead = len(context)
        self._rows = rows or Rows(model, beam.paths)
        self._said: dict[tuple[int, ...], Float32] = {}
        place = beam.hotwords.root if beam.hotwords else None
        self._paths = [Path(context, 0.0, place=place)]
        self.found = Found()

    def advance(self, output: Float32) -> None:
        """Go on over an encoder's output: float32, shape (frames, width)."""
        for row in output:
            self._step(row)
            self.found.heard += 1
        best = max(self._paths, key=lambda path: path.score / len(path.tokens))
        self.found.tokens = list(best.tokens[self._lead :])
        self.found.frames = list(best.frames)
        self.found.log_probs = list(best.log_probs)

    def branch(self) -> BeamSearch:
        """Return a search that goes on from here; both may be used in turn."""
        context = self._paths[0].tokens[: self._lead]
        other = BeamSearch(self._model, self._beam, context, self._rows)
        other._said = self._said
        other._paths = list(self._paths)
        other.found = self.found.copy()
        return other

    def _step(self, row: Float32) -> None:
        """Go on over one frame: float32, shape (width,)."""
        paths, rows = self._paths, self._rows
        self._decode()
        count = len(paths)
        rows.encoded[:count] = row
        for i, path in enumerate(paths):
            rows.said[i] = self._said[path.tokens[-self._lead :]]
        logs = rows.join(count)
        self.found.passes += 1
        self.found.rows += count
        scores = (logs + np.array([[path.score] for path in paths], np.float32)).ravel()
        top = np.argpartition(-scores, self._beam.paths)[: self._beam.paths]
        merged: dict[tuple[int, ...], Path] = {}
        for at in sorted(top.tolist(), key=lambda each: -scores[each]):
            number, token = divmod(at, logs.shape[1])
            path = self._extended(
                paths[number], token, float(scores[at]), float(logs[number, token])
            )
            if same := merged.get(path.tokens):
                path = replace(same, score=float(np.logaddexp(same.score, path.score)))
            merged[path.tokens] = path
        self._paths = list(merged.values())

    def _extended(self, path: Path, token: int, score: float, log_prob: float) -> Path:
        if token in self._model.silent:
            return replace(path, score=score)
        place = path.place
        if self._beam.hotwords and place:
            worth, place = self._beam.hotwords.step(place, token)
            score += worth
        return Path(
            (*path.tokens, token),
            score,
            (*path.frames, self.found.heard),
            (*path.log_probs, log_prob),
            place,
        )

    def _decode(self) -> None:
        """Run the decoder over the contexts that are new."""
        contexts = {path.tokens[-self._lead :] for path in self._paths}
        new = [each for each in contexts if each not in self._said]
        if not new:
            return
        if len(self._said) > REMEMBERED_MOST:
            self._said.clear()
            new = list(contexts)
        model = self._model
        feed = {model.decoder_input: np.array(new, np.int64)}
        (said,) = model.decoder.run([model.decoder_output], feed)
        self._said.update(zip(new, said, strict=True))
