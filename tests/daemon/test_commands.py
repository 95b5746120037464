"""What may be sent to the daemon's topics, and what is answered to everything else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harkd import hotword_list
from harkd.commands import (
    COMMAND,
    LISTEN,
    MOST_BYTES,
    OPTIONS,
    PHRASES,
    TOPICS,
    Command,
    Deed,
    Do,
    Listen,
    SetOption,
    SetPhrases,
    read_command,
)
from harkd.errors import CommandError
from harkd.settings import EndpointSettings, Settings

AGGRESSIVENESS, SILENCE, HOTWORDS = OPTIONS
DEFAULTS = Settings()
ADAPTIVE = Settings(endpoint=EndpointSettings(adaptive=True))


def read(name: str, payload: bytes | str, settings: Settings = ADAPTIVE) -> Command | None:
    raw = payload.encode() if isinstance(payload, str) else payload
    return read_command(name, raw, settings)


def refusal(name: str, payload: bytes | str, settings: Settings = DEFAULTS) -> str:
    with pytest.raises(CommandError) as caught:
        read(name, payload, settings)
    return str(caught.value)


@pytest.mark.parametrize("word", ["ON", "on", "On", " ON\n"])
def test_on_is_on_in_any_case(word: str) -> None:
    assert read(LISTEN, word) == Listen(True)


@pytest.mark.parametrize("word", ["OFF", "off", "oFF\r\n"])
def test_off_is_off_in_any_case(word: str) -> None:
    assert read(LISTEN, word) == Listen(False)


@pytest.mark.parametrize("word", ["1", "true", "ONN", "O N", "\x00ON", '"ON"', "ＯＮ", "\xff"])
def test_nothing_else_switches_the_microphone(word: str) -> None:
    assert "neither ON nor OFF. Send one of the two." in refusal(LISTEN, word)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("3", 3), (" 2\n", 2), ("02", 2)])
def test_aggressiveness_is_a_whole_number(text: str, value: int) -> None:
    assert read(AGGRESSIVENESS, text) == SetOption(("vad", "aggressiveness"), value)


@pytest.mark.parametrize("text", ["2.0", "two", "0x2", "٢", "²", "1e1", "9" * 5000, "nan", "{}"])
def test_what_is_no_whole_number_is_told_with_the_range(text: str) -> None:
    said = refusal(AGGRESSIVENESS, text[:MOST_BYTES])
    assert "is not a whole number for vad.aggressiveness. Send one of 0…3." in said
    assert len(said) < 200


@pytest.mark.parametrize("text", ["-1", "4", "999999999"])
def test_the_bounds_are_those_of_the_settings(text: str) -> None:
    assert refusal(AGGRESSIVENESS, text) == f"vad.aggressiveness: {text} is out of range (0…3)"


def test_a_silence_is_taken_up_to_its_bounds() -> None:
    assert read(SILENCE, "400") == SetOption(("endpoint", "silence_ms"), 400)
    assert read(SILENCE, "1000") == SetOption(("endpoint", "silence_ms"), 1000)
    assert read(SILENCE, "5000", Settings()) == SetOption(("endpoint", "silence_ms"), 5000)
    assert "(100…5000)" in refusal(SILENCE, "5001")


@pytest.mark.parametrize(
    ("text", "settings", "other"),
    [
        ("299", Settings(), "endpoint.pause_ms (300)"),
        ("399", ADAPTIVE, "endpoint.min_silence_ms (400)"),
        ("1001", ADAPTIVE, "endpoint.max_silence_ms (1000)"),
    ],
)
def test_a_silence_that_contradicts_another_setting_is_refused(
    text: str, settings: Settings, other: str
) -> None:
    said = refusal(SILENCE, text, settings)
    assert said.startswith(f"endpoint.silence_ms: {text} is ")
    assert other in said


def test_what_is_in_force_counts_for_contradictions() -> None:
    tight = replace(Settings(), endpoint=EndpointSettings(pause_ms=60))
    assert read(SILENCE, "100", tight) == SetOption(("endpoint", "silence_ms"), 100)


@pytest.mark.parametrize("deed", list(Deed))
def test_each_command_is_known(deed: Deed) -> None:
    assert read(COMMAND, json.dumps({"command": deed})) == Do(deed)


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        ("reload", "not JSON"),
        ('"reload"', 'no object with a "command"'),
        ("[]", 'no object with a "command"'),
        ("{}", 'no object with a "command"'),
        ('{"command":1}', 'no object with a "command"'),
        ('{"command":"reload","now":true}', 'more than "command"'),
        ('{"command":"relaod"}', 'Perhaps {"command":"reload"} was meant'),
        ('{"command":"explode"}', '"explode" is no command'),
        ("[" * 1000, "not JSON"),
        (b'{"command":"\xff"}', "not JSON"),
    ],
)
def test_any_other_command_is_refused_with_what_there_is(payload: bytes | str, part: str) -> None:
    said = refusal(COMMAND, payload)
    assert part in said
    assert '{"command":"reload"}' in said


def test_audio_is_saved_of_as_many_utterances_as_asked_for() -> None:
    assert read(COMMAND, '{"command":"save_audio","count":3}') == Do(Deed.SAVE_AUDIO, 3)
    assert read(COMMAND, '{"command":"save_audio"}') == Do(Deed.SAVE_AUDIO, None)


@pytest.mark.parametrize("count", ["0", "-1", "true", '"3"', "2.5", "[]"])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    said = refusal(COMMAND, f'{{"command":"save_audio","count":{count}}}')
    assert "no whole number from 1 on" in said


def test_other_commands_have_no_count() -> None:
    assert 'more than "command"' in refusal(COMMAND, '{"command":"reload","count":1}')


def test_a_phrase_can_be_tried_as_if_somebody_said_it() -> None:
    wanted = Do(Deed.TEST_FINAL, phrase="Turn on the bed light.")
    assert read(COMMAND, '{"command":"test_final","phrase":"Turn on the bed light."}') == wanted


@pytest.mark.parametrize("phrase", ["1", "null", "[]", '{"intent":"on"}'])
def test_a_phrase_that_is_none_is_refused(phrase: str) -> None:
    said = refusal(COMMAND, f'{{"command":"test_final","phrase":{phrase}}}')
    assert '"phrase" is no text' in said


def test_other_commands_have_no_phrase() -> None:
    assert 'more than "command"' in refusal(COMMAND, '{"command":"listen","phrase":"go"}')
    assert 'more than "command"' in refusal(COMMAND, '{"command":"test_final","count":1}')


@pytest.mark.parametrize("payload", [b"{}", b"[", b"\xff" * 300_000])
def test_phrases_are_handed_on_as_they_came(payload: bytes) -> None:
    assert read(PHRASES, payload) == SetPhrases(payload)


def test_a_retained_command_is_refused() -> None:
    with pytest.raises(CommandError, match="Clear it with an empty retained message"):
        read_command(COMMAND, b'{"command":"reload"}', Settings(), retained=True)


def test_a_retained_value_is_taken() -> None:
    assert read_command(LISTEN, b"OFF", Settings(), retained=True) == Listen(False)


@pytest.mark.parametrize("name", TOPICS)
@pytest.mark.parametrize("retained", [False, True])
def test_an_empty_message_is_nothing(name: str, retained: bool) -> None:
    assert read_command(name, b"", Settings(), retained=retained) is None


@pytest.mark.parametrize("name", sorted(set(TOPICS) - {PHRASES}))
def test_what_is_too_long_is_not_even_read(name: str) -> None:
    most = hotword_list.MOST_BYTES if name == HOTWORDS else MOST_BYTES
    assert f"{most + 1} bytes are no command" in refusal(name, b"1" * (most + 1))


@given(name=st.sampled_from(TOPICS), payload=st.binary(max_size=2000), retained=st.booleans())
@example(LISTEN, b"\xf0\x9f", False)
@example(COMMAND, b"\xef\xbb\xbf{}", False)
def test_any_bytes_are_a_command_or_one_refusal_on_one_line(
    name: str, payload: bytes, retained: bool
) -> None:
    try:
        command = read_command(name, payload, Settings(), retained=retained)
    except CommandError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) < 300
        said.encode()
    else:
        assert (command is None) == (payload == b"")
