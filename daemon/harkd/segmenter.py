"""Finds speech: webrtcvad on 20 ms frames, with hysteresis, as events by sample position.

In: 16 kHz mono int16 of any piece size. Out: `SpeechStarted`, `SpeechPaused`, `SpeechResumed`,
`CutAnnounced`, `SpeechEnded`. Decided on audio alone, never on the clock: any split of the same
audio into pieces gives the same events. Runs on the listening thread.

A frame is voiced or not. Speech starts when `vad.start_ms` of voiced frames lie close together;
it pauses after `endpoint.pause_ms` without two voiced frames in a row, and ends after
`endpoint.silence_ms`, or after what `end_pause_after` says for this one pause. A segment that grows
to `endpoint.max_utterance_s` is cut and goes on in the next segment without a gap. Where, is
announced half a second before, so that its final can be ready: at the quietest place of the last
second by then. A pause in that half second makes it void.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import numpy as np
import webrtcvad

from harkd.audio import RATE_HZ, Int16
from harkd.settings import EndpointSettings, VadSettings

FRAME_MS = 20
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
RESUME_FRAMES = 2
"""So many voiced frames in a row count as speech again; a single one is a click."""
CUT_LEAD_FRAMES = 500 // FRAME_MS
"""A cut is announced so long before; at most a quarter of a segment."""
CUT_SEARCH_FRAMES = 1000 // FRAME_MS
"""It is sought in so much audio before that; at most half a segment."""
CUT_SMOOTH_FRAMES = 3


def within(endpoint: EndpointSettings, max_segment_s: float) -> EndpointSettings:
    """Return the settings with utterances no longer than the model takes well."""
    if endpoint.max_utterance_s <= max_segment_s:
        return endpoint
    return replace(endpoint, max_utterance_s=max_segment_s)


class Cause(Enum):
    """Why a segment ended."""

    SILENCE = auto()
    """`endpoint.silence_ms` without speech, or what `end_pause_after` said."""
    LENGTH = auto()
    """`endpoint.max_utterance_s`; the next segment follows without a gap."""
    STREAM_END = auto()
    """No more audio: the file ended, or the microphone went away."""
    WAKE_WORD = auto()
    """A wake word was said in it: what follows that is another segment, and this one is void."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A segment began."""

    audio_start: int
    """First sample of the segment's audio: speech_start less the pre-roll."""
    speech_start: int
    """First sample of the first voiced frame."""


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The speaker has been silent for `endpoint.pause_ms`; the segment may go on or end."""

    speech_end: int
    """One past the last voiced sample so far."""
    audio_end: int
    """The audio up to here is all that a final needs, if no more speech comes."""


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """Speech went on after a pause."""

    position: int
    """One past the sample at which that was noticed."""


@dataclass(frozen=True, slots=True)
class CutAnnounced:
    """The segment has almost grown to its most: unless the speaker pauses before, it is cut here.

    Void once `SpeechPaused` follows, or the stream ends.
    """

    audio_end: int
    """One past the last sample of its audio; what comes after goes to the next segment."""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The segment is complete."""

    speech_start: int
    """First sample of the first voiced frame."""
    speech_end: int
    """One past the last voiced sample."""
    audio_end: int
    """One past the last sample of the segment's audio."""
    voiced_ms: int
    """Voiced audio in it, in milliseconds."""
    cause: Cause
    """What ended it."""


SegmentEvent = SpeechStarted | SpeechPaused | SpeechResumed | CutAnnounced | SpeechEnded


@dataclass(slots=True)
class _Frame:
    """One of the latest frames."""

    start: int
    energy: float
    voiced: bool
    voiced_end: int  # one past the last voiced sample by its end


@dataclass(slots=True)
class _Open:
    """The segment that is being spoken."""

    audio_start: int
    speech_start: int
    speech_end: int
    voiced_frames: int
    voiced_run: int = 0
    paused_at: int | None = None
    clicks: int = 0  # voiced frames since then, which count only if speech resumes
    cut: _Frame | None = None  # the announced cut is where this one ends


class Segmenter:
    """The speech state machine.

    Args:
        vad: The `vad` section.
        endpoint: The `endpoint` section.
        is_speech: Judges one frame of `FRAME_SAMPLES` int16 samples as bytes; webrtcvad's model
            at the set aggressiveness unless a test gives another.
    """

    def __init__(
        self,
        vad: VadSettings,
        endpoint: EndpointSettings,
        is_speech: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._aggressiveness = vad.aggressiveness
        self._injected = is_speech
        self._vad: Any = None
        self._set_silences(endpoint)
        self._end_silence = self._silence  # in the present pause
        self._lay_out(vad, endpoint)
        self._later: tuple[VadSettings, EndpointSettings] | None = None
        self._rest = b""
        self.position = 0
        """One past the last sample that has been judged."""
        self.voiced_frames = 0
        """So many frames were taken for speech so far."""
        self._floor = 0  # no segment's audio reaches back before this sample
        self._open: _Open | None = None
        self._is_speech = self._fresh_vad()

    def _set_silences(self, endpoint: EndpointSettings) -> None:
        self._pause = endpoint.pause_ms * RATE_HZ // 1000
        self._silence = endpoint.silence_ms * RATE_HZ // 1000

    def _lay_out(self, vad: VadSettings, endpoint: EndpointSettings) -> None:
        """Set what must not change while a segment is open."""
        self._start_frames = max(1, -(-vad.start_ms // FRAME_MS))
        self._most = int(endpoint.max_utterance_s * RATE_HZ)
        # At most half a segment, so that a cut always finds speech on both of its sides.
        self._pre_roll = min(vad.pre_roll_ms * RATE_HZ // 1000, self._most // 2)
        most_frames = self._most // FRAME_SAMPLES
        # With these shares, what lies after a cut is too short for the next one to be announced.
        self._lead_frames = min(CUT_LEAD_FRAMES, most_frames // 4)
        self._search_frames = min(CUT_SEARCH_FRAMES, max(CUT_SMOOTH_FRAMES, most_frames // 2))
        # Onsets: voiced frames may have one unvoiced frame among them for every two.
        self._onset: deque[bool] = deque(maxlen=self._start_frames + self._start_frames // 2)
        # Holds all that lies after a cut once it is carried out.
        self._history: deque[_Frame] = deque(maxlen=self._search_frames + self._lead_frames)

    def change(self, vad: VadSettings, endpoint: EndpointSettings) -> None:
        """Go on with other settings from the next frame on; nothing that was heard is lost.

        A pause that was told keeps the silence that ends it. `start_ms`, `pre_roll_ms` and
        `max_utterance_s` wait for the end of what is being said.
        """
        self._aggressiveness = vad.aggressiveness
        if self._vad:
            self._vad.set_mode(vad.aggressiveness)
        self._set_silences(endpoint)
        if self._open is None or self._open.paused_at is None:
            self._end_silence = self._silence
        self._later = (vad, endpoint)

    @property
    def most_samples(self) -> int:
        """The most audio that a segment holds that begins now."""
        return self._most

    @property
    def in_speech(self) -> bool:
        """True while a segment is open."""
        return self._open is not None

    @property
    def voiced_ms(self) -> int:
        """Voiced audio in the open segment so far, in milliseconds; 0 while none is open."""
        return self._open.voiced_frames * FRAME_MS if self._open else 0

    def push(self, samples: Int16) -> list[SegmentEvent]:
        """Judge the next piece of audio.

        Args:
            samples: int16, shape (n,), 16 kHz mono, any n.

        Returns:
            What happened, in order.
        """
        if self._later and self._open is None:
            onset = self._onset
            self._lay_out(*self._later)
            self._onset.extend(onset)
            self._later = None
        data = self._rest + samples.tobytes()
        whole = len(data) - len(data) % (2 * FRAME_SAMPLES)
        self._rest = data[whole:]
        events: list[SegmentEvent] = []
        for at in range(0, whole, 2 * FRAME_SAMPLES):
            frame = data[at : at + 2 * FRAME_SAMPLES]
            voiced = self._is_speech(frame)
            self.voiced_frames += voiced
            self.position += FRAME_SAMPLES
            if self._open is None:
                self._wait_for_onset(voiced, events)
            else:
                self._follow(self._open, frame, voiced, events)
        return events

    def end_pause_after(self, silence: int) -> None:
        """Let the present pause end the segment after so many samples of silence.

        Holds until speech resumes or the segment ends; without a pause it has no effect.
        """
        if self._open and self._open.paused_at is not None:
            self._end_silence = silence

    def flush(self) -> list[SegmentEvent]:
        """End the stream here: an open segment ends, and what follows starts afresh.

        Less than a frame may be left; it is skipped unjudged, and `position` moves past it.
        """
        events: list[SegmentEvent] = []
        if self._open is not None:
            self._end(self._open, self._open.paused_at or self.position, Cause.STREAM_END, events)
        self.position += len(self._rest) // 2
        self._rest = b""
        self._floor = self.position
        self._onset.clear()
        self._history.clear()
        self._is_speech = self._fresh_vad()
        return events

    def begin_again(self, position: int) -> None:
        """Go on as if the audio began at `position`, which has been judged before.

        What is being said is forgotten, without an event. What follows `position` is to be pushed
        once more; no segment reaches back before it.
        """
        self.position = self._floor = position
        self._rest = b""
        self._open = None
        self._end_silence = self._silence
        self._onset.clear()
        self._history.clear()

    def _fresh_vad(self) -> Callable[[bytes], bool]:
        if self._injected:
            return self._injected
        vad = self._vad = webrtcvad.Vad(self._aggressiveness)
        return lambda frame: bool(vad.is_speech(frame, RATE_HZ))

    def _wait_for_onset(self, voiced: bool, events: list[SegmentEvent]) -> None:
        self._onset.append(voiced)
        if not voiced or sum(self._onset) < self._start_frames:
            return
        first = len(self._onset) - list(self._onset).index(True)  # frames back
        speech_start = self.position - first * FRAME_SAMPLES
        self._open = _Open(
            audio_start=max(self._floor, speech_start - self._pre_roll),
            speech_start=speech_start,
            speech_end=self.position,
            voiced_frames=sum(self._onset),
            voiced_run=1,
        )
        self._onset.clear()
        self._history.clear()
        events.append(SpeechStarted(self._open.audio_start, speech_start))

    def _follow(self, seg: _Open, frame: bytes, voiced: bool, events: list[SegmentEvent]) -> None:
        self._remember(seg, frame, voiced)
        if voiced:
            seg.clicks += 1
            seg.voiced_run += 1
            if seg.voiced_run >= RESUME_FRAMES:
                seg.speech_end = self.position
                if seg.paused_at is not None:
                    seg.paused_at = None
                    self._end_silence = self._silence
                    events.append(SpeechResumed(self.position))
            if seg.paused_at is None:
                seg.voiced_frames += seg.clicks
                seg.clicks = 0
        else:
            seg.voiced_run = 0
        silent = self.position - seg.speech_end
        if seg.paused_at is None and silent >= self._pause:
            seg.paused_at, seg.cut = self.position, None
            events.append(SpeechPaused(seg.speech_end, self.position))
        if silent >= self._end_silence:
            self._end(seg, seg.paused_at or self.position, Cause.SILENCE, events)
            return
        left = self._most - (self.position - seg.audio_start)
        if seg.paused_at is None and seg.cut is None and left <= self._lead_frames * FRAME_SAMPLES:
            self._announce_cut(seg, events)
        if left <= 0 and seg.paused_at is not None:
            self._end(seg, seg.paused_at, Cause.LENGTH, events)
        elif left <= 0 and seg.cut is not None:
            self._carry_out(seg, seg.cut, events)

    def _remember(self, seg: _Open, frame: bytes, voiced: bool) -> None:
        level = np.frombuffer(frame, np.int16).astype(np.float32)
        if voiced:
            voiced_end = self.position
        else:
            voiced_end = self._history[-1].voiced_end if self._history else seg.speech_end
        start = self.position - FRAME_SAMPLES
        self._history.append(_Frame(start, float(np.dot(level, level)), voiced, voiced_end))

    def _end(self, seg: _Open, audio_end: int, cause: Cause, events: list[SegmentEvent]) -> None:
        events.append(
            SpeechEnded(
                seg.speech_start, seg.speech_end, audio_end, seg.voiced_frames * FRAME_MS, cause
            )
        )
        self._open = None
        self._end_silence = self._silence
        self._floor = audio_end

    def _announce_cut(self, seg: _Open, events: list[SegmentEvent]) -> None:
        """Decide where an overlong segment is split: the quietest place of its last second.

        Never before its speech; where there is too little of it yet, a later frame decides.
        """
        latest = list(self._history)[-self._search_frames :]
        frames = [frame for frame in latest if frame.start >= seg.speech_start]
        if len(frames) < CUT_SMOOTH_FRAMES:
            return
        energy = np.array([frame.energy for frame in frames])
        smooth = np.convolve(energy, np.ones(CUT_SMOOTH_FRAMES), "valid")
        seg.cut = frames[int(np.argmin(smooth)) + CUT_SMOOTH_FRAMES // 2]
        events.append(CutAnnounced(seg.cut.start + FRAME_SAMPLES))

    def _carry_out(self, seg: _Open, last: _Frame, events: list[SegmentEvent]) -> None:
        """Cut a segment after this frame, as it was announced."""
        cut = last.start + FRAME_SAMPLES
        voiced_after = [frame for frame in self._history if frame.start >= cut and frame.voiced]
        seg.voiced_frames -= len(voiced_after)
        seg.speech_end = min(seg.speech_end, last.voiced_end)
        self._end(seg, cut, Cause.LENGTH, events)
        if not voiced_after:
            return
        self._open = _Open(
            audio_start=cut,
            speech_start=voiced_after[0].start,
            speech_end=voiced_after[-1].start + FRAME_SAMPLES,
            voiced_frames=len(voiced_after),
            voiced_run=seg.voiced_run,
        )
        events.append(SpeechStarted(cut, voiced_after[0].start))
