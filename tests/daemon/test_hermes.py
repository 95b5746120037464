"""Hermes sessions: what is asked, what is answered, and when. Time is given.

Written against Rhasspy's reference and the message classes of rhasspy-hermes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harkd import hermes, hermes_session
from harkd.events import Final, Rejected, RejectReason, State, StateChanged, Word
from harkd.hermes_session import Sessions
from harkd.messages import Message

SITE = "kitchen"
NOW = datetime(2026, 11, 22, 18, 4, 5, tzinfo=UTC)


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


def final(text: str, begin_s: float, end_s: float, **more: Any) -> Final:
    """What was said from one moment to another of a test's clock, in seconds."""
    event = Final(
        id="01JDA7Q2ZZZZZZZZZZZZZZZZZZ",
        rev=2,
        text=text,
        confidence=0.9,
        started_at=NOW,
        ended_at=NOW,
        duration_s=end_s - begin_s,
        speech_end_ns=ns(end_s),
        endpoint_ns=ns(end_s + 0.6),
        language="en",
        model="tiny",
    )
    return replace(event, **more)


class Site:
    """One site on a clock of its own; collects what it says."""

    def __init__(self) -> None:
        self.sessions = Sessions(SITE)
        self.said: list[Message] = []
        self.now_s = 0.0

    def ask(self, what: str, **fields: Any) -> list[dict[str, Any]]:
        """Send a request for this site; return what it says to it."""
        return self.send(what, json.dumps({"siteId": SITE, **fields}).encode())

    def send(self, what: str, payload: bytes) -> list[dict[str, Any]]:
        return self._note(self.sessions.take(f"hermes/asr/{what}", payload, ns(self.now_s)))

    def at(self, now_s: float) -> list[dict[str, Any]]:
        """Let the time come."""
        self.now_s = now_s
        return self._note(self.sessions.check(ns(now_s)))

    def speech(self, begin_s: float) -> None:
        self.state(State.SPEECH, begin_s)

    def state(self, state: State, now_s: float) -> list[dict[str, Any]]:
        self.at(now_s)
        return self._note(self.sessions.hear(StateChanged(state, NOW), ns(now_s)))

    def hear(self, text: str, begin_s: float, end_s: float, **more: Any) -> list[dict[str, Any]]:
        """Somebody speaks; 0.6 s after the last word it is over, 0.1 s later the text is there."""
        self.speech(begin_s)
        self.state(State.LISTENING, end_s + 0.6)
        self.at(end_s + 0.7)
        return self._note(self.sessions.hear(final(text, begin_s, end_s, **more), ns(self.now_s)))

    def knock(self, begin_s: float, end_s: float) -> list[dict[str, Any]]:
        self.speech(begin_s)
        self.state(State.LISTENING, end_s + 0.6)
        rejected = Rejected("01", RejectReason.NO_SPEECH, NOW, end_s - begin_s)
        return self._note(self.sessions.hear(rejected, ns(self.now_s)))

    def _note(self, messages: list[Message]) -> list[dict[str, Any]]:
        self.said += messages
        for message in messages:
            assert message.topic in {hermes.CAPTURED, hermes.ERROR}
            assert not message.retain
        return [json.loads(message.payload) for message in messages]


@pytest.fixture
def site() -> Site:
    return Site()


# -------------------------------------------------------------------------------------- one session


def test_without_a_session_nothing_is_said(site: Site) -> None:
    assert site.hear("Hello.", 1, 2) == []
    assert site.at(1000) == []


def test_the_next_final_answers_a_session_and_ends_it(site: Site) -> None:
    site.ask("startListening", sessionId="s1", wakewordId="porcupine", lang="en_US")
    assert site.hear("Turn on the light.", 1, 2.5) == [
        {
            "text": "Turn on the light.",
            "likelihood": 0.9,
            "seconds": 0.1,
            "siteId": "kitchen",
            "sessionId": "s1",
            "wakewordId": "porcupine",
            "lang": "en",
            "asrTokens": [
                [
                    token("Turn", 0, 4),
                    token("on", 5, 7),
                    token("the", 8, 11),
                    token("light.", 12, 18),
                ]
            ],
        }
    ]
    assert site.hear("And the radio.", 4, 5) == []


def token(value: str, start: int, end: int, time: object = None) -> dict[str, Any]:
    return {
        "value": value,
        "confidence": 0.9,
        "rangeStart": start,
        "rangeEnd": end,
        "time": time,
    }


def test_words_have_their_times_where_the_model_gives_them(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    (answer,) = site.hear("Go on.", 1, 2, words=(Word("Go", 0.1, 0.3), Word("on.", 0.4, 0.9)))
    assert answer["asrTokens"] == [
        [
            token("Go", 0, 2, {"start": 0.1, "end": 0.3}),
            token("on.", 3, 6, {"start": 0.4, "end": 0.9}),
        ]
    ]


def test_what_was_said_before_the_session_is_not_its_answer(site: Site) -> None:
    """Its text may come later: the end is decided after 0.6 s of silence."""
    site.speech(1)
    site.at(2.1)
    site.ask("startListening", sessionId="s1")
    site.state(State.LISTENING, 2.6)
    assert site.hear("Long ago.", 1, 2) == []
    (answer,) = site.hear("Now.", 4, 5)
    assert answer["text"] == "Now."


def test_what_is_being_said_when_it_opens_is(site: Site) -> None:
    """The wake word and the command in one breath."""
    site.speech(1)
    site.at(1.8)
    site.ask("startListening", sessionId="s1")
    (answer,) = site.hear("Hey Jarvis, turn it off.", 1, 3)
    assert answer["text"] == "Hey Jarvis, turn it off."


def test_after_a_rejection_it_goes_on_waiting(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    assert site.knock(1, 1.2) == []
    (answer,) = site.hear("Hello.", 3, 4)
    assert answer["text"] == "Hello."


def test_a_session_may_have_no_name(site: Site) -> None:
    site.ask("startListening")
    (answer,) = site.hear("Hello.", 1, 2)
    assert answer["sessionId"] is None


def test_another_start_answers_the_open_session_first(site: Site) -> None:
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    site.hear("One.", 1, 2)
    (old,) = site.ask("startListening", sessionId="s2")
    assert (old["sessionId"], old["text"]) == ("s1", "One.")
    (new,) = site.hear("Two.", 4, 5)
    assert (new["sessionId"], new["text"]) == ("s2", "Two.")


# ------------------------------------------------------------------------------------ stopListening


def test_without_stop_on_silence_all_is_kept_until_it_is_stopped(site: Site) -> None:
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    assert site.hear("Milk and", 1, 2, confidence=0.9) == []
    assert site.hear("bread.", 4, 5, confidence=0.6, words=(Word("bread.", 0.2, 0.8),)) == []
    (answer,) = site.ask("stopListening", sessionId="s1")
    assert answer["text"] == "Milk and bread."
    assert answer["likelihood"] == 0.6
    assert answer["seconds"] == 0.2
    tokens = answer["asrTokens"][0]
    assert [answer["text"][one["rangeStart"] : one["rangeEnd"]] for one in tokens] == [
        "Milk",
        "and",
        "bread.",
    ]
    assert tokens[-1]["time"] == {"start": 3.2, "end": 3.8}, "since the first word of all"


def test_stopped_before_anything_was_said_it_is_answered_with_nothing(site: Site) -> None:
    site.ask("startListening", sessionId="s1", lang="en")
    assert site.ask("stopListening", sessionId="s1") == [
        {
            "text": "",
            "likelihood": 0.0,
            "seconds": 0,
            "siteId": "kitchen",
            "sessionId": "s1",
            "wakewordId": None,
            "lang": "en",
            "asrTokens": [],
        }
    ]


def test_stopped_while_somebody_speaks_it_waits_for_the_end(site: Site) -> None:
    """Who lets a button go says the last word at the same moment."""
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    site.speech(1)
    site.at(2)
    assert site.ask("stopListening", sessionId="s1") == []
    (answer,) = site.hear("Turn it off.", 1, 2)
    assert answer["text"] == "Turn it off."


def test_but_not_for_ever(site: Site) -> None:
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    site.speech(1)
    site.at(2)
    site.ask("stopListening", sessionId="s1")
    assert site.at(2 + hermes_session.STOP_MOST_S - 0.1) == []
    (answer,) = site.at(2 + hermes_session.STOP_MOST_S)
    assert answer["text"] == ""


def test_a_knock_at_the_end_does_not_keep_it_waiting(site: Site) -> None:
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    site.hear("Milk.", 1, 2)
    site.speech(3)
    site.ask("stopListening", sessionId="s1")
    (answer,) = site.knock(3, 3.1)
    assert answer["text"] == "Milk."


@pytest.mark.parametrize("session", [{"sessionId": "other"}, {"sessionId": ""}, {}])
def test_another_session_cannot_stop_it(site: Site, session: dict[str, str]) -> None:
    site.ask("startListening", sessionId="s1")
    assert site.ask("stopListening", **session) == []
    assert site.hear("Hello.", 1, 2)


def test_nothing_is_stopped_where_nothing_is_open(site: Site) -> None:
    assert site.ask("stopListening", sessionId="s1") == []


# ------------------------------------------------------------------------------------------ silence


@pytest.mark.parametrize("stop_on_silence", [True, False])
def test_a_session_in_which_nobody_speaks_is_answered_with_nothing(
    site: Site, stop_on_silence: bool
) -> None:
    site.at(10)
    site.ask("startListening", sessionId="s1", stopOnSilence=stop_on_silence)
    assert site.at(39.9) == []
    (answer,) = site.at(40)
    assert (answer["text"], answer["sessionId"]) == ("", "s1")
    assert site.at(1000) == []


def test_a_rejection_is_not_speech(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    site.knock(20, 20.2)
    assert site.at(29.9) == []
    assert site.at(30)


def test_who_begins_to_speak_at_the_last_moment_is_heard(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    site.speech(29)
    assert site.at(33) == []
    (answer,) = site.hear("Just in time.", 29, 34)
    assert answer["text"] == "Just in time."


def test_each_final_gives_it_more_time(site: Site) -> None:
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    for begin_s in (10, 35, 60):
        assert site.hear("And.", begin_s, begin_s + 1) == []
    assert site.at(91.6) == []
    (answer,) = site.at(91.7)
    assert answer["text"] == "And. And. And."


def test_no_session_is_longer_than_ten_minutes(site: Site) -> None:
    """Or a television would fill the memory."""
    site.ask("startListening", sessionId="s1", stopOnSilence=False)
    for begin_s in range(1, 598, 4):
        assert site.hear("Bla.", begin_s, begin_s + 1) == []
    assert site.at(600)


def test_also_where_somebody_speaks_without_end(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    site.speech(1)
    assert site.at(599) == []
    assert site.at(600)


# ------------------------------------------------------------------------------------------ toggles


def test_what_is_said_while_it_is_off_answers_no_session(site: Site) -> None:
    """That is when the house itself speaks."""
    site.ask("startListening", sessionId="s1")
    site.ask("toggleOff", reason="ttsSay")
    assert site.hear("The light is on.", 1, 2) == []
    site.at(3)
    site.ask("toggleOn", reason="ttsSay")
    (answer,) = site.hear("Thank you.", 4, 5)
    assert answer["text"] == "Thank you."


def test_what_began_while_it_was_off_is_not_heard_either(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    site.ask("toggleOff", reason="playAudio")
    site.speech(1)
    site.at(2)
    site.ask("toggleOn", reason="playAudio")
    assert site.hear("Beep, hello.", 1, 3) == []


def test_what_was_said_before_it_went_off_is_heard(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    site.speech(1)
    site.at(2.1)
    site.ask("toggleOff", reason="playAudio")
    (answer,) = site.hear("Turn it off.", 1, 2)
    assert answer["text"] == "Turn it off."


def test_a_second_reason_does_not_bring_back_what_the_first_kept_out(site: Site) -> None:
    site.ask("startListening", sessionId="s1")
    site.ask("toggleOff", reason="playAudio")
    site.speech(1)
    site.at(2.1)
    site.ask("toggleOff", reason="ttsSay")
    assert site.hear("Beep.", 1, 2) == []


def test_a_session_may_open_while_it_is_off_and_be_stopped(site: Site) -> None:
    site.ask("toggleOff")
    site.ask("startListening", sessionId="s1")
    assert site.hear("Hello.", 1, 2) == []
    assert site.ask("stopListening", sessionId="s1")[0]["text"] == ""


def heard(site: Site, at_s: float) -> bool:
    site.at(at_s)
    site.ask("startListening", sessionId="s")
    return bool(site.hear("Hello.", at_s + 1, at_s + 2))


def test_it_is_on_again_when_every_reason_is_gone(site: Site) -> None:
    site.ask("toggleOff", reason="ttsSay")
    site.ask("toggleOff", reason="dialogueSession")
    site.ask("toggleOn", reason="ttsSay")
    site.ask("toggleOn", reason="playAudio")
    assert not heard(site, 10)
    site.at(20)
    site.ask("toggleOn", reason="dialogueSession")
    assert heard(site, 30)


@pytest.mark.parametrize("reason", [{}, {"reason": ""}, {"reason": None}])
def test_on_without_a_reason_is_on_for_all(site: Site, reason: dict[str, Any]) -> None:
    site.ask("toggleOff", reason="ttsSay")
    site.ask("toggleOff", reason="dialogueSession")
    site.ask("toggleOff")
    site.ask("toggleOn", **reason)
    assert heard(site, 10)


def test_a_reason_twice_off_needs_to_go_once(site: Site) -> None:
    site.ask("toggleOff", reason="ttsSay")
    site.ask("toggleOff", reason="ttsSay")
    site.ask("toggleOn", reason="ttsSay")
    assert heard(site, 10)


# -------------------------------------------------------------------------------------------- sites


@pytest.mark.parametrize("payload", [b'{"siteId": "attic"}', b"{}", b'{"siteId": null}'])
@pytest.mark.parametrize("what", ["startListening", "toggleOff"])
def test_what_is_meant_for_others_is_nothing_to_us(site: Site, what: str, payload: bytes) -> None:
    """Who names no site means the one that is called "default"."""
    assert site.send(what, payload) == []
    if what == "startListening":
        assert site.hear("Hello.", 1, 2) == []
    else:
        assert heard(site, 10)


def test_a_fault_in_what_is_meant_for_others_is_not_ours(site: Site) -> None:
    assert site.send("startListening", b'{"siteId": "attic", "sessionId": 7}') == []


@pytest.mark.parametrize("payload", [b"{}", b'{"siteId": null}', b'{"siteId": "default"}'])
def test_the_default_site_is_meant_where_none_is_named(payload: bytes) -> None:
    sessions = Sessions("default")
    sessions.take(hermes.START, payload, 0)
    assert sessions.due_ns is not None


# ------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("what", "payload", "said", "session"),
    [
        ("startListening", b"", "truncated", None),
        ("startListening", b"nonsense", "malformed", None),
        ("startListening", b"[1, 2]", "object", None),
        ("startListening", b'{"siteId": 7, "sessionId": "s1"}', "str", "s1"),
        ("startListening", b'{"siteId": "kitchen", "sessionId": 7}', "sessionId", None),
        (
            "startListening",
            b'{"siteId": "kitchen", "sessionId": "s1", "stopOnSilence": "yes"}',
            "stopOnSilence",
            "s1",
        ),
        ("stopListening", b'{"siteId": "kitchen", "sessionId": {}}', "sessionId", None),
        ("toggleOff", b'{"siteId": "kitchen", "reason": ["a"]}', "reason", None),
        ("toggleOn", b"\xff\xfe", "", None),
    ],
)
def test_a_fault_is_answered_and_changes_nothing(
    site: Site, what: str, payload: bytes, said: str, session: str | None
) -> None:
    (answer,) = site.send(what, payload)
    assert [message.topic for message in site.said] == [hermes.ERROR]
    assert set(answer) == {"error", "siteId", "sessionId", "context"}
    assert said in answer["error"]
    assert f"hermes/asr/{what}" in answer["error"]
    assert (answer["siteId"], answer["sessionId"]) == ("kitchen", session)
    assert answer["context"] == payload.decode(errors="replace")
    assert heard(site, 10)


def test_a_long_fault_is_repeated_in_part(site: Site) -> None:
    (answer,) = site.send("toggleOn", "é".encode() * 100_000)
    assert answer["context"] == "é" * hermes.CONTEXT_MOST


def test_unknown_fields_are_no_fault(site: Site) -> None:
    """Rhasspy has more than Snips had, and others may have more than Rhasspy."""
    assert (
        site.ask("startListening", sessionId="s1", sendAudioCaptured=True, intentFilter=["a"]) == []
    )
    assert site.hear("Hello.", 1, 2)


fields = st.dictionaries(
    st.sampled_from(["siteId", "sessionId", "stopOnSilence", "reason", "wakewordId", "lang", "x"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SITE),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
).map(lambda value: json.dumps(value).encode())


@given(
    course=st.lists(
        st.tuples(st.sampled_from(hermes.TOPICS), st.binary(max_size=50) | fields), max_size=12
    )
)
@example(course=[(hermes.START, b"[" * 200_000)])
@example(course=[(hermes.START, b'{"siteId":' * 100_000)])
@example(course=[(hermes.START, b'{"siteId":"kitchen","sessionId":"\\ud800"}')])
@example(course=[(hermes.START, b'{"siteId":"kitchen","sessionId":"a","lang":1e999}')])
def test_whatever_comes_is_answered_with_good_messages_and_it_goes_on(
    course: list[tuple[str, bytes]],
) -> None:
    site = Site()
    for topic, payload in course:
        for answer in site.send(topic.removeprefix("hermes/asr/"), payload):
            assert answer["siteId"] == SITE
    site.at(1000)
    site.ask("toggleOn")
    assert heard(site, 2000)
