"""How likely phrases are under CTC: all of some at once, over what the encoder said of a segment.

In: log-probabilities of each frame, and the tokens of phrases. Out: the log-probability of each,
over all ways to spread its tokens over the frames (Graves and others, "Connectionist temporal
classification", 2006). Runs on the thread that uses the stream.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.search import Found, Search, log_softmax

NEVER = -1e9

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class KeepingCtc:
    """A search that keeps what it goes over.

    Args:
        search: The search.
        outputs: What it went over before.
    """

    def __init__(self, search: Search, outputs: Sequence[Float32] = ()) -> None:
        self._search = search
        self.outputs = list(outputs)
        """Of the encoder: each float32, shape (frames, tokens)"""

    @property
    def found(self) -> Found:
        """The best so far."""
        return self._search.found

    def advance(self, output: Float32) -> None:
        """Go on over an encoder's output: float32, shape (frames, tokens)."""
        self._search.advance(output)
        self.outputs.append(output.copy())  # the encoder writes the next one there

    def branch(self) -> KeepingCtc:
        """Return a search that goes on from here by itself."""
        return KeepingCtc(self._search.branch(), self.outputs)


class CtcJudge:
    """Tells how likely texts are.

    Args:
        outputs: Of the encoder, logits or log-probabilities: each float32, shape (frames, tokens).
        blank: The blank's id.
    """

    def __init__(self, outputs: Sequence[Float32], blank: int) -> None:
        self._frames = log_softmax(np.concatenate(outputs)).astype(np.float64)
        self._blank = blank

    def silence(self, tokens: tuple[int, ...]) -> float:  # noqa: ARG002
        """Return the log-probability that nothing was said."""
        return float(self._frames[:, self._blank].sum())

    def log_probs(self, texts: Sequence[tuple[int, ...]]) -> list[float]:
        """Return the log-probability of each text; `NEVER` or less where it has too many tokens."""
        most = max(map(len, texts))
        states = np.full((len(texts), 2 * most + 1), self._blank)
        skips = np.full(states.shape, NEVER)
        for row, text in enumerate(texts):
            states[row, 1 : 2 * len(text) : 2] = text
            # From token to token without a blank, where they are not the same.
            same = [after == before for before, after in itertools.pairwise(text)]
            skips[row, 3 : 2 * len(text) : 2] = np.where(same, NEVER, 0.0)
        at: Float64 = np.full(states.shape, NEVER)
        at[:, 0] = 0.0  # before the first frame, as if there was a blank
        at = self._step(at, states, skips, 0)
        for frame in range(1, len(self._frames)):
            at = self._step(at, states, skips, frame)
        ends = np.array([2 * len(text) for text in texts])
        rows = np.arange(len(texts))
        said = np.where(ends > 0, at[rows, ends - 1], NEVER)
        found: list[float] = np.logaddexp(at[rows, ends], said).tolist()
        return found

    def _step(self, at: Float64, states: NDArray[np.int64], skips: Float64, frame: int) -> Float64:
        """Go on over a frame: float64, shape (texts, states)."""
        after = at.copy()
        after[:, 1:] = np.logaddexp(after[:, 1:], at[:, :-1])
        after[:, 2:] = np.logaddexp(after[:, 2:], at[:, :-2] + skips[:, 2:])
        moved: Float64 = np.maximum(after + self._frames[frame][states], 2 * NEVER)
        return moved
