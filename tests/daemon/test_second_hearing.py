"""A streaming Moonshine hears a final in doubt both ways: in passes, and all of it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import RecognitionError
from harkd.memory_need import need_of
from harkd.model_package import Manifest, Streaming, load_manifest
from harkd.recognizer import lean_stream
from harkd.recognizer.encoding import Encoded, Encoding
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.lean_decoder import DecoderState
from harkd.recognizer.lean_encoder import FRAME_SAMPLES
from harkd.recognizer.lean_stream import LeanStream
from harkd.recognizer.moonshine_streaming import MoonshineStreaming, StreamingEncoding
from harkd.recognizer.moonshine_tokens import TOKEN_END, Decoded
from harkd.recognizer.phrase_scorer import PhraseScorer, Scope
from harkd.recognizer.phrase_search import Width
from harkd.recognizer.protocol import NEVER_UNSURE, Effort, Hypothesis, Work
from harkd.recognizer.second_hearing import heard_again, in_doubt, said_twice
from harkd.recognizer.streaming_encoder import StreamingEncoderState
from harkd.settings import EndpointSettings
from small_phrases import small_graph

Int16 = NDArray[np.int16]
BELOW = math.log(0.45)
ALONE = Effort(draft=False)
"""Drafts are rounded otherwise."""


def said(*probabilities: float, ended: bool = True) -> Decoded:
    return Decoded(
        list(range(5, 4 + len(probabilities))), [math.log(each) for each in probabilities], ended
    )


# ------------------------------------------------------------------------------ when


@pytest.mark.parametrize(
    ("decoded", "doubted"),
    [
        (said(0.9, 0.9, 0.9, 0.9), False),
        (said(0.9, 0.15, 0.9, 0.9), False),
        (said(0.9, 0.15, 0.3, 0.9), True),
        (said(0.3), True),
        (said(0.9, 0.9, ended=False), True),
        (Decoded(ended=True), False),
    ],
)
def test_what_has_unlikely_tokens_or_no_end_is_in_doubt(decoded: Decoded, doubted: bool) -> None:
    assert in_doubt(decoded, BELOW) is doubted


def test_nothing_is_in_doubt_where_that_is_switched_off() -> None:
    assert not in_doubt(said(0.01, 0.01, ended=False), NEVER_UNSURE)


@pytest.mark.parametrize(
    ("tokens", "twice"),
    [
        ([5, 6, 7, 8, 5, 6, 7, 8], 1),
        ([5, 6, 7, 8, 9, 1, 5, 6, 7, 8, 9], 2),
        ([5, 6, 7, 5, 6, 7, 1], 0),
        ([5, 5, 5, 5, 5], 1),
        ([], 0),
    ],
)
def test_phrases_of_four_tokens_that_are_said_twice_are_counted(
    tokens: list[int], twice: int
) -> None:
    assert said_twice(tokens) == twice
    decoded = Decoded(tokens, [-0.01] * (len(tokens) + 1), ended=True)
    assert in_doubt(decoded, BELOW) is bool(twice)


# ------------------------------------------------------------------- which of the two counts


@dataclass
class Ear:
    """An encoding, and a decoder, that hear again what they are told."""

    second: Decoded
    told: list[str] = field(default_factory=list)
    intact: int = 100

    def listen_again(self) -> Encoded:
        self.told.append("again")
        return Encoded(1, 2.0, 7)

    def listen_on(self) -> None:
        self.told.append("on")

    def cross(self) -> list[Any]:
        return []

    def attend_to(self, cross: list[Any]) -> None:
        assert cross == []
        self.told.append("attends")

    def decode(self, draft: Decoded, most: int, watch: object) -> Decoded:
        assert draft.tokens
        assert (most, watch) == (30, None)
        self.second.passes, self.second.rows = 2, 9
        return self.second


def again(ear: Ear, first: Decoded) -> tuple[Decoded, Any]:
    first.passes, first.rows = 1, 5
    return heard_again(cast("Encoding", ear), cast("DecoderState", ear), first, 30)


def test_the_likelier_counts_and_what_follows_is_of_it() -> None:
    first, second = said(0.3, 0.9), said(0.8, 0.9)
    ear = Ear(second)
    found, work = again(ear, first)
    assert found is second
    assert ear.told == ["again", "attends"]
    assert (work.encoder_passes, work.encoded_s) == (1, 2.0)
    assert (work.decoder_passes, work.decoder_rows) == (1, 5), "the others are the hypothesis' own"


def test_where_the_first_was_likelier_all_is_as_it_was_but_the_cache() -> None:
    first, ear = said(0.5, 0.9), Ear(said(0.3, 0.8))
    found, work = again(ear, first)
    assert found is first
    assert ear.told == ["again", "attends", "on", "attends"]
    assert ear.intact == 0
    assert (work.decoder_passes, work.decoder_rows) == (2, 9)


def test_a_text_that_ends_beats_a_loop_however_likely_that_was() -> None:
    second = said(0.4, 0.4)
    assert again(Ear(second), said(0.99, 0.99, ended=False))[0] is second
    first = said(0.4, 0.4)
    assert again(Ear(said(0.99, 0.99, ended=False)), first)[0] is first


def test_a_text_that_says_less_twice_beats_a_likelier_one() -> None:
    once = Decoded([5, 6, 7, 8], [-0.5] * 5, ended=True)
    twice = Decoded([5, 6, 7, 8] * 2, [-0.1] * 9, ended=True)
    assert again(Ear(once), twice)[0] is once
    assert again(Ear(twice), once)[0] is once


# ---------------------------------------------------------------------- in a loaded model


def manifest_of(folder: Path, doubt_below: float) -> Manifest:
    streaming = Streaming(chunk_frames=16, look_ahead_frames=16, doubt_below=doubt_below)
    manifest = load_manifest(folder)
    return msgspec.structs.replace(manifest, family="moonshine-streaming", streaming=streaming)


def loaded(folder: Path, doubt_below: float) -> MoonshineStreaming:
    manifest = manifest_of(folder, doubt_below)
    recognizer = load_recognizer(folder, manifest, threads=1, effort=ALONE)
    assert isinstance(recognizer, MoonshineStreaming)
    return recognizer


@pytest.fixture(scope="module")
def doubting(lean_model_dir: Path) -> MoonshineStreaming:
    """In doubt about everything."""
    return loaded(lean_model_dir, 1.0)


@pytest.fixture(scope="module")
def certain(lean_model_dir: Path) -> MoonshineStreaming:
    """Never in doubt."""
    return loaded(lean_model_dir, 0.0)


def stream_of(model: MoonshineStreaming, audio: Int16) -> LeanStream:
    stream = model.stream()
    stream.accept(audio)
    return stream


def test_heard_as_a_whole_is_one_pass_over_all_frames(
    doubting: MoonshineStreaming, beckett: Int16
) -> None:
    sound = beckett[: 4 * RATE_HZ].astype(np.float32) / np.float32(32768)
    once = StreamingEncoderState(
        doubting.encoder, msgspec.structs.replace(doubting.plan, chunk_frames=5000), 0.0
    )
    once.accept(sound)
    wanted, frames = once.rest()
    for pieces in (1, 40):
        state = StreamingEncoderState(doubting.encoder, doubting.plan, 0.0)
        for piece in np.array_split(sound, pieces):
            state.accept(piece)
            state.advance()
        found = state.whole()
        assert found.shape[2] == frames == state.complete
        assert state.kept > 100
        # The stem is run over other stretches: the last bit of its floats may be another.
        np.testing.assert_allclose(found, wanted, atol=0.05, rtol=0.05)


def test_it_changes_nothing_for_the_passes_that_follow(
    doubting: MoonshineStreaming, beckett: Int16
) -> None:
    sound = beckett[: 6 * RATE_HZ].astype(np.float32) / np.float32(32768)
    plain, curious = (StreamingEncoderState(doubting.encoder, doubting.plan, 0.0) for _ in range(2))
    for piece in np.array_split(sound, 12):
        for state in (plain, curious):
            state.accept(piece)
            state.advance()
        curious.whole()
    assert all(map(np.array_equal, plain.cross(), curious.cross()))


def test_only_a_final_in_doubt_costs_a_second_hearing(
    doubting: MoonshineStreaming, certain: MoonshineStreaming, beckett: Int16
) -> None:
    encoded_s, passes = {}, {}
    for name, model in (("doubting", doubting), ("certain", certain)):
        stream = model.stream()
        before = model.work.snapshot()
        for piece in np.array_split(beckett, 20):
            stream.accept(piece)
            stream.hypothesis()
        partials = model.work.since(before)
        stream.finish()
        final = model.work.since(before)
        passes[name] = final.encoder_passes - partials.encoder_passes
        encoded_s[name] = final.encoded_s - partials.encoded_s
    assert passes == {"doubting": 2, "certain": 1}
    most_s = len(beckett) / RATE_HZ
    assert encoded_s["doubting"] - encoded_s["certain"] == pytest.approx(most_s, abs=0.06)


def heard(model: MoonshineStreaming, audio: Int16, *, partials: bool) -> tuple[Hypothesis, Work]:
    """Return a final, and what all of it cost."""
    stream, before = model.stream(), model.work.snapshot()
    for piece in np.array_split(audio, 20):
        stream.accept(piece)
        if partials:
            stream.hypothesis()
    return stream.finish(), model.work.since(before)


def test_where_nobody_asked_for_partials_all_is_heard_at_once(
    lean_model_dir: Path, beckett: Int16
) -> None:
    lean = load_recognizer(lean_model_dir, load_manifest(lean_model_dir), threads=1, effort=ALONE)
    stream = lean.stream()
    stream.accept(beckett)
    wanted = stream.finish()
    found, work = heard(loaded(lean_model_dir, 1e-9), beckett, partials=False)
    assert found.text == wanted.text
    assert work.encoder_passes == 1
    assert work.encoded_s == pytest.approx(len(beckett) / RATE_HZ, abs=0.06)


def test_a_plan_that_doubts_nothing_hears_all_in_passes(
    certain: MoonshineStreaming, beckett: Int16
) -> None:
    found, work = heard(certain, beckett, partials=False)
    assert found == heard(certain, beckett, partials=True)[0]
    assert work.encoder_passes > 20


def test_what_was_heard_at_once_is_heard_in_passes_where_it_is_in_doubt(
    doubting: MoonshineStreaming, certain: MoonshineStreaming, beckett: Int16
) -> None:
    found, work = heard(doubting, beckett, partials=False)
    in_passes, passes = heard(certain, beckett, partials=False)
    assert work.encoder_passes == 1 + passes.encoder_passes
    assert found.confidence > in_passes.confidence
    assert found.text == heard(doubting, beckett, partials=True)[0].text, "the same two texts"


def test_less_than_a_chunk_sounds_the_same_both_ways_and_is_heard_once(
    doubting: MoonshineStreaming, beckett: Int16
) -> None:
    """16 frames and 16 more are complete after 12,799 samples."""
    assert heard(doubting, beckett[4000:16_798], partials=False)[1].encoder_passes == 1
    assert heard(doubting, beckett[4000:16_799], partials=False)[1].encoder_passes == 3


def test_speech_that_goes_on_after_a_pause_is_heard_at_once_again(
    doubting: MoonshineStreaming, beckett: Int16
) -> None:
    wanted = stream_of(doubting, beckett).finish()
    stream = stream_of(doubting, beckett[: 3 * RATE_HZ])
    assert stream.prepare().text
    stream.accept(beckett[3 * RATE_HZ :])
    assert stream.finish() == wanted


def test_the_text_is_at_least_as_likely_as_it_was(
    doubting: MoonshineStreaming, certain: MoonshineStreaming, beckett: Int16
) -> None:
    second, first = (stream_of(each, beckett).finish() for each in (doubting, certain))
    assert second.text != first.text, "the published weights mishear in passes"
    assert second.confidence > first.confidence


def test_after_a_pause_it_goes_on_as_if_it_had_not_heard_again(
    doubting: MoonshineStreaming, beckett: Int16
) -> None:
    live = stream_of(doubting, beckett)
    live.hypothesis()
    wanted = live.finish()
    stream = stream_of(doubting, beckett[: 3 * RATE_HZ])
    prepared = stream.prepare()
    assert prepared.text
    stream.accept(beckett[3 * RATE_HZ : 3 * RATE_HZ + 100])
    assert stream.hypothesis() is prepared, "no pass has heard more"
    stream.accept(beckett[3 * RATE_HZ + 100 :])
    assert len(stream.hypothesis().text) > len(prepared.text)
    assert stream.finish() == wanted


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("part", ["session", "decoder"])
def test_after_a_second_hearing_that_failed_the_next_one_is_right(
    lean_model_dir: Path, beckett: Int16, monkeypatch: pytest.MonkeyPatch, part: str, at: int
) -> None:
    """Whether it fails in the passes, in the second hearing, or in what decodes either."""
    model = loaded(lean_model_dir, 1.0)
    wanted = stream_of(model, beckett[: 40 * FRAME_SAMPLES]).finish()
    stream = stream_of(model, beckett[: 40 * FRAME_SAMPLES])
    thing, name = (model.encoder, "encode") if part == "session" else (DecoderState, "decode")
    real, calls = getattr(thing, name), []

    def failing(*words: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == at + (part == "session"):  # a pass, what is left, and all at once
            raise MemoryError("out of memory")
        return real(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(thing, name, failing)
        with pytest.raises(RecognitionError, match="out of memory") as failed:
            stream.prepare()
        assert failed.value.mend
    assert stream.prepare() == wanted
    assert stream.finish() == wanted


@pytest.mark.parametrize("live", [False, True])
def test_what_a_failed_second_hearing_has_encoded_is_forgotten(
    lean_model_dir: Path, beckett: Int16, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    model = loaded(lean_model_dir, 1.0)
    stream, other = stream_of(model, beckett), stream_of(model, beckett)
    if live:
        stream.hypothesis()
        other.hypothesis()
    with monkeypatch.context() as patch:

        def heard_again(encoding: StreamingEncoding, *_: object) -> None:
            encoding.listen_again()
            raise MemoryError("out of memory")

        patch.setattr(lean_stream, "heard_again", heard_again)
        with pytest.raises(RecognitionError, match="out of memory"):
            stream.prepare()
    model.doubted = NEVER_UNSURE
    assert stream.prepare() == other.finish()


def test_phrases_are_held_against_what_was_heard_last(
    doubting: MoonshineStreaming, beckett: Int16
) -> None:
    tree = small_graph("(ever|never) tried ever failed", "oak")
    scope = Scope(Width(paths=40, first=40, found=40, within=1e9), exhaustive=True)
    stream = stream_of(doubting, beckett[: 3 * RATE_HZ])
    found = stream.phrases(PhraseScorer(tree, doubting.vocabulary(), TOKEN_END, scope))
    assert found.open.text == stream.finish().text
    best = max(found.phrases, key=lambda each: each.log_prob)
    assert tree.words(best.arcs) == "ever tried ever failed"


@pytest.mark.parametrize("samples", [1, 895, 1279])
def test_a_moment_of_audio_can_be_in_doubt_too(
    doubting: MoonshineStreaming, beckett: Int16, samples: int
) -> None:
    assert 0 <= stream_of(doubting, beckett[:samples]).finish().confidence <= 1


def test_frames_of_a_second_hearing_count_until_audio_comes(doubting: MoonshineStreaming) -> None:
    encoding = StreamingEncoding(doubting.encoder, doubting.plan, 0.0)
    encoding.accept(np.zeros(RATE_HZ, np.float32))
    encoding.encode(exact=False, incremental=True)
    before = encoding.frames
    encoding.listen_again()
    assert encoding.frames == encoding.cross()[0].shape[2] > before
    encoding.listen_on()
    assert encoding.frames == before
    encoding.listen_again()
    encoding.accept(np.zeros(10, np.float32))
    assert encoding.frames == before


def test_a_model_that_hears_again_needs_the_memory_of_one_that_hears_all_at_once(
    lean_model_dir: Path,
) -> None:
    endpoint = EndpointSettings()
    never, sometimes = (need_of(manifest_of(lean_model_dir, p), endpoint) for p in (0.0, 0.45))
    assert never
    assert sometimes
    assert sometimes.most_bytes > never.most_bytes
