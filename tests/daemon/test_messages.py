"""What is sent for each event, key by key, as docs/mqtt.md promises it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd import final_messages, messages
from harkd.events import (
    AwakeChanged,
    Final,
    Partial,
    PhraseMatch,
    Rejected,
    RejectReason,
    State,
    StateChanged,
    Woken,
    Word,
)
from harkd.messages import About, Message, utc
from harkd.redaction import redacted

ROOT = "harkd/kitchen"
ABOUT = About(
    base_topic="harkd",
    device_id="kitchen",
    version="0.1.0",
    model="moonshine-tiny-en",
    provider="CPUExecutionProvider",
    retain_last=True,
    max_age_s=30,
)
STARTED = datetime(2026, 11, 22, 18, 4, 5, 120_000, UTC)
ENDED = datetime(2026, 11, 22, 18, 4, 6, 980_000, UTC)
SPOKEN_NS = 1_000_000_000_000
FINAL = Final(
    id="01JDA7Q2ZZZZZZZZZZZZZZZZZZ",
    rev=7,
    text="Turn on the kitchen light.",
    confidence=0.93456,
    started_at=STARTED,
    ended_at=ENDED,
    duration_s=1.8649,
    speech_end_ns=SPOKEN_NS,
    endpoint_ns=SPOKEN_NS + 600_000_000,
    language="en",
    model="moonshine-tiny-en",
)
PARTIAL = Partial(
    id=FINAL.id,
    rev=3,
    text="Turn on the",
    confidence=0.81,
    started_at=STARTED,
    duration_s=0.98765,
    language="en",
    model="moonshine-tiny-en",
    stable_chars=7,
)


def after_s(seconds: float) -> int:
    """The monotonic time so long after the last speech sample."""
    return SPOKEN_NS + round(seconds * 1e9)


def decoded(message: Message) -> dict[str, object]:
    value = json.loads(message.payload.decode("utf-8"))
    assert isinstance(value, dict)
    return value


# ------------------------------------------------------------------ availability and state


@pytest.mark.parametrize(("online", "payload"), [(True, b"online"), (False, b"offline")])
def test_availability_is_one_word_retained(online: bool, payload: bytes) -> None:
    message = messages.availability(ABOUT, online=online)
    assert message == Message(f"{ROOT}/availability", payload, 1, retain=True)


@pytest.mark.parametrize(("online", "payload"), [(True, b"online"), (False, b"offline")])
def test_the_microphones_availability_is_one_word_retained(online: bool, payload: bytes) -> None:
    message = messages.microphone_availability(ABOUT, online=online)
    assert message == Message(f"{ROOT}/microphone/availability", payload, 1, retain=True)


def test_what_can_be_set_tells_its_value_retained() -> None:
    message = messages.option_state(ABOUT, "endpoint/silence_ms", "600")
    assert message == Message(f"{ROOT}/endpoint/silence_ms/state", b"600", 1, retain=True)


def test_an_empty_retained_message_clears_the_last_final() -> None:
    assert messages.no_last(ABOUT) == Message(f"{ROOT}/transcript/last", b"", 1, retain=True)


# ------------------------------------------------------------------------------ wake words


def test_a_wake_word_is_told_once_and_not_kept() -> None:
    message = messages.wake(ABOUT, Woken("hey_jarvis", 0.98765, STARTED))
    assert (message.topic, message.qos, message.retain) == (f"{ROOT}/wake", 1, False)
    assert decoded(message) == {
        "event_type": "wake",
        "word": "hey_jarvis",
        "score": 0.988,
        "at": "2026-11-22T18:04:05.120Z",
        "device_id": "kitchen",
    }


@pytest.mark.parametrize(("awake", "payload"), [(True, b"ON"), (False, b"OFF")])
def test_whether_it_is_awake_is_one_word_retained(awake: bool, payload: bytes) -> None:
    message = messages.awake(ABOUT, AwakeChanged(awake))
    assert message == Message(f"{ROOT}/wake/state", payload, 1, retain=True)


# ------------------------------------------------------------------------------- errors


def test_an_error_says_what_it_answers_and_is_not_retained() -> None:
    message = messages.error(ABOUT, "no", "harkd/kitchen/command", b"{}")
    assert (message.topic, message.qos, message.retain) == (f"{ROOT}/error", 1, False)
    assert decoded(message) == {"error": "no", "topic": "harkd/kitchen/command", "payload": "{}"}
    assert decoded(messages.error(ABOUT, "no")) == {"error": "no", "topic": "", "payload": ""}


@given(payload=st.binary(max_size=1000) | st.text(max_size=500).map(str.encode))
def test_any_payload_is_told_back_as_text_and_cut(payload: bytes) -> None:
    told = decoded(messages.error(ABOUT, "no", "t", payload))["payload"]
    assert told == payload.decode("utf-8", "replace")[:200]


def test_state_has_these_keys_and_no_others() -> None:
    event = StateChanged(State.LISTENING, STARTED, "", "USB mic", 48000)
    message = messages.state(ABOUT, event)
    assert (message.topic, message.qos, message.retain) == (f"{ROOT}/state", 1, True)
    assert message.expiry_s is None
    assert decoded(message) == {
        "state": "listening",
        "since": "2026-11-22T18:04:05.120Z",
        "reason": "",
        "version": "0.1.0",
        "model": "moonshine-tiny-en",
        "provider": "CPUExecutionProvider",
        "audio_device": "USB mic",
        "device_rate_hz": 48000,
        "problem": "",
    }


def test_state_knows_these_words_and_no_others() -> None:
    words = {
        decoded(messages.state(ABOUT, StateChanged(state, STARTED)))["state"] for state in State
    }
    assert words == {"starting", "listening", "speech", "muted", "no_microphone", "failed"}


# ------------------------------------------------------------------ while and after speech


def test_a_partial_may_be_lost_and_has_these_keys() -> None:
    message = messages.partial(ABOUT, PARTIAL)
    assert (message.topic, message.qos, message.retain) == (f"{ROOT}/transcript/partial", 0, False)
    assert message.expiry_s is None
    assert decoded(message) == {
        "event_type": "partial",
        "id": FINAL.id,
        "rev": 3,
        "text": "Turn on the",
        "stable_chars": 7,
        "confidence": 0.81,
        "started_at": "2026-11-22T18:04:05.120Z",
        "duration_s": 0.99,
        "language": "en",
        "model": "moonshine-tiny-en",
        "device_id": "kitchen",
    }


@pytest.mark.parametrize("reason", list(RejectReason))
def test_a_rejection_may_be_lost_and_says_why(reason: RejectReason) -> None:
    message = messages.rejected(ABOUT, Rejected(FINAL.id, reason, STARTED, 0.456))
    assert (message.topic, message.qos) == (f"{ROOT}/transcript/rejected", 0)
    assert not message.retain
    assert decoded(message) == {
        "event_type": "rejected",
        "id": FINAL.id,
        "reason": reason.value,
        "started_at": "2026-11-22T18:04:05.120Z",
        "duration_s": 0.46,
    }


def test_the_promised_reasons_are_among_the_reasons() -> None:
    promised = {"no_speech", "too_short", "low_confidence", "repetition"}
    assert promised <= {reason.value for reason in RejectReason}


def test_a_final_has_these_keys_and_no_others() -> None:
    transcript, *_ = final_messages.final(ABOUT, FINAL, after_s(0.4124))
    assert (transcript.topic, transcript.qos, transcript.retain) == (f"{ROOT}/transcript", 1, False)
    assert decoded(transcript) == {
        "event_type": "final",
        "id": FINAL.id,
        "rev": 7,
        "text": "Turn on the kitchen light.",
        "confidence": 0.935,
        "started_at": "2026-11-22T18:04:05.120Z",
        "ended_at": "2026-11-22T18:04:06.980Z",
        "duration_s": 1.86,
        "latency_ms": 412,
        "language": "en",
        "model": "moonshine-tiny-en",
        "device_id": "kitchen",
        "late": False,
    }


def test_a_final_that_nobody_said_says_so_and_no_other_does() -> None:
    transcript, *_ = final_messages.final(ABOUT, replace(FINAL, test=True), after_s(0.4))
    assert decoded(transcript)["test"] is True


def test_words_are_there_only_where_the_model_gives_them() -> None:
    words = (Word("Turn", 0.1234, 0.31), Word("on", 0.31, 0.4))
    transcript, *_ = final_messages.final(ABOUT, replace(FINAL, words=words), after_s(0.4))
    assert decoded(transcript)["words"] == [
        {"word": "Turn", "start_s": 0.12, "end_s": 0.31},
        {"word": "on", "start_s": 0.31, "end_s": 0.4},
    ]


def test_a_final_goes_to_transcript_then_as_text_then_retained_as_the_last() -> None:
    transcript, text, last = final_messages.final(ABOUT, FINAL, after_s(0.4))
    assert text.topic == f"{ROOT}/transcript/text"
    assert (text.qos, text.retain) == (1, False)
    assert text.payload == b"Turn on the kitchen light."
    assert last.topic == f"{ROOT}/transcript/last"
    assert (last.qos, last.retain, last.expiry_s) == (1, True, None)
    assert last.payload == transcript.payload


def test_without_retain_last_nothing_is_kept_by_the_broker() -> None:
    sent = final_messages.final(replace(ABOUT, retain_last=False), FINAL, after_s(0.4))
    assert [message.topic for message in sent] == [
        f"{ROOT}/transcript",
        f"{ROOT}/transcript/text",
    ]
    assert not any(message.retain for message in sent)


# ------------------------------------------------------------------ commands

MATCH = PhraseMatch(
    phrase="turn on the kitchen light",
    intent="light_on",
    slots={"lamp": "light.kitchen", "percent": 50, "degrees": 21.5},
    score=0.87654,
    margin=-0.01239,
)
COMMAND = replace(FINAL, match=MATCH, open_text="Turn on the chicken light.")


def test_a_final_that_is_a_phrase_says_which_and_what_was_heard_without_phrases() -> None:
    transcript, *_ = final_messages.final(ABOUT, COMMAND, after_s(0.4))
    plain, *_ = final_messages.final(ABOUT, FINAL, after_s(0.4))
    assert decoded(transcript) == {
        **decoded(plain),
        "match": {
            "phrase": "turn on the kitchen light",
            "intent": "light_on",
            "slots": {"lamp": "light.kitchen", "percent": 50, "degrees": 21.5},
            "score": 0.877,
            "margin": -0.012,
        },
        "open_text": "Turn on the chicken light.",
    }


def test_its_open_text_is_missing_where_it_is_private() -> None:
    private = redacted(COMMAND)
    assert isinstance(private, Final)
    sent = final_messages.final(ABOUT, private, after_s(0.4))
    assert b'"intent":"light_on"' in sent[0].payload
    assert not any(b"open_text" in each.payload or b"chicken" in each.payload for each in sent)


def test_a_command_has_a_topic_of_its_own_behind_the_transcript_and_is_not_kept() -> None:
    transcript, command, text, last = final_messages.final(ABOUT, COMMAND, after_s(10.5))
    assert transcript.topic == f"{ROOT}/transcript"
    assert command.topic == f"{ROOT}/command/light_on"
    assert (command.qos, command.retain, command.expiry_s) == (1, False, 20)
    assert (text.topic, last.topic) == (f"{ROOT}/transcript/text", f"{ROOT}/transcript/last")


def test_a_command_has_these_keys_and_no_others() -> None:
    _, command, *_ = final_messages.final(ABOUT, COMMAND, after_s(0.4124))
    assert decoded(command) == {
        "event_type": "light_on",
        "id": FINAL.id,
        "phrase": "turn on the kitchen light",
        "intent": "light_on",
        "slots": {"lamp": "light.kitchen", "percent": 50, "degrees": 21.5},
        "score": 0.877,
        "margin": -0.012,
        "text": "Turn on the kitchen light.",
        "started_at": "2026-11-22T18:04:05.120Z",
        "ended_at": "2026-11-22T18:04:06.980Z",
        "latency_ms": 412,
        "device_id": "kitchen",
    }


def test_a_command_that_nobody_said_says_so() -> None:
    _, command, *_ = final_messages.final(ABOUT, replace(COMMAND, test=True), after_s(0.4))
    assert decoded(command)["test"] is True


@pytest.mark.parametrize("now_ns", [after_s(30) + 1, after_s(86_400), None])
def test_a_late_command_is_none(now_ns: int | None) -> None:
    (missed,) = final_messages.final(ABOUT, COMMAND, now_ns)
    assert missed.topic == f"{ROOT}/transcript/missed"
    assert b'"intent":"light_on"' in missed.payload


def test_a_final_is_no_more_messages_than_is_reckoned_with() -> None:
    assert len(final_messages.final(ABOUT, COMMAND, after_s(0.4))) == final_messages.MOST


# ------------------------------------------------------------------ late finals


@pytest.mark.parametrize(
    ("age_s", "expiry_s"), [(0.0, 30), (0.4, 30), (1.0, 29), (10.5, 20), (29.0, 1), (29.999, 1)]
)
def test_the_expiry_is_what_is_left_of_max_age_in_whole_seconds(
    age_s: float, expiry_s: int
) -> None:
    transcript, text, _ = final_messages.final(ABOUT, FINAL, after_s(age_s))
    assert transcript.expiry_s == text.expiry_s == expiry_s


def test_a_final_of_exactly_max_age_is_on_time_with_the_least_expiry() -> None:
    transcript, *_ = final_messages.final(ABOUT, FINAL, after_s(30))
    assert transcript.topic == f"{ROOT}/transcript"
    assert transcript.expiry_s == 1, "0 would mean: never"
    assert decoded(transcript)["late"] is False


def test_a_nanosecond_older_and_it_goes_to_missed_alone() -> None:
    (missed,) = final_messages.final(ABOUT, FINAL, after_s(30) + 1)
    assert (missed.topic, missed.qos, missed.retain) == (f"{ROOT}/transcript/missed", 1, False)
    assert missed.expiry_s is None
    value = decoded(missed)
    assert value["late"] is True
    assert value["latency_ms"] == 30_000
    on_time, *_ = final_messages.final(ABOUT, FINAL, after_s(1))
    assert set(value) == set(decoded(on_time))


# ------------------------------------------------------------------ form


def test_times_are_rfc_3339_in_utc_with_milliseconds() -> None:
    assert utc(datetime(2026, 1, 2, 3, 4, 5, 0, UTC)) == "2026-01-02T03:04:05.000Z"
    assert utc(datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC)) == "2026-01-02T03:04:05.999Z"
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    assert utc(datetime(2026, 1, 2, 3, 4, 5, 0, elsewhere)) == "2026-01-01T21:34:05.000Z"


@given(st.datetimes(min_value=datetime(2000, 1, 1)), st.timezones())
def test_a_time_reads_back_as_the_same_moment(naive: datetime, zone: object) -> None:
    moment = naive.replace(tzinfo=zone)  # type: ignore[arg-type]
    text = utc(moment)
    assert text.endswith("Z")
    assert timedelta(0) <= moment - datetime.fromisoformat(text) < timedelta(milliseconds=1)


def test_text_is_written_as_it_is_not_escaped() -> None:
    final = replace(FINAL, text="Schalte das Küchenlicht ein – 灯をつけて 💡")
    transcript, text, _ = final_messages.final(ABOUT, final, after_s(0))
    assert final.text.encode() in transcript.payload
    assert text.payload == final.text.encode()


@given(st.text())
def test_any_text_is_valid_json_and_reads_back_the_same(text: str) -> None:
    final = replace(FINAL, text=text, words=(Word(text, 0, 1),))
    transcript, alone, last = final_messages.final(ABOUT, final, after_s(0))
    assert decoded(transcript)["text"] == decoded(last)["text"] == text
    assert decoded(transcript)["words"] == [{"word": text, "start_s": 0, "end_s": 1}]
    assert alone.payload.decode("utf-8") == text
    assert decoded(messages.partial(ABOUT, replace(PARTIAL, text=text)))["text"] == text
    state = messages.state(ABOUT, StateChanged(State.FAILED, STARTED, text, text))
    assert (decoded(state)["reason"], decoded(state)["audio_device"]) == (text, text)


def test_a_final_of_unknown_age_is_late_and_has_no_latency() -> None:
    """As one that was said before the machine started."""
    (missed,) = final_messages.final(ABOUT, FINAL, None)
    assert missed.topic == f"{ROOT}/transcript/missed"
    assert (missed.qos, missed.retain, missed.expiry_s) == (1, False, None)
    payload = decoded(missed)
    assert (payload["late"], payload["latency_ms"]) == (True, None)


def test_an_error_says_what_to_mend_and_what_it_was_about() -> None:
    message = messages.error(ABOUT, "The disk is full. Make room.")
    assert (message.topic, message.qos, message.retain) == (f"{ROOT}/error", 1, False)
    wanted = {"error": "The disk is full. Make room.", "topic": "", "payload": ""}
    assert decoded(message) == wanted
    about_a_command = messages.error(ABOUT, "No.", f"{ROOT}/command", "fly")
    assert decoded(about_a_command) == {
        "error": "No.",
        "topic": f"{ROOT}/command",
        "payload": "fly",
    }
