"""Recognition of one segment with a lean Moonshine's decoder, however its audio is encoded.

In: int16 audio in pieces of any length. Out: `Hypothesis`. What was recognized last is a draft that
is verified; a partial verifies its end alone. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import RecognitionError
from harkd.recognizer.encoding import Encoding
from harkd.recognizer.hotword_rescoring import (
    Replacement,
    Variants,
    winners,
    with_winners,
)
from harkd.recognizer.lean_continuations import LeanHeard, SpareContinuations
from harkd.recognizer.lean_decoder import DecoderState, LeanDecoder
from harkd.recognizer.lean_encoder import FRAME_SAMPLES
from harkd.recognizer.moonshine_tokens import STEM_SAMPLES, Decoded, Tokenizer, hypothesis_of
from harkd.recognizer.onnx import failed, give_back_after
from harkd.recognizer.phrase_scorer import PhraseScorer, PhraseScores
from harkd.recognizer.protocol import Effort, Hypothesis, Work
from harkd.recognizer.second_hearing import heard_again, in_doubt

UNSETTLED_TOKENS = 3
"""A partial verifies at least so many of the last tokens on which two hypotheses agreed."""
UNSETTLED_FINAL_TOKENS = 8
"""And so does a final, where what was encoded before is as it was; else it verifies all."""

NEW_TOKENS_MORE = 1
"""A partial has so many more new tokens at most than its new audio can hold: the last one's end may
have been heard anew."""


class LeanModel(Protocol):
    """What a stream needs of its model."""

    name: str
    effort: Effort
    work: Work
    tokenizer: Tokenizer
    closing: frozenset[int]
    """Tokens that end a sentence"""
    doubted: float
    """Where the mean log-probability of its least likely tokens is below, a final is heard again"""
    decoder: LeanDecoder
    spare: list[DecoderState]
    most_frames: int
    """The longest audio that the graphs take"""
    max_segment_s: float

    @property
    def continuations(self) -> SpareContinuations:
        """Several hypotheses at once, of searches for phrases."""

    def cache(self) -> DecoderState:
        """Return one that no stream uses."""

    def most_tokens(self, samples: int) -> int:
        """Return the most tokens that so much audio can hold."""


class LeanStream:
    """One segment.

    Args:
        model: The loaded model.
        begin: Makes an encoding that has heard nothing, with room for so many seconds.
        variants: Of hotwords; None where there are none.
    """

    def __init__(
        self,
        model: LeanModel,
        begin: Callable[[float], Encoding],
        variants: Variants | None = None,
    ) -> None:
        self._model = model
        self._begin = begin
        self._variants = variants
        self._won: list[Replacement] = []
        self._encoder = begin(FIRST_ROOM_S)
        self._pieces: list[NDArray[np.int16]] = []
        self._decoder: DecoderState | None = None
        self._latest = Decoded()
        self._before = Decoded()
        self._rough: Hypothesis | None = None
        self._exact: Hypothesis | None = None
        self._said = NOTHING  # the last of the two
        self._decoded = Decoded()  # what that is made of
        self._heard = 0  # and what of the audio was in it
        self._decoded_to = 0  # samples of which the latest was made

    def accept(self, samples: NDArray[np.int16]) -> None:
        """Take the next audio: int16, shape (n,), 16 kHz mono."""
        if len(samples):
            self._pieces.append(samples)
            self._rough = self._exact = None

    def hypothesis(self) -> Hypothesis:
        """Recognize the audio so far, roughly.

        Tokens on which two hypotheses agreed are taken over; a new full stop is taken for the end,
        and so is the place before a new token that is unlikely.
        """
        if self._rough is None:
            self._rough = self._recognize(exact=False)
        return self._rough

    def prepare(self) -> Hypothesis:
        """Recognize the audio so far; tokens are verified, but those that nothing can change."""
        if self._exact is None:
            self._exact = self._rough = self._recognize(exact=True)
        return self._exact

    def finish(self) -> Hypothesis:
        """Return the same as `prepare`, and let another segment have the cache."""
        hypothesis = self.prepare()
        if self._decoder:
            self._decoder.let_go()
            self._model.spare.append(self._decoder)
            self._decoder = None
            self._before = self._latest = Decoded()
        return hypothesis

    def phrases(self, scorer: PhraseScorer) -> PhraseScores:
        """Return which phrases explain the audio so far; before or after `finish`.

        Raises:
            RecognitionError: The model failed on this audio.
        """
        self.prepare()
        open_text = self._decoded.open_text(self._model.tokenizer)
        if not self._encoder.frames:
            return PhraseScores(open_text)
        heard = LeanHeard(self._model.continuations, self._encoder.cross())
        try:
            scores = scorer.score(open_text, heard)
        except Exception as error:
            raise failed(self._model.name, self._encoder.samples, error) from error
        finally:
            heard.let_go()
        self._model.work.add(Work(decoder_passes=scores.passes, decoder_rows=scores.rows))
        return scores

    def restart(self) -> None:
        """Forget all audio; the draft stays, and is verified as a whole."""
        self._encoder = self._begin(FIRST_ROOM_S)
        self._before = Decoded()  # so that nothing of the draft counts as agreed on
        self._pieces.clear()
        self._rough = self._exact = None
        self._said, self._heard, self._decoded_to = NOTHING, 0, 0

    def _recognize(self, *, exact: bool) -> Hypothesis:
        samples = self._encoder.samples + sum(map(len, self._pieces))
        if not samples:
            return NOTHING
        if samples > self._model.most_frames * FRAME_SAMPLES:
            raise RecognitionError(
                f"{self._model.name} takes no segment of {samples / RATE_HZ:.0f} s",
                f"set endpoint.max_utterance_s to {self._model.max_segment_s:g} at most",
            )
        try:
            decoded = self._decode(samples, exact=exact)
            if decoded is None:
                return self._said
            if self._variants:
                decoded = self._with_hotwords(decoded, self._variants, search=exact)
            self._decoded = decoded
            self._said = hypothesis_of(decoded, self._model.tokenizer)
            return self._said
        except Exception as error:
            # The cache may hold other tokens than these now.
            self._before = self._latest = Decoded()
            self._heard = -1
            raise failed(self._model.name, samples, error) from error

    def _decode(self, samples: int, *, exact: bool) -> Decoded | None:
        """Encode and decode; None where there is no more to hear than before."""
        effort = self._model.effort
        encoder = self._fed(samples)
        encoded = encoder.encode(exact=exact, incremental=effort.incremental)
        if not exact and encoded.heard == self._heard:
            return None
        decoder = self._decoder = self._decoder or self._model.cache()
        draft = self._latest if effort.draft else Decoded()
        most = self._model.most_tokens(samples)
        decoder.attend_to(encoder.cross())
        if exact:
            watch = self._variants.tokens if self._variants else None
            known = 0 if encoded.anew or watch is not None else self._agreed()
            trusted = max(0, known - UNSETTLED_FINAL_TOKENS)
            decoded = decoder.decode(draft, most, trusted=trusted, watch=watch)
            if in_doubt(decoded, self._model.doubted):
                decoded, work = heard_again(encoder, decoder, decoded, most, watch)
                self._model.work.add(work)
        elif not effort.draft:
            decoded = decoder.decode(draft, most, unsure=effort.unsure)
        else:
            trusted = 0 if encoded.anew else max(0, self._agreed() - UNSETTLED_TOKENS)
            new = self._model.most_tokens(max(0, samples - self._decoded_to)) + NEW_TOKENS_MORE
            decoded = decoder.decode(
                draft,
                most,
                trusted=trusted,
                closing=self._model.closing,
                unsure=effort.unsure,
                most_new=new,
            )
        self._before, self._latest = self._latest, decoded
        self._heard, self._decoded_to = encoded.heard, samples
        self._model.work.add(decoded.work(encoded.encoded_s, encoded.passes))
        give_back_after(encoded.encoded_s)
        return decoded

    def _with_hotwords(self, plain: Decoded, variants: Variants, *, search: bool) -> Decoded:
        """Return what was heard with the hotwords that win, or have won where it was the same."""
        if search and self._decoder and plain.ended and plain.tokens:
            decoder, tokenizer = self._decoder, self._model.tokenizer
            begins = [*map(tokenizer.begins, plain.tokens), True]

            def ask(place: int, others: Sequence[int]) -> NDArray[np.float32]:
                self._model.work.add(Work(decoder_passes=1, decoder_rows=1 + len(others)))
                return decoder.ask(plain.tokens[:place], others)

            self._won = winners(plain, variants, begins, ask, self._model.decoder.capacity - 1)
        return with_winners(plain, self._won)

    def _fed(self, samples: int) -> Encoding:
        """Return the encoding after all audio; for less than a frame, one that is padded."""
        audio = np.concatenate(self._pieces) if self._pieces else np.empty(0, np.int16)
        scaled = audio.astype(np.float32) / np.float32(32768)
        if samples < STEM_SAMPLES:
            # What is heard so far stays in the pieces: more may come in the padding's place.
            padded = self._begin(0.0)
            padded.accept(np.pad(scaled, (0, STEM_SAMPLES - samples)))
            return padded
        self._encoder.accept(scaled)
        self._pieces.clear()
        return self._encoder

    def _agreed(self) -> int:
        """Return how many leading tokens the last two hypotheses have in common.

        0 where the last one did not end: to trust in a loop would be to stay in it.
        """
        if not self._latest.ended or not self._model.effort.draft:
            return 0
        pairs = list(zip(self._before.tokens, self._latest.tokens, strict=False))
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


FIRST_ROOM_S = 6.0
"""Room for so much audio is made at once."""
NOTHING = Hypothesis("", 0.0)
