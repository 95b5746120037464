"""Several hypotheses of the published Moonshine at once: a token more for each in one call.

In: the encoder's output, and how the hypotheses grow. Out: the log-probabilities of what comes
next. The published decoder wants the encoder's keys and values once for each hypothesis. Runs on
the thread that uses the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.moonshine_tokens import SILENCE_SAMPLES, TOKEN_END, TOKEN_START

if TYPE_CHECKING:
    from harkd.recognizer.moonshine import Moonshine

Float32 = NDArray[np.float32]


class MoonshineContinuations:
    """The hypotheses and their caches.

    Args:
        model: The loaded model.
        heard: float32, shape (1, frames, width), from its encoder, and the audio's samples.
        begun: Log-probabilities of the first token, (1, tokens), and the caches behind it.
    """

    most_tokens = 64

    def __init__(
        self,
        model: Moonshine,
        heard: tuple[Float32, int],
        begun: tuple[Float32, dict[str, Float32]],
    ) -> None:
        self._model = model
        self._heard = heard
        self._first, self._caches = begun[0], dict(begun[1])

    def begin(self) -> Float32:
        """Return the log-probabilities of the first token: (1, tokens)."""
        return self._first

    def advance(self, parents: list[int], tokens: list[int]) -> Float32:
        """Go on with some hypotheses, a token more for each; return (hypotheses, tokens)."""
        past = {
            # The encoder's are those of the first pass, alike for all.
            name: cache[parents if name in self._model.own_caches else [0] * len(parents)]
            for name, cache in self._caches.items()
        }
        return self._run(np.array(tokens, np.int64)[:, None], past)

    def _run(self, ids: NDArray[np.int64], past: dict[str, Float32]) -> Float32:
        """Return the log-probabilities after the ids, (n, 1)."""
        logits, caches = self._model.run_decoder(ids, self._heard, past)
        self._caches.update(caches)
        return log_softmax(logits[:, -1])


class MoonshineHeard:
    """What a stream has heard, for a `PhraseScorer`.

    Args:
        model: The loaded model.
        hidden: float32, shape (1, frames, width), from its encoder.
        samples: Length of the audio in samples.
    """

    def __init__(self, model: Moonshine, hidden: Float32, samples: int) -> None:
        self._model = model
        self._heard = hidden, samples
        self._begun: tuple[Float32, dict[str, Float32]] | None = None

    def continuations(self, paths: int) -> MoonshineContinuations:  # noqa: ARG002
        """Return a decoder for any number of hypotheses."""
        return MoonshineContinuations(self._model, self._heard, self.begun())

    def begun(self) -> tuple[Float32, dict[str, Float32]]:
        """Return the log-probabilities of the first token, (1, tokens), and the caches behind it.

        The decoder makes the encoder's keys and values in its first pass, which takes longest.
        """
        if self._begun is None:
            ids = np.array([[TOKEN_START]], np.int64)
            logits, caches = self._model.run_decoder(ids, self._heard, None)
            self._begun = log_softmax(logits[0]), caches
        return self._begun

    def rows(self, tokens: tuple[int, ...]) -> Float32:
        """Return the log-probabilities at each of some tokens, by themselves, and after them."""
        first, caches = self.begun()
        if not tokens:
            return first
        logits, _ = self._model.run_decoder(np.array([tokens], np.int64), self._heard, caches)
        return np.concatenate([first, log_softmax(logits[0])])

    def silence(self, tokens: tuple[int, ...]) -> float:
        """Return the log-probability of tokens and the end where nothing is heard."""
        return self._model.silence.log_prob(tokens)


class MoonshineSilence:
    """Texts where nothing is heard.

    Args:
        model: The loaded model.
    """

    def __init__(self, model: Moonshine) -> None:
        self._model = model
        self._heard: MoonshineHeard | None = None

    def log_prob(self, tokens: tuple[int, ...]) -> float:
        """Return the log-probability of tokens and the end."""
        if self._heard is None:
            hidden = self._model.encode(np.zeros(SILENCE_SAMPLES, np.float32))
            self._heard = MoonshineHeard(self._model, hidden, SILENCE_SAMPLES)
        rows = self._heard.rows(tokens)
        return float(rows[range(len(tokens) + 1), [*tokens, TOKEN_END]].sum())


def log_softmax(logits: Float32) -> Float32:
    """Return log-probabilities: float32, shape (n, tokens), as the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs: Float32 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs
