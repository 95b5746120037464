"""Where open text is private, what was said leaves the recognizer in no event."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from harkd.events import (
    Event,
    Final,
    Partial,
    PhraseMatch,
    Rejected,
    RejectReason,
    State,
    StateChanged,
    Word,
)
from harkd.redaction import redacted

NOW = datetime(2026, 11, 22, 18, 4, 5, tzinfo=UTC)
FINAL = Final(
    "id-1", 3, "the secret", 0.9, NOW, NOW, 1.5, 1, 2, "en", "tiny", (Word("the", 0.0, 0.2),)
)


def test_a_final_becomes_a_rejection_that_tells_when_and_how_long() -> None:
    told = redacted(FINAL)
    assert told == Rejected("id-1", RejectReason.PRIVATE, NOW, 1.5)
    assert "secret" not in repr(told)


def test_a_final_that_is_a_phrase_keeps_its_words_and_loses_the_open_text() -> None:
    match = PhraseMatch("turn on the lamp", "light_on", {"lamp": "lamp"}, 0.9, 0.1)
    final = replace(FINAL, text="Turn on the lamp.", match=match, open_text="a secret lump")
    told = redacted(final)
    assert told == replace(final, open_text="", words=())
    assert "secret" not in repr(told)


def test_a_partial_becomes_nothing() -> None:
    assert redacted(Partial("id-1", 1, "the secret", 0.9, NOW, 1.0, "en", "tiny")) is None


def test_what_holds_no_text_stays_as_it_is() -> None:
    events: list[Event] = [
        Rejected("id-1", RejectReason.NO_SPEECH, NOW, 0.5),
        StateChanged(State.LISTENING, NOW),
    ]
    assert [redacted(event) for event in events] == events
