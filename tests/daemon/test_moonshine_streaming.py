"""Moonshine chunk by chunk: what is heard depends on the audio alone, and costs the same anywhere.

The published weights, which were not taught to hear so little at a time: their words are not always
right, but the computation is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.bench_live import SpokenSamples
from harkd.errors import ModelDamagedError, RecognitionError
from harkd.events import Final, Partial
from harkd.memory_need import need_of
from harkd.model_package import Manifest, Streaming, load_manifest
from harkd.recognizer import moonshine_lean
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.lean_encoder import FRAME_SAMPLES, LeanEncoder
from harkd.recognizer.lean_stream import UNSETTLED_FINAL_TOKENS, LeanStream
from harkd.recognizer.moonshine_streaming import MoonshineStreaming
from harkd.recognizer.moonshine_tokens import STEM_SAMPLES, TOKEN_END, Decoded
from harkd.recognizer.phrase_scorer import PhraseScorer, Scope
from harkd.recognizer.phrase_search import Width
from harkd.recognizer.protocol import EVERYTHING, Effort, Hypothesis, Work
from harkd.recognizer.streaming_encoder import MORE_SAMPLES, StreamingEncoderState
from harkd.settings import AudioSettings, EndpointSettings, Settings
from harkd.virtual_time import run_in_virtual_time
from small_phrases import small_graph
from speech import word_error_rate

Int16 = NDArray[np.int16]
Float32 = NDArray[np.float32]

pytestmark = pytest.mark.model
PLANS = [(16, 16, 333, 64), (8, 8, 333, 64), (7, 5, 40, 10), (5, 0, 20, 0), (4, 9, 0, 25)]
ALONE = Effort(draft=False)
"""A draft is rounded otherwise, and depends on when partials were asked for."""


def manifest_of(folder: Path, chunk: int, look_ahead: int, left: int = 166) -> Manifest:
    """A plan that never hears again: test_second_hearing.py does."""
    streaming = Streaming(
        chunk_frames=chunk, look_ahead_frames=look_ahead, left_context_frames=left, doubt_below=0
    )
    manifest = load_manifest(folder)
    return msgspec.structs.replace(manifest, family="moonshine-streaming", streaming=streaming)


def loaded(folder: Path, *plan: int, effort: Effort = EVERYTHING) -> MoonshineStreaming:
    recognizer = load_recognizer(folder, manifest_of(folder, *plan), threads=1, effort=effort)
    assert isinstance(recognizer, MoonshineStreaming)
    return recognizer


@pytest.fixture(scope="module")
def model(lean_model_dir: Path) -> MoonshineStreaming:
    """16:16, loaded once."""
    return loaded(lean_model_dir, 16, 16)


def floats(audio: Int16) -> Float32:
    return audio.astype(np.float32) / np.float32(32768)


def heard(model: MoonshineStreaming, audio: Int16) -> Hypothesis:
    stream = model.stream()
    stream.accept(audio)
    return stream.finish()


def crossed(encoder: LeanEncoder, plan: Streaming, pieces: list[Int16]) -> list[NDArray[Any]]:
    """Keys and values of all frames, when the audio has ended."""
    state = StreamingEncoderState(encoder, plan, 0.0)
    for piece in pieces:
        state.accept(floats(piece))
        state.advance()
    tail, _ = state.rest()
    return state.cross(tail)


def frames_in(samples: int) -> int:
    return (samples - STEM_SAMPLES) // FRAME_SAMPLES + 1


# ------------------------------------------------------------------------ the audio alone


@pytest.mark.parametrize("plan", PLANS)
def test_keys_and_values_are_the_same_bit_by_bit_however_the_audio_comes(
    model: MoonshineStreaming, beckett: Int16, plan: tuple[int, int, int, int]
) -> None:
    """In int8, where a rounded bit can move by a step of the scale; 10 ms, 1 s, anything."""
    streaming = msgspec.structs.replace(
        model.plan,
        chunk_frames=plan[0],
        look_ahead_frames=plan[1],
        left_context_frames=plan[2],
        first_frames=plan[3],
    )
    audio = beckett[: 4 * RATE_HZ + 777]
    wanted = crossed(model.encoder, streaming, [audio])
    assert wanted[0].shape[2] == frames_in(len(audio))
    rng = np.random.default_rng(plan[0])
    cuts = np.sort(rng.integers(0, len(audio), 40))
    for pieces in (
        np.array_split(audio, len(audio) // 160),
        np.array_split(audio, 4),
        np.split(audio, cuts),
    ):
        found = crossed(model.encoder, streaming, pieces)
        assert all(map(np.array_equal, wanted, found))


@pytest.mark.parametrize("seed", range(3))
def test_no_partial_and_no_pause_changes_the_final(
    lean_model_dir: Path, beckett: Int16, seed: int
) -> None:
    model = loaded(lean_model_dir, 16, 16, effort=ALONE)
    wanted = heard(model, beckett)
    rng = np.random.default_rng(seed)
    stream, at = model.stream(), 0
    while at < len(beckett):
        size = int(rng.choice([1, 160, 894, 5000, 16_000, 40_000]))
        stream.accept(beckett[at : at + size])
        at += size
        [lambda: None, stream.hypothesis, stream.prepare][rng.integers(0, 3)]()
    assert stream.finish() == wanted


def test_a_draft_changes_no_more_than_a_near_tie(model: MoonshineStreaming, beckett: Int16) -> None:
    stream = model.stream()
    for piece in np.array_split(beckett, 20):
        stream.accept(piece)
        stream.hypothesis()
    found, wanted = stream.finish(), heard(model, beckett)
    assert word_error_rate(wanted.text, found.text) <= 0.1
    assert found.confidence == pytest.approx(wanted.confidence, abs=0.05)


def test_a_restarted_stream_and_a_second_one_hear_what_the_first_did(
    lean_model_dir: Path, beckett: Int16
) -> None:
    model = loaded(lean_model_dir, 8, 8, effort=ALONE)
    audio = beckett[: 3 * RATE_HZ]
    wanted = heard(model, audio)
    assert wanted.tokens
    stream = model.stream()
    stream.accept(beckett[: 5 * RATE_HZ])
    stream.hypothesis()
    stream.accept(beckett[5 * RATE_HZ :])
    stream.prepare()
    stream.restart()
    assert stream.hypothesis() == Hypothesis("", 0.0)
    stream.accept(audio)
    assert stream.finish() == wanted
    assert heard(model, audio) == wanted


def test_frames_that_a_pass_keeps_are_never_changed(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    state = StreamingEncoderState(model.encoder, model.plan, 0.0)
    kept: list[NDArray[Any]] = []
    for piece in np.array_split(beckett, 50):
        state.accept(floats(piece))
        state.advance()
        state.rest()
        now = state.cross()
        for before, after in zip(kept, now, strict=False):
            assert np.array_equal(before, after[:, :, : before.shape[2]])
        kept = [each[:, :, : state.kept].copy() for each in now]
    assert kept[0].shape[2] == state.kept > 300


# ---------------------------------------------------------------------------- when and what


@pytest.mark.parametrize("plan", [(16, 16), (8, 8), (24, 8), (5, 0)])
def test_a_pass_is_done_as_soon_as_its_look_ahead_is_complete(
    lean_model_dir: Path, beckett: Int16, plan: tuple[int, int]
) -> None:
    model, (chunk, ahead) = loaded(lean_model_dir, *plan), plan
    state = StreamingEncoderState(model.encoder, model.plan, 0.0)
    needed = (chunk + ahead) * FRAME_SAMPLES + MORE_SAMPLES
    state.accept(floats(beckett[: needed - 1]))
    assert state.advance() == (0, 0)
    assert (state.kept, state.frames) == (0, 0)
    state.accept(floats(beckett[needed - 1 : needed]))
    assert state.advance() == (1, chunk + ahead)
    assert (state.kept, state.frames) == (chunk, chunk + ahead)
    state.accept(floats(beckett[needed : needed + 3 * chunk * FRAME_SAMPLES]))
    assert state.advance() == (3, 3 * (chunk + ahead))
    assert (state.kept, state.frames) == (4 * chunk, 4 * chunk + ahead)


def updates(model: MoonshineStreaming, audio: Int16, step: int) -> Iterator[Work]:
    stream = model.stream()
    for at in range(0, len(audio), step):
        stream.accept(audio[at : at + step])
        before = model.work.snapshot()
        stream.hypothesis()
        yield model.work.since(before)


def test_each_chunk_is_encoded_once_and_its_look_ahead_twice(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    first, *work = updates(model, beckett, 8000)
    assert first.encoder_passes == 1, "what is there before the first chunk is complete"
    assert first.encoded_s == pytest.approx(frames_in(8000) * 0.024)
    passes = sum(each.encoder_passes for each in work)
    assert passes == (frames_in(len(beckett)) - 16) // 16
    for each in work:
        assert each.encoded_s == pytest.approx(each.encoder_passes * 32 * 0.024)
    assert max(each.encoder_passes for each in work) == 2, "in half a second, wherever it is"


def test_a_partial_without_a_new_chunk_is_the_last_one_for_nothing(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    stream = model.stream()
    stream.accept(beckett[: 3 * RATE_HZ])
    first = stream.hypothesis()
    assert first.text
    before = model.work.snapshot()
    stream.accept(beckett[3 * RATE_HZ : 3 * RATE_HZ + 100])
    assert stream.hypothesis() is first
    assert model.work.since(before) == Work()


def test_before_the_first_chunk_a_partial_hears_what_is_there(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    half = beckett[5000 : 5000 + RATE_HZ // 2]
    more = beckett[5000 + len(half) : 5000 + RATE_HZ * 7 // 10]
    stream, before = model.stream(), model.work.snapshot()
    stream.accept(half)
    first = stream.hypothesis()
    assert first.text
    stream.accept(more[:100])
    assert stream.hypothesis() is first, "not a frame more"
    assert (prepared := stream.prepare()).text
    stream.accept(more[100:120])
    assert stream.hypothesis() is prepared, "nor after a pause"
    work = model.work.since(before)
    assert work.encoder_passes == 2
    assert work.encoded_s == pytest.approx(2 * frames_in(8000) * 0.024)
    stream.accept(more[120:])
    assert stream.hypothesis() is not prepared
    found = model.work.since(before)
    assert found.encoder_passes == 3
    assert found.encoded_s - work.encoded_s == pytest.approx(frames_in(11_200) * 0.024)


@pytest.mark.parametrize("more", [0, 1, 7, 15])
def test_a_final_encodes_what_is_left_alone(
    model: MoonshineStreaming, beckett: Int16, more: int
) -> None:
    frames = 5 * 16 + 16 + more
    stream = model.stream()
    stream.accept(beckett[: frames * FRAME_SAMPLES + MORE_SAMPLES])
    stream.hypothesis()
    before = model.work.snapshot()
    stream.prepare()
    work = model.work.since(before)
    assert work.encoder_passes == 1
    assert work.encoded_s == pytest.approx((16 + more) * 0.024)


def test_a_final_encodes_nothing_where_nothing_is_left(
    lean_model_dir: Path, beckett: Int16
) -> None:
    model = loaded(lean_model_dir, 8, 0, effort=ALONE)
    audio = beckett[: 80 * FRAME_SAMPLES + MORE_SAMPLES]
    stream = model.stream()
    stream.accept(audio)
    stream.hypothesis()
    before = model.work.snapshot()
    stream.prepare()
    assert model.work.since(before).encoder_passes == 0
    assert stream.finish() == heard(model, audio)


def test_what_was_prepared_in_a_pause_is_heard_until_a_pass_hears_more(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    """Else a partial after the pause would take its last word back."""
    stream = model.stream()
    stream.accept(beckett[:27_000])
    stream.hypothesis()
    prepared = stream.prepare()
    stream.accept(beckett[27_000:27_500])
    assert stream.hypothesis() is prepared
    stream.accept(beckett[27_500:])
    assert len(stream.hypothesis().text) > len(prepared.text)


def hear_each_second(stream: LeanStream, audio: Int16) -> None:
    for second in np.array_split(audio, len(audio) // RATE_HZ):
        stream.accept(second)
        stream.hypothesis()


@pytest.fixture
def trusting(
    model: MoonshineStreaming, monkeypatch: pytest.MonkeyPatch
) -> tuple[LeanStream, list[int]]:
    """A stream that always hears the same 20 tokens, and how many of them it took on trust."""
    trusted = []

    class Script:
        def __init__(self, _: object) -> None:
            self.intact = 0

        def attend_to(self, _: object) -> None:
            pass

        def decode(self, *_: object, **how: Any) -> Decoded:
            trusted.append(how["trusted"])
            return Decoded(list(range(100, 120)), [-0.1] * 21, ended=True)

    monkeypatch.setattr(moonshine_lean, "DecoderState", Script)
    monkeypatch.setattr(model, "spare", [])
    return model.stream(), trusted


def test_a_final_verifies_no_token_that_was_settled_long_before(
    trusting: tuple[LeanStream, list[int]], beckett: Int16
) -> None:
    stream, trusted = trusting
    hear_each_second(stream, beckett[: 4 * RATE_HZ])
    stream.prepare()
    assert trusted == [0, 0, 17, 17, 20 - UNSETTLED_FINAL_TOKENS]


def test_after_a_restart_all_is_verified(
    trusting: tuple[LeanStream, list[int]], beckett: Int16
) -> None:
    stream, trusted = trusting
    hear_each_second(stream, beckett[: 3 * RATE_HZ])
    stream.restart()
    hear_each_second(stream, beckett[: 2 * RATE_HZ])
    stream.prepare()
    assert trusted == [0, 0, 17, 0, 17, 20 - UNSETTLED_FINAL_TOKENS]


def test_partials_agree_with_the_final_but_for_their_end(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    stream = model.stream()
    texts = []
    for piece in np.array_split(beckett, 20):
        stream.accept(piece)
        texts.append(stream.hypothesis().text)
    final = stream.finish().text
    assert len(set(texts)) > 10
    agreeing = sum(final.lower().startswith(text.lower().rstrip(".,")[:-12]) for text in texts)
    assert agreeing > 15


# ------------------------------------------------------------------------------ long audio


def test_what_is_kept_of_the_encoder_does_not_grow(
    model: MoonshineStreaming, beckett: Int16
) -> None:
    plan = msgspec.structs.replace(model.plan, left_context_frames=50, first_frames=20)
    state = StreamingEncoderState(model.encoder, plan, 0.0)
    sizes = set()
    for piece in np.array_split(np.tile(beckett, 2), 100):
        state.accept(floats(piece))
        state.advance()
        past = sum(each.nbytes for each in state._past.values())
        assert state._past_end - state._past_begin == min(70, state.kept)
        sizes.add(past)
        assert len(state._rows) <= 2 * 16 + 1
        assert sum(map(len, state._pieces)) < RATE_HZ
    assert len(sizes) == 1


# -------------------------------------------------------------------------------- little audio


@pytest.mark.parametrize("samples", [1, 894, 895, 896, 1278, 1279, 12_799, 12_800])
def test_short_audio_is_heard_and_more_may_follow(
    lean_model_dir: Path, beckett: Int16, samples: int
) -> None:
    model = loaded(lean_model_dir, 16, 16, effort=ALONE)
    stream = model.stream()
    stream.accept(beckett[:samples])
    assert 0 <= stream.hypothesis().confidence <= 1
    assert 0 <= stream.prepare().confidence <= 1
    stream.accept(beckett[samples : 2 * RATE_HZ])
    assert stream.finish() == heard(model, beckett[: 2 * RATE_HZ])


@pytest.mark.parametrize("value", [0, 1, 32767, -32768])
def test_audio_without_sound_has_a_confidence_too(model: MoonshineStreaming, value: int) -> None:
    found = heard(model, np.full(20_000, value, np.int16))
    assert 0 <= found.confidence <= 1


# ------------------------------------------------------------------------------- the rest


def test_phrases_are_found_in_it_too(model: MoonshineStreaming, beckett: Int16) -> None:
    tree = small_graph("(ever|never) tried ever failed", "oak")
    scope = Scope(Width(paths=40, first=40, found=40, within=1e9), exhaustive=True)
    stream = model.stream()
    stream.accept(beckett[: 3 * RATE_HZ])
    stream.hypothesis()
    found = stream.phrases(PhraseScorer(tree, model.vocabulary(), TOKEN_END, scope))
    assert found.open.text == stream.finish().text
    best = max(found.phrases, key=lambda each: each.log_prob)
    assert tree.words(best.arcs) == "ever tried ever failed"


@pytest.mark.parametrize("part", ["stem", "session"])
@pytest.mark.parametrize("ask", ["hypothesis", "prepare"])
def test_after_a_failed_pass_the_next_one_is_right(
    lean_model_dir: Path, beckett: Int16, monkeypatch: pytest.MonkeyPatch, part: str, ask: str
) -> None:
    model = loaded(lean_model_dir, 16, 16, effort=ALONE)
    whole: Callable[..., Any] = getattr(model.encoder, part).run

    class Failing:
        left = 2

        def run(self, *words: object) -> Any:
            Failing.left -= 1
            if Failing.left == 0:
                raise MemoryError("out of memory")
            return whole(*words)

    stream = model.stream()
    stream.accept(beckett[: 2 * RATE_HZ])
    with monkeypatch.context() as patch:
        patch.setattr(model.encoder, part, Failing())
        with pytest.raises(RecognitionError, match="out of memory") as failed:
            getattr(stream, ask)()
        assert failed.value.mend
    assert stream.hypothesis().text
    stream.accept(beckett[2 * RATE_HZ :])
    assert stream.finish() == heard(model, beckett)


@pytest.mark.parametrize("part", ["stem", "session"])
def test_after_a_failed_partial_before_the_first_chunk_the_next_one_is_right(
    lean_model_dir: Path, beckett: Int16, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    model = loaded(lean_model_dir, 16, 16, effort=ALONE)
    early = beckett[5000 : 5000 + RATE_HZ // 2]
    other = model.stream()
    other.accept(early)
    wanted = other.hypothesis()

    class Failing:
        def run(self, *_: object) -> Any:
            raise MemoryError("out of memory")

    stream = model.stream()
    stream.accept(early)
    with monkeypatch.context() as patch:
        patch.setattr(model.encoder, part, Failing())
        with pytest.raises(RecognitionError, match="out of memory") as failed:
            stream.hypothesis()
        assert failed.value.mend
    assert stream.hypothesis() == wanted
    stream.accept(beckett[5000 + RATE_HZ // 2 :])
    assert stream.finish() == heard(model, beckett[5000:])


def test_a_package_that_does_not_say_how_it_listens_is_damaged(lean_model_dir: Path) -> None:
    manifest = msgspec.structs.replace(load_manifest(lean_model_dir), family="moonshine-streaming")
    with pytest.raises(ModelDamagedError, match="no section streaming") as damaged:
        load_recognizer(lean_model_dir, manifest, threads=1)
    assert "--streaming" in damaged.value.mend


def test_how_much_memory_it_needs_is_known(lean_model_dir: Path) -> None:
    manifest = manifest_of(lean_model_dir, 16, 16)
    need = need_of(manifest, EndpointSettings())
    assert need
    whole = need_of(load_manifest(lean_model_dir), EndpointSettings())
    assert whole
    assert need.own_bytes < whole.own_bytes, "less, since it keeps less"


# ------------------------------------------------------------------------- through the daemon


@pytest.mark.parametrize("block_ms", [20, 200])
def test_it_is_heard_live_with_partials_and_a_final(
    lean_model_dir: Path, beckett: Int16, block_ms: int
) -> None:
    """Segmenter and partials as in the daemon, without threads."""
    model = loaded(lean_model_dir, 16, 16, effort=ALONE)
    settings = Settings(audio=AudioSettings(block_ms=block_ms))
    told: list[Partial | Final] = []
    run_in_virtual_time(
        SpokenSamples(np.concatenate([beckett, np.zeros(RATE_HZ, np.int16)])),
        model,
        settings,
        lambda event, _position: told.append(event) if isinstance(event, Partial | Final) else None,
    )
    finals = [each for each in told if isinstance(each, Final)]
    assert finals
    assert len(told) > 3 * len(finals)
    wanted = " ".join(each.text for each in finals)
    assert word_error_rate(heard(model, beckett).text, wanted) < 0.7, "other cuts, other chunks"
    assert all(each.stable_chars > 0 for each in told if isinstance(each, Partial) and each.rev > 4)
