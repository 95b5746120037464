"""Recognition of one segment, from its first partial to its end: revisions, texts, messages' facts.

Runs on the recognition thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from harkd.audio import RATE_HZ
from harkd.errors import RecognitionError
from harkd.events import Event, Final, Partial, Rejected, RejectReason, Word
from harkd.hotword_list import Hotwords
from harkd.phrase_matching import Matched, PhraseMatching
from harkd.recognizer.protocol import Hypothesis, Recognizer, Stream
from harkd.second_look import Look
from harkd.segment import Segment
from harkd.settings import TextSettings
from harkd.stability import stable_chars
from harkd.text_style import styled
from harkd.verdict import Voice, rejection

log = logging.getLogger(__name__)

NOTHING = Hypothesis("", 0.0)
AS_IS = TextSettings()
"""As the recognizer writes it."""


class SegmentRecognition:
    """Recognition of one segment, from its first update to its final.

    Args:
        segment: The segment.
        recognizer: The loaded model.
        sink: Takes the partials.
        look: Tells whether there is a voice in it; None takes all for speech.
        hotwords: What is likelier to be said here.
        style: How texts are to be written.
        phrases: Finds those that are said; None where none are known.
    """

    def __init__(
        self,
        segment: Segment,
        recognizer: Recognizer,
        sink: Callable[[Event], None],
        look: Look | None = None,
        hotwords: Hotwords = (),
        style: TextSettings = AS_IS,
        phrases: PhraseMatching | None = None,
    ) -> None:
        self.segment = segment
        self._look = look
        self._recognizer = recognizer
        self._stream: Stream | None = None
        self._sink = sink
        self._hotwords = hotwords
        self._style = style
        self._accepted = 0
        self._rev = 0
        self._text = ""
        self.latest: Hypothesis | None = None
        """What the last update heard."""
        self.previous: Hypothesis | None = None
        """What the last one before it heard that was no loop."""
        self.phrases = phrases
        """Finds those that are said."""
        self._looked: tuple[int, Matched | None] | None = None
        self.finished: Hypothesis | None = None
        """What was heard over all of it; None before `finish`."""

    def has_voice(self, limit: int) -> bool:
        """Tell whether there is a voice in the audio up to sample `limit`.

        Where that cannot be told, there is: better invented text than none.
        """
        look = self._look
        if look and limit > look.seen:
            try:
                look.take(self.segment.audio(look.seen, limit))
            except RecognitionError as error:
                log.error("no second look at segment %s: %s", self.segment.id, error)
                look = self._look = None
        return look.enough(limit) if look else True

    def voice(self, limit: int) -> Voice | None:
        """Return what the second look heard up to sample `limit`, if there was one."""
        return self._look.voice(limit) if self._look else None

    def update(self, limit: int, *, prepare: bool, tell: bool) -> None:
        """Recognize up to sample `limit` and, with `tell`, publish what is new.

        With `prepare`, as the final would be, if no more audio came.
        """
        stream = self._fed(limit)
        hypothesis = stream.prepare() if prepare else stream.hypothesis()
        if self.latest and not self.latest.looped:
            self.previous = self.latest
        self.latest = hypothesis
        text = self._styled(hypothesis)
        credible = rejection(hypothesis, 0.0, self.voice(limit)) is None  # more may be said
        if tell and text != self._text and credible:
            self._rev += 1
            self._text = text
            heard = max(0, limit - self.segment.lead_samples)
            started_ns = self.segment.speech_start_ns
            self._sink(
                Partial(
                    id=self.segment.id,
                    rev=self._rev,
                    text=text,
                    confidence=hypothesis.confidence,
                    started_at=self.segment.started_at,
                    duration_s=heard / RATE_HZ,
                    language=self._recognizer.language,
                    model=self._recognizer.name,
                    stable_chars=stable_chars(self._styled(self.previous), text)
                    if self.previous
                    else 0,
                    audio_end_ns=started_ns and started_ns + heard * 1_000_000_000 // RATE_HZ,
                )
            )

    def finish(self, limit: int) -> Hypothesis:
        """Return the segment's last hypothesis, over its audio up to sample `limit`."""
        self.finished = self._fed(limit).finish()
        return self.finished

    def look_for_phrases(self, limit: int) -> Matched | None:
        """Return the phrase that was said up to sample `limit`, which was prepared or finished.

        Free where it was looked for up to there before. A model that fails finds none: free text is
        better than nothing.
        """
        if self.phrases is None or self._stream is None:
            return None
        if self._looked is None or self._looked[0] != limit:
            heard = self.finished or self.latest or NOTHING
            try:
                found = self.phrases.look(self._stream, heard)
            except RecognitionError as error:
                log.error("no phrases in segment %s: %s", self.segment.id, error)
                found = None
            self._looked = limit, found
        return self._looked[1]

    def final(self, hypothesis: Hypothesis, found: Matched | None = None) -> Final:
        """Make the final, of a phrase where one was found."""
        open_text = self._styled(hypothesis)
        words = tuple(self._from_speech(word) for word in hypothesis.words)
        text, confidence = open_text, hypothesis.confidence
        if found and not found.exact:
            text = styled(found.text, self._style, self._recognizer.language)
            confidence, words = found.confidence, ()
        return Final(
            id=self.segment.id,
            rev=self._rev + 1,
            text=text,
            confidence=confidence,
            started_at=self.segment.started_at,
            ended_at=self.segment.started_at + timedelta(seconds=self._duration_s),
            duration_s=self._duration_s,
            speech_end_ns=self.segment.speech_end_ns,
            endpoint_ns=self.segment.closed_ns,
            language=self._recognizer.language,
            model=self._recognizer.name,
            words=words,
            match=found.match if found else None,
            open_text=open_text if found else "",
        )

    def rejected(self, reason: RejectReason) -> Rejected:
        """Make the rejection."""
        segment = self.segment
        return Rejected(segment.id, reason, segment.started_at, self._duration_s)

    def _styled(self, hypothesis: Hypothesis) -> str:
        return styled(hypothesis.text, self._style, self._recognizer.language)

    def _from_speech(self, word: Word) -> Word:
        """Return a word's times from where speech begins; the stream's count from the pre-roll."""
        lead_s = self.segment.lead_samples / RATE_HZ
        start_s, end_s = (max(0.0, round(at - lead_s, 3)) for at in (word.start_s, word.end_s))
        return Word(word.word, start_s, end_s)

    @property
    def _duration_s(self) -> float:
        ended = self.segment.ended
        return (ended.speech_end - ended.speech_start) / RATE_HZ if ended else 0.0

    def _fed(self, limit: int) -> Stream:
        """Return the stream after it has taken the audio up to sample `limit`."""
        if self._stream is None:
            hotwords = self._hotwords
            recognizer = self._recognizer
            self._stream = recognizer.stream(hotwords) if hotwords else recognizer.stream()
        elif limit < self._accepted:
            # Shorter than before: a cut was announced before audio that a partial has seen.
            self._stream.restart()
            self._accepted = 0
        self._stream.accept(self.segment.audio(self._accepted, limit))
        self._accepted = limit
        return self._stream
