"""Recognition of one segment with a streaming encoder, whatever searches its output.

In: int16 audio in pieces of any length. Out: `Hypothesis`. A chunk is encoded once, when its window
is complete; how the audio came makes no difference. Before a final, silence is heard after the
audio, beside the stream: until all of the audio has been encoded, and then until nothing was said
for `LATE_S`. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.chunk_encoder import ChunkEncoder, EncoderState
from harkd.recognizer.chunk_model import ChunkModel
from harkd.recognizer.fbank import Fbank
from harkd.recognizer.onnx import failed
from harkd.recognizer.phrase_scorer import OpenText, PhraseScorer, PhraseScores
from harkd.recognizer.protocol import Hypothesis, Work
from harkd.recognizer.search import Found, Search

LATE_S = 0.48
"""A streaming model may say a token so long after its sound. That silence is no constant, but one
for each chunk length, others learned from words cut off (OHF-Voice/wyoming-faster-whisper#125)."""
SILENCE_MOST_S = 1.5
"""Silence beyond what the last audio needs ends here, also if the model goes on talking."""


class ChunkStream:
    """One segment.

    Args:
        model: The loaded model.
        begin: Makes a search that has found nothing.
    """

    def __init__(self, model: ChunkModel, begin: Callable[[], Search]) -> None:
        self._model = model
        self._new_search = begin
        self._state: EncoderState | None = take_state(model)
        self._state.clear()
        self._rough: Hypothesis | None = None
        self._exact: Hypothesis | None = None
        self._begin()

    def accept(self, samples: NDArray[np.int16]) -> None:
        """Take the next audio: int16, shape (n,), 16 kHz mono."""
        if len(samples):
            self._fbank.accept(samples)
            self._rough = None
            self._exact = None

    def hypothesis(self) -> Hypothesis:
        """Recognize the chunks that are complete."""
        if self._rough is None:
            try:
                self._catch_up()
            except Exception as error:
                raise failed(self._model.name, self._fbank.samples, error) from error
            self._rough = self._heard(self._search)
        return self._rough

    def prepare(self) -> Hypothesis:
        """Recognize all audio, as if silence followed; it may yet be followed by more."""
        if self._exact is None:
            try:
                self._catch_up()
                self._whole = self._silence_after()
                self._exact = self._rough = self._heard(self._whole)
            except Exception as error:
                raise failed(self._model.name, self._fbank.samples, error) from error
        return self._exact

    def finish(self) -> Hypothesis:
        """Return the same as `prepare`, and let another segment have the buffers."""
        hypothesis = self.prepare()
        if self._state:
            self._model.spare.append(self._state)
            self._state = None
        return hypothesis

    def phrases(self, scorer: PhraseScorer) -> PhraseScores:
        """Return which phrases explain the audio so far; before or after `finish`.

        Raises:
            RecognitionError: The model failed on this audio.
        """
        heard = self.prepare()
        open_text = OpenText(heard.text, heard.tokens, float(sum(heard.log_probs)))
        try:
            return self._model.score(scorer, open_text, self._whole)
        except Exception as error:
            raise failed(self._model.name, self._fbank.samples, error) from error

    def restart(self) -> None:
        """Forget all audio."""
        self._state = self._state or take_state(self._model)
        self._state.clear()
        self._begin()

    @property
    def caught_up(self) -> bool:
        """Whether every chunk that is complete has been encoded."""
        layout = self._model.encoder.layout
        return (
            self._state is None
            or self._state.steps * layout.shift_frames + layout.chunk_frames > self._fbank.ready
        )

    def _begin(self) -> None:
        self._fbank = Fbank(self._model.encoder.layout.features)
        self._search = self._new_search()
        self._whole = self._search
        """… with the silence behind it"""
        self._rough = None
        self._exact = None

    def _catch_up(self) -> None:
        """Encode and search every chunk whose window is complete."""
        state = self._state
        if state is None:
            return
        begin, before = state.steps, self._search.found.copy()
        while self._next_chunk():
            self._search.advance(state.step())
        self._count(state.steps - begin, self._search.found, before)

    def _next_chunk(self) -> EncoderState | None:
        """Put the next chunk's features in place if its window is complete."""
        state, layout = self._state, self._model.encoder.layout
        if state is None or self.caught_up:
            return None
        first = state.steps * layout.shift_frames
        self._fbank.take(first, layout.chunk_frames, state.features)
        return state

    def _silence_after(self) -> Search:
        """Return the search over all audio and the silence after it; the stream stays as it is."""
        if self._state is None or not self._fbank.samples:
            return self._search
        encoder, fbank = self._model.encoder, self._fbank
        layout, search = encoder.layout, self._search.branch()
        first = self._state.steps * layout.shift_frames
        most = self._state.steps + steps_after(encoder, fbank.begun - first)
        state = take_state(self._model)
        state.follow(self._state)
        frames = (most - state.steps) * layout.shift_frames + layout.chunk_frames
        silence = fbank.followed_by_silence(first, frames)
        while state.steps < most:
            needed = state.steps * layout.shift_frames < fbank.begun
            if not needed and search.found.quiet * encoder.frame_s >= LATE_S:
                break
            at = state.steps * layout.shift_frames - first
            state.features[:] = silence[at : at + layout.chunk_frames]
            search.advance(state.step())
        self._count(state.steps - self._state.steps, search.found, self._search.found)
        self._model.spare.append(state)
        return search

    def _heard(self, search: Search) -> Hypothesis:
        found, symbols = search.found, self._model.symbols
        if not found.tokens:
            return Hypothesis("", 0.0)
        token_s = self._model.encoder.frame_s
        return Hypothesis(
            text=symbols.text(found.tokens),
            confidence=float(np.exp(np.mean(found.log_probs))),
            tokens=tuple(found.tokens),
            words=tuple(
                symbols.words(found.tokens, [at * token_s for at in found.frames], token_s)
            ),
            log_probs=tuple(found.log_probs),
        )

    def _count(self, steps: int, found: Found, before: Found) -> None:
        """Count what some steps have cost, and what they have found."""
        self._model.work.add(
            Work(
                steps,
                steps * self._model.encoder.chunk_s,
                found.passes - before.passes,
                found.rows - before.rows,
                max(0, len(found.tokens) - len(before.tokens)),
            )
        )


def catch_up_together(streams: Sequence[ChunkStream], most: int) -> None:
    """Encode what is complete in several streams of one model, a chunk of each in one call.

    What the streams say afterwards is what each would have said by itself, but for rounding: their
    `hypothesis` has nothing left to encode. For a host with many microphones; no stream may be in
    use by another thread meanwhile.

    Args:
        streams: Any number, none of them twice; of a model that takes one at a time, each goes
            alone.
        most: So many go into one call.

    Raises:
        RecognitionError: The model failed.
    """
    waiting = [stream for stream in streams if not stream.caught_up]
    try:
        while waiting:
            model = waiting[0]._model
            group = waiting[: most if model.encoder.takes_many else 1]
            ready = [(each, state) for each in group if (state := each._next_chunk())]
            EncoderState.step_together([state for _, state in ready])
            for each, state in ready:
                before = each._search.found.copy()
                each._search.advance(state.output)
                each._count(1, each._search.found, before)
            # Round about, so that none runs ahead of the others.
            waiting = [each for each in [*waiting[len(group) :], *group] if not each.caught_up]
    except Exception as error:
        samples = max(each._fbank.samples for each in waiting)
        raise failed(waiting[0]._model.name, samples, error) from error


def take_state(model: ChunkModel) -> EncoderState:
    """Return a state that no stream uses, of whatever was heard before. Any thread."""
    try:
        return model.spare.pop()
    except IndexError:
        return model.encoder.state()


def steps_after(encoder: ChunkEncoder, frames: int) -> int:
    """Return the most chunks for so many frames of audio and the silence after them."""
    shift = encoder.layout.shift_frames
    silence = round(SILENCE_MOST_S / encoder.chunk_s) or 1
    return -(-max(0, frames) // shift) + silence
