"""A final in doubt is heard both ways, in chunks and at once: of two texts the likelier counts.

In: a hypothesis of an encoder that can hear a chunk at a time. Out: that one or another. A loop, a
word that was left out, and a word that needs what comes long after it are what chunks cost, and
the decoder is mostly unsure where they happen; as it is where the whole leads it astray. Runs on
the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.encoding import Encoding
from harkd.recognizer.lean_decoder import DecoderState
from harkd.recognizer.moonshine_tokens import Decoded
from harkd.recognizer.onnx import give_back_after
from harkd.recognizer.protocol import NEVER_UNSURE, Work

DOUBTED_TOKENS = 3
"""A hypothesis is as doubtful as so many of its tokens that are the least likely."""
PHRASE_TOKENS = 4
"""Fewer are often said twice."""


def in_doubt(decoded: Decoded, below: float) -> bool:
    """Tell whether to hear again.

    Args:
        decoded: A final's hypothesis.
        below: It is in doubt if the mean log-probability of its least likely tokens is less, if
            it says a phrase twice, or if it never came to an end; `NEVER_UNSURE` doubts nothing.
    """
    if below == NEVER_UNSURE or not decoded.log_probs:
        return False
    least = sorted(decoded.log_probs)[:DOUBTED_TOKENS]
    if not decoded.ended or float(np.mean(least)) < below:
        return True
    return said_twice(decoded.tokens) > 0


def heard_again(
    encoding: Encoding,
    decoder: DecoderState,
    first: Decoded,
    most: int,
    watch: NDArray[np.int64] | None = None,
) -> tuple[Decoded, Work]:
    """Hear all audio the other way, and return the likelier hypothesis.

    One that came to an end beats one that did not, and one that says less twice the other: who
    really says a phrase twice is heard so as a whole, too. What the encoding gives from then on is
    what the hypothesis was decoded of.

    Args:
        encoding: Of all audio.
        decoder: That the first hypothesis was made with.
        first: That hypothesis; the draft of the second.
        most: The most tokens.
        watch: As in `DecoderState.decode`.

    Returns:
        A hypothesis, and what was computed besides that hypothesis' own passes.
    """
    encoded = encoding.listen_again()
    if encoded is None:
        return first, Work()
    decoder.attend_to(encoding.cross())
    second = decoder.decode(first, most, watch=watch)
    give_back_after(encoded.encoded_s)
    better = _rank(second) >= _rank(first)
    lost = first if better else second
    work = Work(encoded.passes, encoded.encoded_s, lost.passes, lost.rows)
    if better:
        return second, work
    encoding.listen_on()
    decoder.attend_to(encoding.cross())
    decoder.intact = 0  # what is in its cache was heard otherwise
    return first, work


def said_twice(tokens: Sequence[int]) -> int:
    """Return how many phrases of `PHRASE_TOKENS` tokens were said before, word for word."""
    known, twice = set[tuple[int, ...]](), 0
    for at in range(len(tokens) - PHRASE_TOKENS + 1):
        phrase = tuple(tokens[at : at + PHRASE_TOKENS])
        twice += phrase in known
        known.add(phrase)
    return twice


def _rank(decoded: Decoded) -> tuple[bool, int, float]:
    return decoded.ended, -said_twice(decoded.tokens), _likelihood(decoded)


def _likelihood(decoded: Decoded) -> float:
    """Return the mean log-probability of the tokens."""
    return float(np.mean(decoded.log_probs)) if decoded.log_probs else NEVER_UNSURE
