"""Measuring side by side: who takes turns when, what is billed, and what figures come of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from fakes import FakeRecognizer, Int16, silence, speech
from harkd.audio import RATE_HZ
from harkd.bench_live import Live, Shown
from harkd.bench_measure import Heard, Spread, Timed, measure, read_samples, spread_of
from harkd.bench_report import ALL, Figures, figures_of, lines_of, table
from harkd.bench_whole import Whole, pieces_of
from harkd.bench_words import WordErrors, count_errors, differ, load_normalizer
from harkd.recognizer.protocol import Hypothesis, Work
from harkd.settings import EndpointSettings, Settings
from harkd.speech_list import Recording


class Listener:
    """A subject that notes when it was asked, and works for a while."""

    def __init__(self, name: str, order: list[tuple[str, int]], cpu_s: float = 0.0) -> None:
        self.name = name
        self._order = order
        self._cpu_s = cpu_s

    def prepare(self) -> None:
        end_s = time.process_time() + 0.05
        while time.process_time() < end_s and self._cpu_s:
            pass

    def hear(self, samples: Int16) -> Heard:
        self._order.append((self.name, len(samples)))
        end_s = time.process_time() + self._cpu_s
        while time.process_time() < end_s:
            pass
        return Heard(f"{len(samples)}", Work(encoder_passes=1))


def recordings(folder: Path, *lengths_ms: int, text: str | None = None) -> list[Recording]:
    found = []
    for at, length_ms in enumerate(lengths_ms):
        path = folder / f"{at}.wav"
        soundfile.write(path, speech(length_ms, seed=at), RATE_HZ)
        found.append(Recording(path, "ab"[at % 2], text))
    return found


# ----------------------------------------------------------------------------- taking turns


def test_subjects_take_turns_on_each_recording_in_an_order_that_varies(tmp_path: Path) -> None:
    order: list[tuple[str, int]] = []
    subjects = [Listener(name, order) for name in "xyz"]
    turns: list[None] = []
    measure(subjects, recordings(tmp_path, 100, 200), repeat=10, done=lambda: turns.append(None))
    assert [name for name, _ in order[:3]] == ["x", "y", "z"]  # warming up
    rounds = [order[at : at + 3] for at in range(3, len(order), 3)]
    assert [{samples for _, samples in each} for each in rounds] == [{1600}, {3200}] * 10
    assert {"".join(sorted(name for name, _ in each)) for each in rounds} == {"xyz"}
    assert len({"".join(name for name, _ in each) for each in rounds}) > 2
    assert len(turns) == 60


def test_cpu_is_billed_to_the_subject_that_used_it(tmp_path: Path) -> None:
    order: list[tuple[str, int]] = []
    subjects = [Listener("idle", order), Listener("busy", order, 0.02)]
    idle, busy = measure(subjects, recordings(tmp_path, 100), repeat=3)
    assert 0.05 > busy[0].cpu_s >= 0.02 > idle[0].cpu_s  # what prepares is not billed
    assert busy[0].wall_s >= busy[0].cpu_s * 0.5
    assert busy[0].length_s == 0.1


def test_a_recording_comes_as_the_daemon_hears_it(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, speech(500).repeat(2).reshape(-1, 2), 8000)
    samples = read_samples(path)
    assert samples.dtype == "int16"
    assert samples.shape == (RATE_HZ,)


def test_a_spread_is_by_nearest_rank() -> None:
    assert spread_of([]) is None
    assert spread_of([7.04], 1) == Spread(1, 7.0, 7.0, 7.0)
    assert spread_of(range(100, 0, -1)) == Spread(100, 50, 95, 100)


# ----------------------------------------------------------------------------- whole


def test_whole_is_one_utterance_and_its_work() -> None:
    recognizer = FakeRecognizer()
    heard = Whole("w", recognizer).hear(speech(2000))
    assert heard.text == "32000 samples"
    assert heard.work == Work(encoder_passes=1, encoded_s=2.0)
    assert (heard.partials, heard.finals) == (0, 1)


def test_what_is_longer_than_the_model_takes_is_cut_where_it_is_quiet() -> None:
    audio = speech(12_000)
    audio[8 * RATE_HZ : 8 * RATE_HZ + 8000] = 0
    pieces = pieces_of(audio, 10 * RATE_HZ)
    assert sum(map(len, pieces)) == len(audio)
    assert 8 * RATE_HZ < len(pieces[0]) < 8.5 * RATE_HZ
    recognizer = FakeRecognizer(max_segment_s=10)
    assert Whole("w", recognizer).hear(audio).text == " ".join(f"{len(p)} samples" for p in pieces)


@pytest.mark.parametrize("most", [100, 16_000, 31_999])
def test_every_piece_is_as_short_as_it_must_be(most: int) -> None:
    pieces = pieces_of(silence(2000), most)
    assert max(map(len, pieces)) <= most
    assert sum(map(len, pieces)) == 32_000


# ----------------------------------------------------------------------------- live


def two_words(samples: int) -> Hypothesis:
    """Changes its mind about the second word with every second."""
    return Hypothesis(f"Turn {samples // RATE_HZ} on.", 0.9, tokens=(samples,))


def live(script: Callable[[int], Hypothesis] = two_words, *, tail_s: float) -> Heard:
    audio = speech(3000)
    recognizer = FakeRecognizer(script)
    return Live("l", recognizer, Settings(), tail_s).hear(audio)


def test_live_counts_partials_and_what_they_took_back() -> None:
    heard = live(tail_s=1.0)
    assert heard.finals == 1
    assert heard.text == "Turn 3 on."
    assert heard.partials == 4  # 0, 1, 2, 3
    assert heard.rewrites == 3
    assert heard.words_taken_back == 2 * 3
    assert heard.work.encoder_passes > heard.partials
    assert heard.rejected == 0


def test_the_endpoint_falls_where_the_settings_say() -> None:
    (endpoint_ms,) = live(tail_s=1.0).endpoint_ms
    assert endpoint_ms == pytest.approx(EndpointSettings().silence_ms, abs=60)


def test_what_was_rejected_is_no_text() -> None:
    heard = live(lambda _: Hypothesis("No.", 0.1, tokens=(1,)), tail_s=1.0)
    assert (heard.text, heard.finals, heard.rejected) == ("", 0, 1)


def test_two_runs_count_the_same() -> None:
    assert live(tail_s=0.7) == live(tail_s=0.7)


@pytest.mark.parametrize(
    ("texts", "rewrites", "taken_back"),
    [
        (["Turn", "Turn on", "turn on the light."], 0, 0),
        (["Turn it", "Turn on the"], 1, 1),
        (["Turn on the light", "Turn of the light"], 1, 3),
        (["Turn on the", "Turn on"], 1, 1),
        (["Turn", "", "Turn"], 1, 1),
    ],
)
def test_words_are_taken_back_where_others_stand_in_their_place(
    texts: list[str], rewrites: int, taken_back: int
) -> None:
    shown = Shown()
    for text in texts:
        shown.show("a", text)
        shown.show("b", "the same")
    assert (shown.rewrites, shown.words_taken_back) == (rewrites, taken_back)


# ----------------------------------------------------------------------------- words


def test_errors_are_counted_over_normalized_words() -> None:
    normalizer = load_normalizer("en")
    assert normalizer
    errors = count_errors(
        ["Turn on the light.", "It's twenty one degrees", ""],
        ["turn of light", "It is 21 degrees!", "so what"],
        normalizer,
    )
    assert errors == WordErrors(words=8, errors=4, substitutions=1, deletions=1, insertions=2)
    assert errors.percent == "50.00"


def test_texts_without_words_have_no_rate() -> None:
    errors = count_errors(["..."], ["so"], str.lower)
    assert errors.words == 1  # the normalizer decides what a word is
    errors = count_errors([""], ["so"], str.lower)
    assert (errors.words, errors.errors, errors.rate, errors.percent) == (0, 1, None, "–")


def test_other_languages_have_a_normalizer_that_knows_no_english_numbers() -> None:
    german, english = load_normalizer("de-DE"), load_normalizer("en-GB")
    assert german
    assert english
    assert (german("Twenty one!"), english("Twenty one!")) == ("twenty one ", "21")


def test_texts_differ_by_words_also_where_nothing_normalizes() -> None:
    assert not differ("Turn on.", "turn on", None)
    assert differ("twenty", "20", None)
    assert not differ("twenty", "20", load_normalizer("en"))


# ----------------------------------------------------------------------------- report


def timed(text: str, heard: str, cpu_s: float, category: str = "") -> Timed:
    recording = Recording(Path(category, "x.wav"), category, text)
    work = Work(encoder_passes=1, encoded_s=2.0, decoder_rows=4, tokens=3)
    return Timed(recording, 2.0, cpu_s, cpu_s * 2, Heard(heard, work, 2, 1, 3, 1, 0, (600.0,)))


def two_subjects() -> list[Figures]:
    said = ["turn on the light", "next"]
    first = [timed(said[0], "turn on a light", 0.2, "home"), timed(said[1], "text", 0.1, "cmd")]
    other = [timed(said[0], "turn on the light", 0.1, "home"), timed(said[1], "text", 0.1, "cmd")]
    return figures_of(["first", "other"], [first, other], load_normalizer("en"))


def test_figures_are_per_second_of_audio_and_by_category() -> None:
    first, other = two_subjects()
    assert first.audio_s == 4.0
    assert (first.cpu_s_per_s, first.real_time_factor) == (0.075, 0.15)
    assert (first.counts.encoded_s, first.counts.decoder_rows, first.counts.partials) == (4.0, 8, 4)
    assert first.endpoint_ms == Spread(2, 600, 600, 600)
    assert list(first.categories) == ["home", "cmd", ALL]
    assert first.categories["home"].cpu_s == 0.2
    errors = first.categories["home"].word_errors
    assert errors
    assert (errors.errors, errors.words) == (1, 4)
    assert other.word_errors == WordErrors(5, 1, 1, 0, 0)


def test_others_are_compared_with_the_first() -> None:
    first, other = two_subjects()
    assert first.compared is None
    assert other.compared
    assert other.compared.cpu_ratio == pytest.approx(2 / 3, abs=1e-3)
    assert other.compared.other_words == 1
    assert other.compared.word_error_change == -0.5


def test_the_table_has_a_column_for_each_subject_with_words_and_errors() -> None:
    lines = lines_of("live", two_subjects(), live=True)
    shown = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines if line}
    assert shown["errors / words"] == "1 / 5"
    assert shown["CPU, times the first's"] == "×0.667"
    assert shown["word errors against the first's"] == "-50.0 %"
    assert shown["partials"] == "4"
    assert shown["home"].endswith("(0 / 4)")


def test_without_texts_or_normalizer_there_are_no_word_errors() -> None:
    (figures,) = figures_of(["a"], [[timed("said", "heard", 0.1)]], None)
    assert figures.word_errors is None
    assert list(figures.categories) == [ALL]
    assert not any("word error" in line for line in lines_of("x", [figures], live=False))


def test_cells_are_in_columns() -> None:
    assert table([["a", "1"], ["long", "22"]]) == ["a      1", "long  22"]
