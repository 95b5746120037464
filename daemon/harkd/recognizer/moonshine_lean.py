"""Moonshine as `harkd-convert` makes it: the same weights in leaner graphs, run incrementally.

In: a model package of the family ``moonshine-lean`` (stem, encoder, decoder, tokenizer). Out:
`Hypothesis`. A partial costs the new audio, about a second before it, and the tokens that changed;
see docs/architecture.md. Runs on the thread that uses the stream.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import ModelDamagedError, ModelError
from harkd.hotword_list import Hotwords
from harkd.model_package import Manifest
from harkd.recognizer.encoding import Encoded, Encoding
from harkd.recognizer.hotword_rescoring import Variants, variants_of
from harkd.recognizer.lean_continuations import SpareContinuations
from harkd.recognizer.lean_decoder import DecoderState, LeanDecoder
from harkd.recognizer.lean_encoder import (
    FRAME_SAMPLES,
    LOOK_AHEAD_FRAMES,
    EncoderState,
    LeanEncoder,
)
from harkd.recognizer.lean_stream import LeanStream
from harkd.recognizer.moonshine_tokens import SILENCE_SAMPLES, TOKEN_END, Tokenizer
from harkd.recognizer.onnx import fetch_anew, give_back_memory, paths_of
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.placement import Placement
from harkd.recognizer.protocol import EVERYTHING, NEVER_UNSURE, Effort, Work

ROLES = ("stem", "encoder", "decoder", "tokenizer")
TOKENS_MOST = 1_000_000
"""For a manifest that sets no limit; the decoder has its own."""


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
        self.doubted = NEVER_UNSURE
        self.tokens_per_s = manifest.limits.max_tokens_per_s
        self.placement = Placement(device)
        """Where its sessions are"""
        try:
            self.encoder = LeanEncoder(paths["stem"], paths["encoder"], threads, self.placement)
            self.most_frames = self.encoder.most_frames
            most_s = self.most_frames * FRAME_SAMPLES / RATE_HZ
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

    def begin(self, capacity_s: float) -> Encoding:
        """Begin to encode a segment, with room for so many seconds."""
        return WholeEncoding(self.encoder, capacity_s)

    def stream(self, hotwords: Hotwords = ()) -> LeanStream:
        """Begin a segment."""
        if not hotwords:
            return LeanStream(self, self.begin)
        with self._hotwords_lock:
            if not self.decoder.scores:
                # Costs a moment, once, and only who has hotwords pays for it.
                self.decoder = self._open_decoder(scored=True)
                self.spare.clear()
            if hotwords not in self._variants:
                self._variants = {hotwords: variants_of(hotwords, self.tokenizer)}
            return LeanStream(self, self.begin, self._variants[hotwords])

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
        encoding = self.begin(0.0)
        encoding.accept(np.zeros(SILENCE_SAMPLES, np.float32))
        encoding.encode(exact=True, incremental=False)
        return encoding.cross()

    def _open_decoder(self, *, scored: bool) -> LeanDecoder:
        most = self.most_tokens(int(self.max_segment_s * RATE_HZ)) + 1
        return LeanDecoder(
            self._decoder_path, self._threads, most, scored=scored, placement=self.placement
        )

    def most_tokens(self, samples: int) -> int:
        """Return the most tokens that so much audio can hold."""
        return int(min(samples / RATE_HZ * self.tokens_per_s, TOKENS_MOST)) + 2


class WholeEncoding:
    """An `Encoding` of frames that attend to all others, kept where they had enough behind them.

    Args:
        encoder: The graphs.
        capacity_s: Room for so many seconds at first.
    """

    def __init__(self, encoder: LeanEncoder, capacity_s: float) -> None:
        self._state = EncoderState(encoder, capacity_s)

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return self._state.samples

    @property
    def frames(self) -> int:
        """So many have been encoded."""
        return self._state.frames

    def accept(self, audio: NDArray[np.float32]) -> None:
        """Take the next audio: float32, shape (n,)."""
        self._state.accept(audio)

    def encode(self, *, exact: bool, incremental: bool) -> Encoded:
        """Encode what has come, and the frames that it changes; everything, if `exact`."""
        look_ahead = LOOK_AHEAD_FRAMES if incremental and not exact else None
        encoded_s = self._state.encode(look_ahead)
        return Encoded(1, encoded_s, self._state.samples, self._state.anew)

    def listen_again(self) -> None:
        """Do nothing: what was encoded for a final was encoded at once."""

    def listen_on(self) -> None:
        """Do nothing."""

    def cross(self) -> list[NDArray[Any]]:
        """Return the decoder's keys and values of all frames: each (1, heads, frames, head)."""
        return self._state.cross()
