"""What both Moonshine families share: tokens, a decoder's result, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harkd.errors import ModelDamagedError
from harkd.recognizer.onnx import fetch_anew
from harkd.recognizer.phrase_scorer import OpenText
from harkd.recognizer.protocol import Hypothesis, Work
from harkd.recognizer.spelling import merged, written

STEM_SAMPLES = 895
"""What a frame of the encoder sees; shorter audio is padded to it."""
TOKEN_START, TOKEN_END = 1, 2
SILENCE_SAMPLES = 24_000
"""1.5 s: the zeros that phrases are held against."""
SILENCES_MOST = 5000
"""Texts of which it is kept how likely they are where nothing is heard."""
BYTES = 3, 259
"""Tokens that stand for one byte each, of the first and after the last."""
LOOP_MOST_TOKENS = 10
LOOP_REPEATS = 4
REPEATED_LEAST = 3


class Tokenizer:
    """Token ids → text. The file is a list of byte strings, each after its length.

    A length below 128 is one byte; above, it is the first byte less 128 plus 128 times the next.
    """

    SPACE = "▁"

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelDamagedError(
                f"{path} cannot be read ({error.strerror})",
                "`harkd models verify` checks the model's files",
            ) from error
        self._tokens: list[bytes] = []
        at = 0
        while at < len(data):
            length = data[at]
            at += 1
            if length >= 128:
                length += 128 * ((data[at] if at < len(data) else 0) - 1)
                at += 1
            self._tokens.append(data[at : at + length])
            at += length
        if at != len(data) or len(self._tokens) <= TOKEN_END:
            raise ModelDamagedError(
                f"{path} is no tokenizer, or is cut off after {len(self._tokens)} tokens",
                fetch_anew(path),
            )

        self._ids = {
            token: i for i, token in enumerate(self._tokens) if i >= BYTES[1] or i < BYTES[0]
        }

    def __len__(self) -> int:
        return len(self._tokens)

    def ids_of(self, *texts: str) -> frozenset[int]:
        """Return all tokens that are written as one of these."""
        wanted = {text.encode() for text in texts}
        return frozenset(i for i, token in enumerate(self._tokens) if token in wanted)

    def texts(self) -> list[str | None]:
        """Return each token's text by its id; None for marks and for parts of characters."""
        return [self._plain(token) for token in self._tokens]

    def _plain(self, token: bytes) -> str | None:
        if len(token) > 2 and token[:1] == b"<" and token[-1:] == b">":
            return None
        try:
            return token.decode().replace(self.SPACE, " ")
        except UnicodeDecodeError:
            return None

    def begins(self, token: int) -> bool:
        """Tell whether a token begins a word, or is a mark between words."""
        said = self._tokens[token].decode("utf-8", "replace")
        return not said[:1].isalnum()

    def spelled(self, phrase: str) -> list[int]:
        """Return the tokens that the model writes a phrase with."""
        return merged(written(phrase), self._ids, range(*BYTES))

    def text(self, tokens: list[int]) -> str:
        """Return the tokens as text; bytes that are no UTF-8 become U+FFFD."""
        joined = b"".join(self._tokens[token] for token in tokens)
        return joined.decode("utf-8", "replace").replace(self.SPACE, " ").strip()


class Silence:
    """How likely texts are where nothing is heard, by tokens; each is asked for once.

    Args:
        log_prob: Returns it for tokens and the end.
    """

    def __init__(self, log_prob: Callable[[tuple[int, ...]], float]) -> None:
        self._log_prob = log_prob
        self._known: dict[tuple[int, ...], float] = {}

    def log_prob(self, tokens: tuple[int, ...]) -> float:
        """Return the log-probability of tokens and the end."""
        if tokens not in self._known:
            if len(self._known) >= SILENCES_MOST:
                self._known.clear()
            self._known[tokens] = self._log_prob(tokens)
        return self._known[tokens]


@dataclass(slots=True)
class Decoded:
    """A decoder's result."""

    tokens: list[int] = field(default_factory=list)
    """Without the marks of begin and end."""
    log_probs: list[float] = field(default_factory=list)
    """Of each token, and of the end where it was reached."""
    ended: bool = False
    """False where the limit stopped it."""
    cut_short: bool = False
    """Whether it ended before a token that was unlikely, or with too many that were new."""
    passes: int = 0
    """Calls of the decoder that it took."""
    rows: int = 0
    """Token positions computed in them."""
    watched: list[NDArray[np.float32]] = field(default_factory=list)
    """Where that was asked for: log-probabilities of some tokens in the place of each, and of the
    end where it was reached."""

    def open_text(self, tokenizer: Tokenizer) -> OpenText:
        """Return what phrases are held against."""
        text = tokenizer.text(self.tokens)
        return OpenText(text, tuple(self.tokens), float(sum(self.log_probs)))

    def work(self, encoded_s: float, encoder_passes: int = 1) -> Work:
        """Return what the hypothesis cost, with the encoder's passes over so many seconds."""
        return Work(encoder_passes, encoded_s, self.passes, self.rows, len(self.tokens))


def hypothesis_of(decoded: Decoded, tokenizer: Tokenizer) -> Hypothesis:
    """Return what the decoder's result says."""
    text = tokenizer.text(decoded.tokens)
    if decoded.cut_short:
        text = text.rstrip("\ufffd").rstrip()  # the first bytes of a character
    return Hypothesis(
        text=text,
        confidence=float(np.exp(np.mean(decoded.log_probs))) if decoded.tokens else 0.0,
        tokens=tuple(decoded.tokens),
        looped=not decoded.ended and ends_in_loop(decoded.tokens),
        log_probs=tuple(decoded.log_probs),
    )


def repeated_at_end(tokens: Sequence[int]) -> int:
    """Return how many tokens at the end only repeat those before them: a phrase, once or more.

    Of `a b c a b c a b` these are the last five. 0 where fewer than `REPEATED_LEAST` do.
    """
    alike = [(length, _alike(tokens, length)) for length in range(1, LOOP_MOST_TOKENS + 1)]
    return max((n for length, n in alike if n >= max(length, REPEATED_LEAST)), default=0)


def ends_in_loop(tokens: list[int]) -> bool:
    """Tell whether the tokens end in one phrase, said `LOOP_REPEATS` times or more."""
    lengths = range(1, LOOP_MOST_TOKENS + 1)
    return any(_alike(tokens, each) >= each * (LOOP_REPEATS - 1) for each in lengths)


def _alike(tokens: Sequence[int], length: int) -> int:
    """Return how many tokens at the end are each the same as the one `length` before it."""
    pairs = zip(reversed(tokens), reversed(tokens[:-length]), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), max(0, len(tokens) - length))
