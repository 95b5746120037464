"""The lean Moonshine: what is left out while a segment grows is never left out of its final."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.bench_live import Shown
from harkd.errors import ModelDamagedError, RecognitionError
from harkd.model_package import Limits, Manifest, PackagedFile, load_manifest
from harkd.recognizer import lean_encoder, lean_stream, moonshine_lean
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.lean_decoder import PROPOSED_MOST, DecoderState, LeanDecoder
from harkd.recognizer.lean_encoder import (
    ANEW_FACTOR,
    FRAME_SAMPLES,
    LOOK_AHEAD_FRAMES,
)
from harkd.recognizer.lean_stream import NEW_TOKENS_MORE
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.moonshine_tokens import STEM_SAMPLES, Decoded
from harkd.recognizer.protocol import EVERYTHING, NEVER_UNSURE, Effort, Hypothesis, Work
from speech import word_error_rate

Int16 = NDArray[np.int16]
FRAME_S = FRAME_SAMPLES / RATE_HZ
LOOK_AHEAD_S = LOOK_AHEAD_FRAMES * FRAME_S

pytestmark = pytest.mark.model


def loaded(folder: Path, effort: Effort = EVERYTHING, **changes: Any) -> MoonshineLean:
    manifest = msgspec.structs.replace(load_manifest(folder), **changes)
    recognizer = load_recognizer(folder, manifest, threads=1, effort=effort)
    assert isinstance(recognizer, MoonshineLean)
    return recognizer


@pytest.fixture(scope="module")
def model(lean_model_dir: Path) -> MoonshineLean:
    """Loaded once."""
    return loaded(lean_model_dir)


def recording(folder: Path, name: str) -> Int16:
    """One that comes with the published model: int16, (n,), 16 kHz."""
    samples = {Path(each.path).stem: each.path for each in load_manifest(folder).samples}
    audio, rate_hz = soundfile.read(folder / samples[name], dtype="int16", always_2d=True)
    mono = audio[:, 0]
    found: Int16 = mono if rate_hz == RATE_HZ else soxr.resample(mono, rate_hz, RATE_HZ)
    return found


@pytest.fixture(scope="module")
def beckett(model_dir: Path) -> Int16:
    return recording(model_dir, "beckett")


def heard(model: MoonshineLean | Moonshine, audio: Int16) -> Hypothesis:
    stream = model.stream()
    stream.accept(audio)
    return stream.finish()


# ------------------------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("name", "begin_s", "seconds"),
    [
        ("beckett", 0, 10),
        ("two_cities", 0, 8),
        ("two_cities", 12, 10),
        ("two_cities", 30, 9),
        ("endgame_nagg_nell", 4, 8),
    ],
)
def test_it_hears_what_the_published_files_hear(
    model: MoonshineLean, model_dir: Path, name: str, begin_s: int, seconds: int
) -> None:
    """But for a word or two where it guesses: the products are quantized in other groups."""
    published = load_recognizer(model_dir, load_manifest(model_dir), threads=1)
    assert isinstance(published, Moonshine)
    begin = begin_s * RATE_HZ
    audio = recording(model_dir, name)[begin : begin + seconds * RATE_HZ]
    wanted, found = heard(published, audio), heard(model, audio)
    words = len(wanted.text.split())
    assert words > 5
    assert word_error_rate(wanted.text, found.text) <= 2 / words
    assert abs(wanted.confidence - found.confidence) < 0.1


def test_it_understands_its_sample(model: MoonshineLean, model_dir: Path, beckett: Int16) -> None:
    text = load_manifest(model_dir).samples[0].text
    assert text
    found = heard(model, beckett)
    assert word_error_rate(text, found.text) <= 0.1
    assert 0.5 < found.confidence <= 1
    assert found.tokens
    assert not found.looped


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("draft", [False, True])
def test_no_split_of_the_audio_and_no_partial_changes_the_final(
    lean_model_dir: Path, beckett: Int16, seed: int, draft: bool
) -> None:
    """But for near ties with drafts, whose tokens are quantized together."""
    model = loaded(lean_model_dir, Effort(draft=draft))
    wanted = heard(model, beckett)
    rng = np.random.default_rng(seed)
    stream = model.stream()
    at = 0
    while at < len(beckett):
        size = int(rng.choice([1, 100, 894, 5000, 16_000, 40_000]))
        stream.accept(beckett[at : at + size])
        at += size
        [lambda: None, stream.hypothesis, stream.prepare][rng.integers(0, 3)]()
    found = stream.finish()
    if draft:
        assert word_error_rate(wanted.text, found.text) <= 0.1
        assert found.confidence == pytest.approx(wanted.confidence, abs=0.05)
    else:
        assert found.tokens == wanted.tokens
        assert found.confidence == pytest.approx(wanted.confidence, abs=0.005)


def test_without_partials_a_split_changes_nothing_at_all(
    model: MoonshineLean, beckett: Int16
) -> None:
    stream = model.stream()
    for piece in np.array_split(beckett, 77):
        stream.accept(piece)
    assert stream.finish() == heard(model, beckett)


def test_the_same_calls_give_the_same_in_each_run(model: MoonshineLean, beckett: Int16) -> None:
    """Also in a cache that another segment has used."""

    def run() -> list[Hypothesis]:
        stream = model.stream()
        said = []
        for piece in np.array_split(beckett, 20):
            stream.accept(piece)
            said.append(stream.hypothesis())
        return [*said, stream.finish()]

    first = run()
    heard(model, beckett[::-1].copy())
    assert run() == first


@pytest.mark.parametrize("effort", [Effort(False, True), Effort(True, False), Effort(False, False)])
def test_no_effort_changes_the_final(
    model: MoonshineLean, lean_model_dir: Path, beckett: Int16, effort: Effort
) -> None:
    thorough = loaded(lean_model_dir, effort)
    stream = thorough.stream()
    for piece in np.array_split(beckett, 10):
        stream.accept(piece)
        stream.hypothesis()
    assert stream.finish().text == heard(model, beckett).text


# ------------------------------------------------------------------------------- prepare


def test_what_was_prepared_is_the_final_for_nothing(model: MoonshineLean, beckett: Int16) -> None:
    stream = model.stream()
    stream.accept(beckett[:32_000])
    stream.hypothesis()
    stream.accept(beckett[32_000:])
    prepared = stream.prepare()
    before = model.work.snapshot()
    assert stream.prepare() is prepared
    assert stream.hypothesis() is prepared
    stream.accept(beckett[:0])
    assert stream.finish() is prepared
    assert stream.finish() is prepared, "twice"
    assert model.work.since(before) == Work()


def test_audio_after_a_prepare_is_heard_too(model: MoonshineLean, beckett: Int16) -> None:
    """As after a pause that did not last."""
    stream = model.stream()
    stream.accept(beckett[:80_000])
    prepared = stream.prepare()
    stream.accept(beckett[80_000:])
    assert len(stream.hypothesis().text) > len(prepared.text)
    assert stream.finish().text == heard(model, beckett).text


def test_a_prepare_encodes_everything_anew(model: MoonshineLean, beckett: Int16) -> None:
    """A partial of the same audio is no substitute."""
    stream = model.stream()
    stream.accept(beckett[:48_000])
    rough = stream.hypothesis()
    before = model.work.snapshot()
    exact = stream.prepare()
    work = model.work.since(before)
    assert work.encoder_passes == 1
    assert work.encoded_s == pytest.approx(3, abs=3 * FRAME_S)
    assert work.decoder_rows >= len(exact.tokens)
    assert stream.hypothesis() is exact
    assert rough.text


# ------------------------------------------------------------------------------ the work


def updates(model: MoonshineLean, audio: Int16, step: int = 8000) -> Iterator[tuple[int, Any, int]]:
    """Samples so far, the work, and the tokens, of each `hypothesis`."""
    stream = model.stream()
    for at in range(0, len(audio), step):
        stream.accept(audio[at : at + step])
        before = model.work.snapshot()
        tokens = len(stream.hypothesis().tokens)
        yield min(at + step, len(audio)), model.work.since(before), tokens


def test_a_partial_encodes_what_is_new_and_the_look_ahead(
    model: MoonshineLean, beckett: Int16
) -> None:
    """But for those that encode everything anew, since it has doubled."""
    anew = [0.0]
    for samples, work, _ in updates(model, beckett):
        assert work.encoder_passes == 1
        if work.encoded_s > 0.5 + LOOK_AHEAD_S + FRAME_S:
            assert work.encoded_s == pytest.approx(samples / RATE_HZ, abs=3 * FRAME_S)
            assert work.encoded_s >= ANEW_FACTOR * anew[-1]
            anew.append(work.encoded_s)
    assert len(anew) in (3, 4), "of 10 s: at 2, 4 and 8 s"


def test_without_increments_a_partial_encodes_everything(
    lean_model_dir: Path, beckett: Int16
) -> None:
    model = loaded(lean_model_dir, Effort(incremental=False))
    for samples, work, _ in updates(model, beckett):
        assert work.encoded_s == pytest.approx(samples / RATE_HZ, abs=3 * FRAME_S)


def test_without_drafts_each_token_is_a_pass(lean_model_dir: Path, beckett: Int16) -> None:
    model = loaded(lean_model_dir, Effort(draft=False))
    for _, work, tokens in updates(model, beckett):
        assert work.decoder_passes == work.decoder_rows
        assert tokens <= work.decoder_passes <= tokens + 1, "and one for the end, if it is reached"
        assert work.tokens == tokens


def test_with_drafts_partials_take_a_fraction_of_the_passes(
    model: MoonshineLean, lean_model_dir: Path, beckett: Int16
) -> None:
    without = loaded(lean_model_dir, Effort(draft=False))
    passes = [
        sum(work.decoder_passes for _, work, _ in updates(each, beckett))
        for each in (model, without)
    ]
    assert passes[0] < 0.5 * passes[1]


def test_a_final_after_its_partial_verifies_its_text_in_few_passes(
    model: MoonshineLean, beckett: Int16
) -> None:
    stream = model.stream()
    stream.accept(beckett)
    tokens = stream.prepare().tokens
    stream.accept(np.zeros(FRAME_SAMPLES, np.int16))
    before = model.work.snapshot()
    assert stream.finish().tokens == tokens
    work = model.work.since(before)
    assert work.decoder_passes <= 1 + len(tokens) // PROPOSED_MOST + 1
    assert work.decoder_rows <= len(tokens) + 4


def test_a_partial_ends_before_what_is_unlikely_and_a_final_does_not(
    lean_model_dir: Path, beckett: Int16
) -> None:
    """Also without drafts, and where every word is wanted surer than it can be."""
    audio = beckett[: 7 * RATE_HZ]
    for draft in (True, False):
        sure = loaded(lean_model_dir, Effort(draft=draft, partial_confidence=1.0))
        stream = sure.stream()
        stream.accept(audio)
        partial = stream.hypothesis()
        assert len(partial.tokens) == 1
        final = stream.prepare()
        assert len(final.tokens) > 10
        assert final.text.startswith(partial.text)
        assert final.tokens == heard(loaded(lean_model_dir, Effort(draft=False)), audio).tokens


def test_partials_that_end_before_what_is_unlikely_take_less_back(
    model: MoonshineLean, lean_model_dir: Path, model_dir: Path
) -> None:
    cities = recording(model_dir, "two_cities")[: 12 * RATE_HZ]
    bold = loaded(lean_model_dir, Effort(partial_confidence=0.0))
    taken_back = []
    for each in (model, bold):
        stream, shown = each.stream(), Shown()
        for piece in np.array_split(cities, 24):
            stream.accept(piece)
            shown.show(0, stream.hypothesis().text)
        shown.show(0, stream.finish().text)
        taken_back.append(shown.words_taken_back)
    assert taken_back[0] < taken_back[1]


@pytest.mark.parametrize("exact", [True, False])
def test_a_restarted_stream_hears_nothing_of_what_it_heard(
    lean_model_dir: Path, beckett: Int16, exact: bool
) -> None:
    model = loaded(lean_model_dir, Effort(draft=False))  # a draft is rounded otherwise
    stream = model.stream()
    stream.accept(beckett[: 6 * RATE_HZ])
    stream.prepare() if exact else stream.hypothesis()
    stream.accept(beckett[6 * RATE_HZ : 7 * RATE_HZ])
    stream.restart()
    assert stream.finish() == Hypothesis("", 0.0)
    stream.restart()
    stream.accept(beckett[: 5 * RATE_HZ])
    stream.hypothesis()
    stream.accept(beckett[5 * RATE_HZ : 6 * RATE_HZ])
    assert stream.finish() == heard(model, beckett[: 6 * RATE_HZ])


def test_a_restarted_stream_verifies_what_it_recognized(
    model: MoonshineLean, beckett: Int16
) -> None:
    stream = model.stream()
    stream.accept(beckett)
    stream.hypothesis()
    stream.restart()
    shorter = beckett[: 9 * RATE_HZ]
    stream.accept(shorter)
    before = model.work.snapshot()
    text = stream.prepare().text
    work = model.work.since(before)
    assert work.encoded_s == pytest.approx(9, abs=3 * FRAME_S)
    assert work.decoder_passes < 0.5 * work.tokens
    assert word_error_rate(heard(model, shorter).text, text) <= 0.1


# ----------------------------------------------------------------------- little audio


@pytest.mark.parametrize("samples", [1, 894, 895, 896, 1278, 1279])
def test_audio_shorter_than_a_frame_is_padded_and_more_comes_in_its_place(
    model: MoonshineLean, beckett: Int16, samples: int
) -> None:
    stream = model.stream()
    stream.accept(beckett[:samples])
    assert 0 <= stream.hypothesis().confidence <= 1
    assert 0 <= stream.prepare().confidence <= 1
    stream.accept(beckett[samples:])
    assert stream.finish().text == heard(model, beckett).text


def test_a_padded_frame_is_that_of_silence_after_the_audio(
    model: MoonshineLean, beckett: Int16
) -> None:
    few = beckett[20_000:20_500]
    padded = np.pad(few, (0, STEM_SAMPLES - len(few)))
    assert heard(model, few) == heard(model, padded)


def test_no_audio_is_no_words_and_no_work(model: MoonshineLean) -> None:
    before = model.work.snapshot()
    stream = model.stream()
    stream.accept(np.empty(0, np.int16))
    for ask in (stream.hypothesis, stream.prepare, stream.finish):
        assert (ask().text, ask().confidence, ask().tokens) == ("", 0.0, ())
    assert model.work.since(before) == Work()


@pytest.mark.parametrize("value", [0, 1, 32767, -32768])
def test_audio_without_sound_has_a_confidence_too(model: MoonshineLean, value: int) -> None:
    found = heard(model, np.full(20_000, value, np.int16))
    assert 0 <= found.confidence <= 1


# --------------------------------------------------------------------------- much audio


def test_more_audio_than_was_expected_is_heard_to_its_end(
    lean_model_dir: Path, model: MoonshineLean, beckett: Int16
) -> None:
    """The tokens have an end where the longest segment has; the audio has none there."""
    short = loaded(lean_model_dir, limits=Limits(max_segment_s=2.0))
    found = heard(short, beckett)
    assert len(found.tokens) == int(2 * 6.5) + 2
    assert found.tokens == heard(model, beckett).tokens[: len(found.tokens)]


def test_a_segment_longer_than_the_graphs_is_refused_with_a_mend(model: MoonshineLean) -> None:
    stream = model.stream()
    stream.accept(np.zeros(99 * RATE_HZ, np.int16))
    for ask in (stream.hypothesis, stream.prepare, stream.finish):
        with pytest.raises(RecognitionError, match="takes no segment of 99 s") as failed:
            ask()
        assert failed.value.mend == "set endpoint.max_utterance_s to 30 at most"


def test_the_longest_segment_is_never_longer_than_the_graphs(lean_model_dir: Path) -> None:
    """Whatever the manifest says: utterances are cut there."""
    model = loaded(lean_model_dir, limits=Limits(max_segment_s=1e9, max_tokens_per_s=1e9))
    assert model.max_segment_s == pytest.approx(98.3, abs=0.1)
    stream = model.stream()
    stream.accept(np.zeros(int(model.max_segment_s * RATE_HZ), np.int16))
    assert 0 <= stream.finish().confidence <= 1


@pytest.mark.parametrize("limit", [{"max_segment_s": 1e-6}, {"max_tokens_per_s": 1e-6}])
def test_limits_next_to_nothing_are_kept_too(
    lean_model_dir: Path, beckett: Int16, limit: dict[str, float]
) -> None:
    assert len(heard(loaded(lean_model_dir, limits=Limits(**limit)), beckett).tokens) == 2


def test_limits_without_an_end_are_taken(lean_model_dir: Path, beckett: Int16) -> None:
    endless = float("inf")
    model = loaded(lean_model_dir, limits=Limits(max_segment_s=endless, max_tokens_per_s=endless))
    assert heard(model, beckett).text


# ----------------------------------------------------------------------- several streams


def test_streams_take_turns(lean_model_dir: Path, beckett: Int16) -> None:
    model = loaded(lean_model_dir, Effort(draft=False))  # a draft is rounded otherwise
    one, other = beckett[:80_000], beckett[80_000:]
    wanted = heard(model, one).text, heard(model, other).text
    streams = model.stream(), model.stream()
    for pieces in zip(np.array_split(one, 9), np.array_split(other, 9), strict=True):
        for stream, piece in zip(streams, pieces, strict=True):
            stream.accept(piece)
            stream.hypothesis()
    assert tuple(stream.finish().text for stream in streams) == wanted


def test_threads_with_a_stream_each_hear_what_one_alone_does(
    model: MoonshineLean, beckett: Int16
) -> None:
    parts = [beckett[i * 20_000 :] for i in range(4)]

    def run(part: Int16) -> list[Hypothesis]:
        said = []
        for _ in range(3):
            stream = model.stream()
            for piece in np.array_split(part, 6):
                stream.accept(piece)
                said.append(stream.hypothesis())
            said.append(stream.finish())
        return said

    wanted = [run(part) for part in parts]
    found: dict[int, list[Hypothesis]] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, run(parts[i]))) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == wanted


def test_a_finished_stream_leaves_its_cache_to_the_next_and_a_dropped_one_takes_it_along(
    lean_model_dir: Path, beckett: Int16
) -> None:
    model = loaded(lean_model_dir)
    assert len(model.spare) == 1, "that of the trial when it was loaded"
    first, second = model.stream(), model.stream()
    for stream in (first, second):
        stream.accept(beckett[:32_000])
        stream.hypothesis()
    assert not model.spare
    del second
    text = first.finish().text
    assert len(model.spare) == 1
    assert heard(model, beckett[:32_000]).text == text
    assert len(model.spare) == 1


def test_a_spare_cache_holds_no_segments_keys_and_values(
    lean_model_dir: Path, beckett: Int16
) -> None:
    """20 MB for half a minute."""
    model = loaded(lean_model_dir)
    heard(model, beckett)
    (spare,) = model.spare
    assert sum(each.nbytes for each in spare._cross) == 0


def test_when_two_want_the_last_spare_cache_one_makes_its_own(
    model: MoonshineLean, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look and a pop, another thread may have been faster."""

    class Taken(list[DecoderState]):
        def __bool__(self) -> bool:
            return True

    monkeypatch.setattr(model, "spare", Taken())
    assert isinstance(model.cache(), DecoderState)


# ------------------------------------------------------------------------------ failures


class FailingAt:
    """A decoder's session that fails at one of its runs, after it has written to the cache."""

    def __init__(self, session: Any, at: int) -> None:
        self._session = session
        self._left = at

    def run_with_iobinding(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding)
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("out of memory\nand more")


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("exact", [True, False])
def test_a_failing_pass_is_a_recognition_error_and_the_next_one_is_right(
    model: MoonshineLean, beckett: Int16, at: int, exact: bool
) -> None:
    stream = model.stream()
    for piece in np.array_split(beckett[:80_000], 10):
        stream.accept(piece)
        stream.hypothesis()
    assert stream._agreed() > lean_stream.UNSETTLED_TOKENS, "else nothing would be trusted"
    stream.accept(beckett[80_000:])
    state = stream._decoder
    assert state
    session = state._session
    state._session = FailingAt(session, at)
    with pytest.raises(RecognitionError, match=r"failed on .* s of audio \(out of memory\)") as no:
        stream.prepare() if exact else stream.hypothesis()
    assert no.value.mend
    state._session = session
    again = stream.hypothesis()
    fresh = model.stream()
    fresh.accept(beckett)
    assert word_error_rate(fresh.prepare().text, again.text) < 0.5
    assert stream.finish().text == fresh.finish().text


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_no_error_of_the_library_gets_out(
    model: MoonshineLean, beckett: Int16, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    stream = model.stream()
    stream.accept(beckett[:32_000])
    target = "EncoderState.encode" if part == "encoder" else "DecoderState.attend_to"
    with monkeypatch.context() as patch:
        patch.setattr(f"harkd.recognizer.moonshine_lean.{target}", fail)
        for ask in (stream.hypothesis, stream.prepare, stream.finish):
            with pytest.raises(RecognitionError, match=r"failed on 2\.0 s") as failed:
                ask()
            assert failed.value.mend
    assert stream.finish().text == heard(model, beckett[:32_000]).text, "no audio was lost"


# ------------------------------------------------------------------------ what is trusted


class Script:
    """In the cache's place: gives what it is told, and remembers what it was asked."""

    def __init__(self, _: object) -> None:
        self.asked: list[tuple[list[int], int, bool]] = []
        self.most_new: list[int | None] = []
        self.said = Decoded(ended=True)

    def attend_to(self, _: object) -> None:
        pass

    def let_go(self) -> None:
        pass

    def decode(
        self,
        draft: Decoded,
        most: int,
        trusted: int = 0,
        closing: frozenset[int] = frozenset(),
        unsure: float = NEVER_UNSURE,
        most_new: int | None = None,
        watch: object = None,
    ) -> Decoded:
        assert most > 0
        assert (most_new is not None) == bool(closing), "in a partial"
        self.most_new.append(most_new)
        assert watch is None, "without hotwords"
        assert unsure == (math.log(0.4) if closing else NEVER_UNSURE), "but in a partial"
        self.asked.append((draft.tokens, trusted, bool(closing)))
        return self.said


Answer = Callable[..., tuple[list[int], int, bool]]


@pytest.fixture
def answered(model: MoonshineLean, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Lets the next hypothesis be this one; returns the draft, what was trusted, and if closing."""
    monkeypatch.setattr(moonshine_lean, "DecoderState", Script)
    monkeypatch.setattr(model, "spare", [])
    monkeypatch.setattr(lean_encoder, "ANEW_FACTOR", math.inf)
    stream = model.stream()

    def answer(
        *tokens: int, ended: bool = True, exact: bool = False
    ) -> tuple[list[int], int, bool]:
        stream.accept(np.zeros(8000, np.int16))
        script: Any = stream._decoder or Script(None)
        stream._decoder = script
        script.said = Decoded(list(tokens), [-0.1] * len(tokens), ended)
        stream.prepare() if exact else stream.hypothesis()
        asked: tuple[list[int], int, bool] = script.asked[-1]
        return asked

    return answer


TEN = list(range(100, 110))


def test_tokens_on_which_two_hypotheses_agreed_are_trusted_but_for_the_last(
    answered: Answer,
) -> None:
    assert answered(*TEN) == ([], 0, True)
    assert answered(*TEN, 5) == (TEN, 0, True), "there is one alone"
    assert answered(*TEN[:6], 5) == ([*TEN, 5], 7, True)
    assert answered(5) == ([*TEN[:6], 5], 3, True), "and where they differ, what is before"
    assert answered(5) == ([5], 0, True)


def test_the_last_tokens_are_verified_also_if_the_hypothesis_got_shorter(answered: Answer) -> None:
    answered(*TEN)
    answered(*TEN[:8])
    assert answered(*TEN) == (TEN[:8], 5, True)


def test_nothing_is_trusted_when_all_was_encoded_anew(
    answered: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(*TEN)
    answered(*TEN)
    assert answered(*TEN)[1] == 7
    monkeypatch.setattr(lean_encoder, "ANEW_FACTOR", 1)
    assert answered(*TEN)[1] == 0


def test_a_partial_has_no_more_new_tokens_than_its_new_audio_can_hold(
    model: MoonshineLean, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moonshine_lean, "DecoderState", Script)
    monkeypatch.setattr(model, "spare", [])
    stream = model.stream()
    for seconds in (2.0, 0.5, 1.0):
        stream.accept(np.zeros(int(seconds * RATE_HZ), np.int16))
        stream.hypothesis()
    script: Any = stream._decoder
    wanted = [model.most_tokens(each) + NEW_TOKENS_MORE for each in (32_000, 8000, 16_000)]
    assert script.most_new == wanted


def test_a_hypothesis_that_did_not_end_is_not_trusted(answered: Answer) -> None:
    """As one that was stopped in a loop: the next would never get out of it."""
    loop = [7, 8] * 20
    answered(*loop, ended=False)
    answered(*loop, ended=False)
    assert answered(*TEN) == (loop, 0, True)


def test_what_prepares_a_final_trusts_in_nothing_and_looks_behind_each_stop(
    answered: Answer,
) -> None:
    answered(*TEN)
    answered(*TEN)
    assert answered(*TEN, exact=True) == (TEN, 0, False)
    assert answered(*TEN)[1] == 7, "and is trusted itself"


# ----------------------------------------------------------------------- what is damaged


def with_files(folder: Path, **paths: str | None) -> Manifest:
    """Let roles name other files; None takes the role away."""
    manifest = load_manifest(folder)
    files = {role: file for role, file in manifest.files.items() if paths.get(role, "") is not None}
    for role, path in paths.items():
        if path:
            files[role] = PackagedFile(path=path, sha256="0" * 64, size_bytes=0)
    return msgspec.structs.replace(manifest, files=files)


STEM, ENCODER, DECODER, TOKENIZER = "stem.onnx", "encoder.onnx", "decoder.onnx", "tokenizer.bin"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"stem": None}, "names no stem, which"),
        ({"encoder": None, "decoder": None}, "names no encoder and no decoder, which"),
        ({"tokenizer": None}, "names no tokenizer"),
        ({"tokenizer": ENCODER}, "tokenizer"),
        ({"encoder": DECODER}, "no lean Moonshine.*past_key_0"),
        ({"encoder": STEM}, "no lean Moonshine.*past_key_0"),
        ({"decoder": ENCODER}, "no lean Moonshine.*tokens"),
        ({"stem": ENCODER, "encoder": STEM}, "no lean Moonshine"),
        ({"encoder": DECODER, "decoder": ENCODER}, "no lean Moonshine"),
        ({"stem": ENCODER}, "do not work together"),
        ({"stem": DECODER}, "do not work together"),
    ],
)
def test_files_in_the_wrong_roles_are_told(
    lean_model_dir: Path, paths: dict[str, str | None], message: str
) -> None:
    with pytest.raises(ModelDamagedError, match=message) as damaged:
        load_recognizer(lean_model_dir, with_files(lean_model_dir, **paths), threads=1)
    assert damaged.value.mend


@pytest.mark.parametrize("role", ["stem", "encoder", "decoder"])
def test_a_published_file_in_a_lean_package_is_told(
    lean_model_dir: Path, model_dir: Path, role: str
) -> None:
    published = load_manifest(model_dir).files["decoder" if role == "decoder" else "encoder"]
    wrong = with_files(lean_model_dir, **{role: str(model_dir / published.path)})
    with pytest.raises(ModelDamagedError, match=r"no lean Moonshine|do not work together") as no:
        load_recognizer(lean_model_dir, wrong, threads=1)
    assert no.value.mend


@pytest.mark.parametrize("layout", ["1", "10"])
def test_a_package_of_another_converter_is_to_be_made_again(
    lean_model_dir: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(lean_encoder, "LAYOUT", layout)
    with pytest.raises(ModelDamagedError, match=f"layout 2 instead of {layout}") as damaged:
        load_recognizer(lean_model_dir, load_manifest(lean_model_dir), threads=1)
    assert "make the package again" in damaged.value.mend


@pytest.mark.parametrize("name", [STEM, ENCODER, DECODER, TOKENIZER])
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_damaged_file_is_named_with_a_mend(
    lean_model_dir: Path, tmp_path: Path, name: str, kept: float
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(lean_model_dir, folder, symlinks=True)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ModelDamagedError, match=name) as damaged:
        load_recognizer(folder, load_manifest(folder), threads=1)
    assert damaged.value.mend


def test_a_tokenizer_of_another_model_is_told(lean_model_dir: Path, tmp_path: Path) -> None:
    """One token less is enough: each later one would have another's text."""
    tokens = (lean_model_dir / TOKENIZER).read_bytes()
    path = tmp_path / TOKENIZER
    path.write_bytes(tokens + b"\x05extra")
    wrong = with_files(lean_model_dir, tokenizer=str(path))
    message = "32769 tokens, but the decoder 32768: they are not from one model"
    with pytest.raises(ModelDamagedError, match=message) as damaged:
        load_recognizer(lean_model_dir, wrong, threads=1)
    assert damaged.value.mend


def test_the_cache_has_room_for_what_the_longest_segment_can_say(
    model: MoonshineLean, lean_model_dir: Path
) -> None:
    assert model.decoder.capacity == int(30 * 6.5) + 3
    most = LeanDecoder(lean_model_dir / DECODER, 1, 10**9).capacity
    assert most == 1024, "and no more than the graph has positions"
