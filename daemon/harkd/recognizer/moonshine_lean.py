"""Moonshine as `harkd-convert` makes it: the same weights in leaner graphs, run incrementally.

In: a model package of the family ``moonshine-lean`` (stem, encoder, decoder, tokenizer). Out:
`Hypothesis`. A partial costs the new audio, about a second before it, and the tokens that changed;
see docs/architecture.md. Runs on the thread that uses the stream.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import ModelDamagedError, ModelError, RecognitionError
from harkd.hotword_list import Hotwords
from harkd.model_package import Manifest
from harkd.recognizer.hotword_rescoring import (
    Replacement,
    Variants,
    variants_of,
    winners,
    with_winners,
)
from harkd.recognizer.lean_continuations import LeanHeard, SpareContinuations
from harkd.recognizer.lean_decoder import DecoderState, LeanDecoder
from harkd.recognizer.lean_encoder import (
    FRAME_SAMPLES,
    LOOK_AHEAD_FRAMES,
    EncoderState,
    LeanEncoder,
)
from harkd.recognizer.moonshine_tokens import (
    SILENCE_SAMPLES,
    STEM_SAMPLES,
    TOKEN_END,
    Decoded,
    Tokenizer,
    hypothesis_of,
)
from harkd.recognizer.onnx import (
    failed,
    fetch_anew,
    give_back_after,
    give_back_memory,
    paths_of,
)
from harkd.recognizer.phrase_scorer import PhraseScorer, PhraseScores
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.placement import Placement
from harkd.recognizer.protocol import EVERYTHING, Effort, Hypothesis, Work

ROLES = ("stem", "encoder", "decoder", "tokenizer")
FIRST_ROOM_S = 6.0
"""Room for so much audio is made at once."""
TOKENS_MOST = 1_000_000
"""For a manifest that sets no limit; the decoder has its own."""
UNSETTLED_TOKENS = 3
"""A partial verifies at least so many of the last tokens on which two hypotheses agreed."""


class MoonshineLean:
    """A loaded model.

    Args:
        folder: The package's directory.
        manifest: Its manifest.
        threads: Threads for each pass.
        effort: What it may leave out, all that it can if omitted.
        device: Where it is tried: ``cpu`` or ``cuda``.

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
        paths = paths_of(folder, manifest, ROLES)
        self.name = manifest.name
        self.language = manifest.languages[0]
        self.work = Work()
        self.effort = effort
        self.tokenizer = Tokenizer(paths["tokenizer"])
        self.closing = self.tokenizer.ids_of(".", "?", "!")
        self.tokens_per_s = manifest.limits.max_tokens_per_s
        self.placement = Placement(device)
        """Where its sessions are"""
        try:
            self.encoder = LeanEncoder(paths["stem"], paths["encoder"], threads, self.placement)
            most_s = self.encoder.most_frames * FRAME_SAMPLES / RATE_HZ
            self.max_segment_s = min(manifest.limits.max_segment_s, most_s)
            self._decoder_path, self._threads = paths["decoder"], threads
            self.decoder = self._open_decoder(scored=False)
        except (KeyError, ValueError, TypeError) as error:
            raise ModelDamagedError(
                f"{folder} holds graphs that are no lean Moonshine, or are in each other's place "
                f"(missing or wrong: {error})",
                "make the package again with this version's harkd-convert",
            ) from error
        if len(self.tokenizer) != self.decoder.tokens:
            raise ModelDamagedError(
                f"{paths['tokenizer']} has {len(self.tokenizer)} tokens, but the decoder "
                f"{self.decoder.tokens}: they are not from one model",
                fetch_anew(paths["tokenizer"]),
            )
        self.provider = self.placement.provider
        self.spare: list[DecoderState] = []
        """Caches that no stream uses now."""
        self._continuations: SpareContinuations | None = None
        self._hotwords_lock = threading.Lock()
        self._variants: dict[Hotwords, Variants] = {}

    def stream(self, hotwords: Hotwords = ()) -> MoonshineLeanStream:
        """Begin a segment."""
        if not hotwords:
            return MoonshineLeanStream(self)
        with self._hotwords_lock:
            if not self.decoder.scores:
                # Costs a moment, once, and only who has hotwords pays for it.
                self.decoder = self._open_decoder(scored=True)
                self.spare.clear()
            if hotwords not in self._variants:
                self._variants = {hotwords: variants_of(hotwords, self.tokenizer)}
            return MoonshineLeanStream(self, self._variants[hotwords])

    def rest(self) -> None:
        """Give back what the passes over a growing segment have left behind."""
        give_back_memory()

    def cache(self) -> DecoderState:
        """Return one that no stream uses. Any thread."""
        try:
            return self.spare.pop()
        except IndexError:
            return DecoderState(self.decoder)

    def vocabulary(self) -> Vocabulary:
        """Return the tokens by their letters, for a `PhraseScorer`.

        Raises:
            ModelError: The package's decoder takes one hypothesis at a time.
        """
        if not self.decoder.takes_several:
            raise ModelError(
                f"the package {self.name} is of an older version, and cannot score phrases",
                "make it again with this version's harkd-convert",
            )
        return Vocabulary(self.tokenizer.texts(), self.tokenizer.spelled, TOKEN_END)

    @property
    def continuations(self) -> SpareContinuations:
        """Several hypotheses at once, of searches for phrases."""
        if self._continuations is None:
            self._continuations = SpareContinuations(self.decoder, self.silence_cross)
        return self._continuations

    def silence_cross(self) -> list[NDArray[Any]]:
        """Return the decoder's keys and values where nothing is heard."""
        encoder = EncoderState(self.encoder, 0.0)
        encoder.accept(np.zeros(SILENCE_SAMPLES, np.float32))
        encoder.encode(None)
        return encoder.cross()

    def _open_decoder(self, *, scored: bool) -> LeanDecoder:
        most = self.most_tokens(int(self.max_segment_s * RATE_HZ)) + 1
        return LeanDecoder(
            self._decoder_path, self._threads, most, scored=scored, placement=self.placement
        )

    def most_tokens(self, samples: int) -> int:
        """Return the most tokens that so much audio can hold."""
        return int(min(samples / RATE_HZ * self.tokens_per_s, TOKENS_MOST)) + 2


class MoonshineLeanStream:
    """One segment."""

    def __init__(self, model: MoonshineLean, variants: Variants | None = None) -> None:
        self._model = model
        self._variants = variants
        self._won: list[Replacement] = []
        self._encoder = EncoderState(model.encoder, FIRST_ROOM_S)
        self._pieces: list[NDArray[np.int16]] = []
        self._decoder: DecoderState | None = None
        self._latest = Decoded()
        self._before = Decoded()
        self._rough: Hypothesis | None = None
        self._exact: Hypothesis | None = None
        self._decoded = Decoded()  # what the last of the two is made of

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
        """Recognize the audio so far; every token is verified."""
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
        self._encoder = EncoderState(self._model.encoder, FIRST_ROOM_S)
        self._pieces.clear()
        self._rough = self._exact = None

    def _recognize(self, *, exact: bool) -> Hypothesis:
        samples = self._encoder.samples + sum(map(len, self._pieces))
        if not samples:
            return Hypothesis("", 0.0)
        if samples > self._model.encoder.most_frames * FRAME_SAMPLES:
            raise RecognitionError(
                f"{self._model.name} takes no segment of {samples / RATE_HZ:.0f} s",
                f"set endpoint.max_utterance_s to {self._model.max_segment_s:g} at most",
            )
        try:
            decoded = self._decode(samples, exact=exact)
            if self._variants:
                decoded = self._with_hotwords(decoded, self._variants, search=exact)
            self._decoded = decoded
            return hypothesis_of(decoded, self._model.tokenizer)
        except Exception as error:
            # The cache may hold other tokens than these now.
            self._before = self._latest = Decoded()
            raise failed(self._model.name, samples, error) from error

    def _decode(self, samples: int, *, exact: bool) -> Decoded:
        effort = self._model.effort
        encoder = self._fed(samples)
        encoded_s = encoder.encode(LOOK_AHEAD_FRAMES if effort.incremental and not exact else None)
        decoder = self._decoder = self._decoder or self._model.cache()
        decoder.attend_to(encoder.cross())
        draft = self._latest if effort.draft else Decoded()
        most = self._model.most_tokens(samples)
        if exact:
            watch = self._variants.tokens if self._variants else None
            decoded = decoder.decode(draft, most, watch=watch)
        elif not effort.draft:
            decoded = decoder.decode(draft, most, unsure=effort.unsure)
        else:
            trusted = 0 if encoder.anew else max(0, self._agreed() - UNSETTLED_TOKENS)
            decoded = decoder.decode(
                draft, most, trusted=trusted, closing=self._model.closing, unsure=effort.unsure
            )
        self._before, self._latest = self._latest, decoded
        self._model.work.add(decoded.work(encoded_s))
        give_back_after(encoded_s)
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

    def _fed(self, samples: int) -> EncoderState:
        """Return the encoder's state after all audio; for less than a frame, one that is padded."""
        audio = np.concatenate(self._pieces) if self._pieces else np.empty(0, np.int16)
        scaled = audio.astype(np.float32) / np.float32(32768)
        if samples < STEM_SAMPLES:
            # What is heard so far stays in the pieces: more may come in the padding's place.
            padded = EncoderState(self._model.encoder, 0.0)
            padded.accept(np.pad(scaled, (0, STEM_SAMPLES - samples)))
            return padded
        self._encoder.accept(scaled)
        self._pieces.clear()
        return self._encoder

    def _agreed(self) -> int:
        """Return how many leading tokens the last two hypotheses have in common.

        0 where the last one did not end: to trust in a loop would be to stay in it.
        """
        if not self._latest.ended:
            return 0
        pairs = list(zip(self._before.tokens, self._latest.tokens, strict=False))
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
