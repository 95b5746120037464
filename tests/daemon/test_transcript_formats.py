"""A transcript, written as each of the formats."""

from __future__ import annotations

import json

import pytest

from harkd.transcript_formats import (
    CUE_LINES,
    FORMATS,
    JOINABLE,
    LINE_CHARACTERS,
    SUFFIXES,
    Transcript,
    Utterance,
    balanced,
    clock,
    cues,
)

LONG = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age "
    "of foolishness, it was the epoch of belief"
)
TRANSCRIPT = Transcript(
    file="rec/a.wav",
    duration_s=3725.987,
    took_s=12.34567,
    utterances=(
        Utterance(0.02, 5.62, "Ever tried, ever failed, no matter, try again.", 0.912),
        Utterance(3723.5, 3725.98, "if a < b && b > c", 0.5),
    ),
)
NOTHING_SAID = Transcript("quiet.wav", 2.0, 0.1, ())


def test_text_is_one_line_for_each_utterance() -> None:
    assert FORMATS["text"](TRANSCRIPT) == (
        "Ever tried, ever failed, no matter, try again.\nif a < b && b > c\n"
    )


def test_json_is_one_object_on_one_line() -> None:
    line = FORMATS["json"](TRANSCRIPT)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "file": "rec/a.wav",
        "duration_s": 3725.99,
        "took_s": 12.346,
        "text": "Ever tried, ever failed, no matter, try again. if a < b && b > c",
        "utterances": [
            {
                "start_s": 0.02,
                "end_s": 5.62,
                "text": "Ever tried, ever failed, no matter, try again.",
                "confidence": 0.912,
            },
            {"start_s": 3723.5, "end_s": 3725.98, "text": "if a < b && b > c", "confidence": 0.5},
        ],
        "error": None,
    }


def test_srt_numbers_its_cues_and_has_a_comma_before_the_milliseconds() -> None:
    assert FORMATS["srt"](TRANSCRIPT) == (
        "1\n"
        "00:00:00,020 --> 00:00:05,620\n"
        "Ever tried, ever failed,\n"
        "no matter, try again.\n"
        "\n"
        "2\n"
        "01:02:03,500 --> 01:02:05,980\n"
        "if a < b && b > c\n"
        "\n"
    )


def test_vtt_has_its_header_and_writes_markup_as_entities() -> None:
    assert FORMATS["vtt"](TRANSCRIPT) == (
        "WEBVTT\n"
        "\n"
        "00:00:00.020 --> 00:00:05.620\n"
        "Ever tried, ever failed,\n"
        "no matter, try again.\n"
        "\n"
        "01:02:03.500 --> 01:02:05.980\n"
        "if a &lt; b &amp;&amp; b &gt; c\n"
        "\n"
    )


def test_tsv_names_its_columns() -> None:
    assert FORMATS["tsv"](TRANSCRIPT) == (
        "start_ms\tend_ms\ttext\n"
        "20\t5620\tEver tried, ever failed, no matter, try again.\n"
        "3723500\t3725980\tif a < b && b > c\n"
    )


@pytest.mark.parametrize("name", ["text", "tsv", "srt", "vtt"])
def test_white_space_in_a_text_never_looks_like_the_format_s_own(name: str) -> None:
    plain = Transcript("a.wav", 9, 1, (Utterance(1, 2, "one two three", 1),))
    spaced = Transcript("a.wav", 9, 1, (Utterance(1, 2, "one\ttwo\r\n\n three ", 1),))
    assert FORMATS[name](spaced) == FORMATS[name](plain)


def test_a_file_without_speech_is_a_whole_document_without_entries() -> None:
    assert {name: write(NOTHING_SAID) for name, write in FORMATS.items() if name != "json"} == {
        "text": "",
        "srt": "",
        "vtt": "WEBVTT\n\n",
        "tsv": "start_ms\tend_ms\ttext\n",
    }


def test_each_format_has_a_suffix_of_its_own() -> None:
    assert set(SUFFIXES) == set(FORMATS)
    assert len(set(SUFFIXES.values())) == len(FORMATS)
    assert set(FORMATS) >= JOINABLE


def test_a_long_utterance_is_divided_into_cues_that_can_be_read() -> None:
    shown = list(cues(Transcript("a.wav", 60, 1, (Utterance(10, 22, LONG, 1),))))
    assert len(shown) == 2
    assert [line for cue in shown for line in cue.lines] == balanced(LONG)
    for cue in shown:
        assert 1 <= len(cue.lines) <= CUE_LINES
        assert all(len(line) <= LINE_CHARACTERS for line in cue.lines)
    assert " ".join(line for cue in shown for line in cue.lines) == LONG


def test_the_cues_of_an_utterance_fill_its_time_without_a_gap() -> None:
    first, second = cues(Transcript("a.wav", 60, 1, (Utterance(10, 22, LONG, 1),)))
    assert (first.start_ms, second.end_ms) == (10_000, 22_000)
    assert first.end_ms == second.start_ms
    share = sum(map(len, first.lines)) / sum(map(len, first.lines + second.lines))
    assert first.end_ms == pytest.approx(10_000 + 12_000 * share, abs=1)


def test_lines_are_of_about_the_same_length() -> None:
    assert balanced("one two three four five six seven eight nine") == [
        "one two three four five",
        "six seven eight nine",
    ]


def test_a_word_longer_than_a_line_is_left_whole() -> None:
    word = "ha" * LINE_CHARACTERS
    assert balanced(f"say {word} again") == ["say", word, "again"]


@pytest.mark.parametrize(
    ("ms", "written"),
    [
        (0, "00:00:00,000"),
        (59_999, "00:00:59,999"),
        (3_600_000, "01:00:00,000"),
        (360_000_001, "100:00:00,001"),
    ],
)
def test_a_time_has_all_its_digits(ms: int, written: str) -> None:
    assert clock(ms, ",") == written
