"""Streaming CTC and transducers: the tokens of sherpa-onnx, however the audio comes."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import sherpa_onnx
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import small_streaming
from fakes import ScriptedSource, silence, speech
from harkd.audio import RATE_HZ, AudioBlock, SourceOpened
from harkd.errors import ModelDamagedError, RecognitionError
from harkd.events import Event, Final, Partial
from harkd.hotword_list import Hotword
from harkd.model_package import Manifest, PackagedFile, sha256_of
from harkd.recognizer import chunk_encoder
from harkd.recognizer.beam_search import Beam
from harkd.recognizer.chunk_buffers import DeviceBuffers
from harkd.recognizer.chunk_layout import State
from harkd.recognizer.chunk_model import ChunkModel
from harkd.recognizer.chunk_stream import LATE_S, SILENCE_MOST_S, ChunkStream, catch_up_together
from harkd.recognizer.ctc import StreamingCtc
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.fbank import SHIFT_SAMPLES
from harkd.recognizer.hotwords import Hotwords
from harkd.recognizer.protocol import Hypothesis, Work
from harkd.recognizer.transducer import Transducer
from harkd.settings import EndpointSettings, RecognizerSettings, Settings
from harkd.virtual_time import run_in_virtual_time

Int16 = NDArray[np.int16]
Model = StreamingCtc | Transducer

TRANSDUCERS = ["zipformer2", "kroko", "zipformer", "lstm", "conformer"]
CTCS = ["zipformer2", "wenet_ctc", "EncDecHybridRNNTCTCBPEModel"]
LAYOUTS = [f"transducer {kind}" for kind in TRANSDUCERS] + [f"ctc {kind}" for kind in CTCS]
AUDIO = np.concatenate([speech(2500), silence(400), speech(1100, seed=2), silence(900)])


def files_of(folder: Path) -> dict[str, Path]:
    """The files of an unpacked model by role."""
    found = {
        role: path
        for role in ("encoder", "decoder", "joiner")
        for path in folder.glob(f"{role}*.onnx")
    }
    return (found or {"model": next(folder.glob("*.onnx"))}) | {"tokens": folder / "tokens.txt"}


def manifest_of(folder: Path) -> Manifest:
    files = files_of(folder)
    return Manifest(
        name="small",
        family="streaming-transducer" if "joiner" in files else "streaming-ctc",
        version="1",
        languages=("en",),
        licence="MIT",
        licence_file="LICENSE",
        files={
            role: PackagedFile(
                path=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size
            )
            for role, path in files.items()
        },
    )


def loaded(folder: Path) -> Model:
    model = load_recognizer(folder, manifest_of(folder), threads=1)
    assert isinstance(model, StreamingCtc | Transducer)
    return model


Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Models of random weights, by layout."""

    @functools.cache
    def folder(layout: str) -> Path:
        family, kind = layout.split()
        write = {"transducer": small_streaming.write_transducer, "ctc": small_streaming.write_ctc}
        return write[family](tmp_path_factory.mktemp("small") / kind, kind)

    return folder


@pytest.fixture(scope="module")
def models(folders: Folders) -> Callable[[str], Model]:
    """The same, loaded once."""
    return functools.cache(lambda layout: loaded(folders(layout)))


@pytest.fixture(params=LAYOUTS)
def model(request: pytest.FixtureRequest, models: Callable[[str], Model]) -> Model:
    """One of each layout."""
    return models(request.param)


def stream_of(model: Model, *pieces: Int16) -> ChunkStream:
    stream = model.stream()
    for piece in pieces:
        stream.accept(piece)
    return stream


def heard(model: Model, audio: Int16) -> Hypothesis:
    return stream_of(model, audio).finish()


# --------------------------------------------------------------------- beside sherpa-onnx


def sherpas(
    layout: str, files: dict[str, Path], audio: Int16, **search: object
) -> tuple[list[str], list[float]]:
    """The tokens and times of sherpa-onnx for all chunks that are complete."""
    sherpa = sherpa_onnx.OnlineRecognizer
    paths = {role: str(path) for role, path in files.items()}
    made = {
        "transducer": lambda: sherpa.from_transducer(num_threads=1, **paths, **search),
        "ctc zipformer2": lambda: sherpa.from_zipformer2_ctc(num_threads=1, **paths),
        "ctc wenet_ctc": lambda: sherpa.from_wenet_ctc(
            num_threads=1, chunk_size=4, num_left_chunks=2, **paths
        ),
        "ctc EncDecHybridRNNTCTCBPEModel": lambda: sherpa.from_nemo_ctc(num_threads=1, **paths),
    }
    recognizer = made["transducer" if layout.startswith("t") else layout]()
    stream = recognizer.create_stream()
    # It waits for one frame more than a chunk has.
    longer = np.concatenate([audio, silence(10)])
    stream.accept_waveform(RATE_HZ, longer.astype(np.float32) / 32768)
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    said = [each.replace(" ", "▁") for each in recognizer.tokens(stream)]
    return said, recognizer.timestamps(stream)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_hears_the_tokens_of_sherpa_onnx(
    layout: str, models: Callable[[str], Model], folders: Folders
) -> None:
    wanted, times = sherpas(layout, files_of(folders(layout)), AUDIO)
    model = models(layout)
    stream = stream_of(model, AUDIO)
    found = stream.hypothesis()
    assert len(wanted) > 5
    assert [model.symbols.symbols[each] for each in found.tokens] == wanted
    # Its times are those of models that make a frame of 40 ms.
    frames = [round(each / 0.04) for each in times]
    assert stream._search.found.frames == frames


@pytest.mark.parametrize("seed", range(3))
def test_so_it_does_with_other_weights(seed: int, tmp_path: Path) -> None:
    folder = small_streaming.write_transducer(tmp_path / "model", "zipformer2", seed=40 + seed)
    wanted, _ = sherpas("transducer", files_of(folder), AUDIO)
    model = loaded(folder)
    found = stream_of(model, AUDIO).hypothesis()
    assert [model.symbols.symbols[each] for each in found.tokens] == wanted


PHRASES = {"a b c": 0.0, "c i o": 3.0, "c i": 0.0, "i o m": 0.0, "g": 0.5}


def beam_of(model: Transducer, *, hot: bool) -> Beam:
    phrases = [
        ([model.symbols.ids[symbol] for symbol in phrase.split()], score)
        for phrase, score in PHRASES.items()
    ]
    return Beam(4, Hotwords(phrases) if hot else None)


@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize("kind", TRANSDUCERS)
@pytest.mark.parametrize("seed", [3, 50])
def test_beam_search_hears_the_tokens_of_sherpa_onnx(
    seed: int, kind: str, hot: bool, tmp_path: Path
) -> None:
    folder = small_streaming.write_transducer(tmp_path / "model", kind, seed)
    more: dict[str, object] = {}
    if hot:
        lines = [f"{each} :{score}" if score else each for each, score in PHRASES.items()]
        (tmp_path / "hotwords.txt").write_text("\n".join(lines) + "\n")
        more = {"hotwords_file": str(tmp_path / "hotwords.txt"), "hotwords_score": 1.5}
    wanted, times = sherpas(
        "transducer", files_of(folder), AUDIO, decoding_method="modified_beam_search", **more
    )
    model = loaded(folder)
    assert isinstance(model, Transducer)
    greedy = stream_of(model, AUDIO).hypothesis()
    model.beam = beam_of(model, hot=hot)
    stream = stream_of(model, AUDIO)
    found = stream.hypothesis()
    assert [model.symbols.symbols[each] for each in found.tokens] == wanted
    assert stream._search.found.frames == [round(each / 0.04) for each in times]
    if hot and kind == "zipformer2":
        assert found.tokens != greedy.tokens


def test_a_beam_of_one_and_no_hotwords_is_greedy(folders: Folders) -> None:
    model = loaded(folders("transducer zipformer2"))
    assert isinstance(model, Transducer)
    greedy = heard(model, AUDIO)
    model.beam = Beam(1)
    found = heard(model, AUDIO)
    assert found.tokens == greedy.tokens
    assert found.confidence == pytest.approx(greedy.confidence, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_no_split_changes_what_a_beam_search_hears(folders: Folders, seed: int) -> None:
    model = loaded(folders("transducer zipformer2"))
    assert isinstance(model, Transducer)
    model.beam = beam_of(model, hot=True)
    wanted = heard(model, AUDIO)
    rng, stream, at = np.random.default_rng(seed), model.stream(), 0
    while at < len(AUDIO):
        size = int(rng.choice([160, 1000, 16_000]))
        stream.accept(AUDIO[at : at + size])
        at += size
        [lambda: None, stream.hypothesis, stream.prepare][rng.integers(0, 3)]()
    assert stream.finish() == wanted


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[-1]])
def test_it_searches_wider_only_where_there_are_hotwords(layout: str, folders: Folders) -> None:
    model = loaded(folders(layout))
    plain = heard(model, AUDIO)
    wanted = next(
        f"w{i}" for i in range(20) if not set(model.symbols.spelled(f"w{i}")[0]) & set(plain.tokens)
    )
    stream = model.stream((Hotword(wanted, 10.0), Hotword("Ω", 10.0)))
    stream.accept(AUDIO)
    found = stream.finish()
    assert set(found.tokens) & {way[-1] for way in model.symbols.spelled(wanted)}
    assert heard(model, AUDIO) == plain


# --------------------------------------------------------------------------------- laws


@example_settings(max_examples=12, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    sizes=st.lists(st.sampled_from([1, 80, 119, 160, 320, 512, 5000, 16_000]), max_size=40),
    asked=st.lists(st.sampled_from(["", "hypothesis", "prepare"]), min_size=41, max_size=41),
)
def test_no_split_of_the_audio_and_no_question_changes_anything(
    models: Callable[[str], Model], layout: str, sizes: list[int], asked: list[str]
) -> None:
    model = models(layout)
    stream, at = model.stream(), 0
    for size, what in zip([*sizes, len(AUDIO)], asked, strict=False):
        stream.accept(AUDIO[at : at + size])
        at += size
        if what:
            getattr(stream, what)()
    rough = stream.hypothesis()
    if rough != stream_of(model, AUDIO).hypothesis():
        # A final that was prepared is the better hypothesis.
        assert rough == stream.prepare()
    assert stream.finish() == heard(model, AUDIO)


def test_a_restart_is_as_good_as_a_fresh_stream(model: Model) -> None:
    for ask in (ChunkStream.hypothesis, ChunkStream.prepare, ChunkStream.finish):
        stream = stream_of(model, AUDIO[::-1].copy())
        ask(stream)
        stream.restart()
        stream.accept(AUDIO)
        assert stream.finish() == heard(model, AUDIO)


def test_streams_at_the_same_time_do_not_hear_each_other(model: Model) -> None:
    one, other = model.stream(), model.stream()
    for piece, reverse in zip(
        np.array_split(AUDIO, 7), np.array_split(AUDIO[::-1].copy(), 7), strict=True
    ):
        one.accept(piece)
        other.accept(reverse)
        one.hypothesis()
        other.prepare()
    assert one.finish() == heard(model, AUDIO)
    assert other.finish() == heard(model, AUDIO[::-1].copy())


def test_what_was_prepared_is_the_final_for_nothing(model: Model) -> None:
    stream = stream_of(model, AUDIO)
    prepared = stream.prepare()
    before = model.work.snapshot()
    stream.accept(AUDIO[:0])
    assert stream.prepare() is stream.hypothesis() is stream.finish() is prepared
    assert stream.finish() is prepared, "twice"
    assert model.work.since(before) == Work()


def test_audio_after_a_prepare_is_heard_as_if_none_had_been(model: Model) -> None:
    stream = stream_of(model, AUDIO[:40_000])
    stream.prepare()
    stream.accept(AUDIO[40_000:])
    assert stream.finish() == heard(model, AUDIO)


def test_a_chunk_is_encoded_once(model: Model) -> None:
    before = model.work.snapshot()
    stream = model.stream()
    for piece in np.array_split(AUDIO, 50):
        stream.accept(piece)
        stream.hypothesis()
    layout, seconds = model.encoder.layout, len(AUDIO) / RATE_HZ
    steps = model.work.since(before).encoder_passes
    frames = round(seconds * 100) - 1
    assert steps == (frames - layout.chunk_frames) // layout.shift_frames + 1


def test_buffers_go_from_one_segment_to_the_next(model: Model) -> None:
    heard(model, AUDIO)
    held = len(model.spare)
    for _ in range(3):
        heard(model, AUDIO)
    assert len(model.spare) == held


# ------------------------------------------------------------------------------ together


def test_streams_that_are_encoded_together_hear_what_each_would_alone(model: Model) -> None:
    """Also where they begin at different times, and some have no chunk ready."""
    audios = [AUDIO, AUDIO[::-1].copy(), AUDIO[20_000:], AUDIO[:9000], AUDIO[:100]]
    streams = [model.stream() for _ in audios]
    before = model.work.snapshot()
    for at in range(0, len(AUDIO), 4000):
        for number, (stream, audio) in enumerate(zip(streams, audios, strict=True)):
            begin = at - 4000 * number
            if begin >= 0:
                stream.accept(audio[begin : begin + 4000])
        catch_up_together(streams, most=3)
        assert all(stream.caught_up for stream in streams)
        counted = model.work.snapshot()
        for stream in streams:
            stream.hypothesis()
        assert model.work.since(counted) == Work(), "nothing is left to encode"
    for number, (stream, audio) in enumerate(zip(streams, audios, strict=True)):
        stream.accept(audio[max(0, -(-len(AUDIO) // 4000) - number) * 4000 :])
    catch_up_together(streams, most=3)
    together = model.work.since(before)
    for stream, audio in zip(streams, audios, strict=True):
        alone = stream_of(model, audio)
        counted = model.work.snapshot()
        wanted = alone.hypothesis()
        together.encoder_passes -= model.work.since(counted).encoder_passes
        found = stream.finish()
        assert found.tokens[: len(wanted.tokens)] == wanted.tokens
        assert found.confidence == pytest.approx(alone.finish().confidence, rel=1e-3)
    assert together.encoder_passes == 0, "each chunk was encoded once"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_states_in_a_devices_memory_hear_the_same(
    layout: str, folders: Folders, models: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the device is the CPU, but the way is that of CUDA: nothing is shared with the host."""
    made: list[DeviceBuffers] = []

    def elsewhere(states: Sequence[State], **_: bool) -> DeviceBuffers:
        made.append(DeviceBuffers(states, "cpu"))
        return made[-1]

    monkeypatch.setattr(chunk_encoder, "buffers_for", elsewhere)
    far = loaded(folders(layout))
    far.encoder.on_gpu = True
    far.spare.clear()
    streams = [far.stream() for _ in range(2)]
    for begin in range(0, len(AUDIO), RATE_HZ):
        for stream in streams:
            stream.accept(AUDIO[begin : begin + RATE_HZ])
        if begin < 2 * RATE_HZ:
            catch_up_together(streams, 2)
        else:
            streams[0].prepare()
    wanted = models(layout).stream()
    wanted.accept(AUDIO)
    tokens = wanted.finish().tokens
    assert tokens
    assert [stream.finish().tokens for stream in streams] == [tokens, tokens]
    streams[0].restart()
    streams[0].accept(AUDIO)
    assert streams[0].finish().tokens == tokens
    assert made


def test_nothing_together_is_nothing(model: Model) -> None:
    catch_up_together([], most=4)
    catch_up_together([model.stream()], most=4)


# ------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("ms", [1, 10, 50, 333, 1000, 1777])
def test_all_audio_is_encoded_before_a_final_and_silence_after_it(model: Model, ms: int) -> None:
    """As if silence had been there; so the last word is heard wherever the audio ends."""
    audio = speech(ms)
    before = model.work.snapshot()
    found = heard(model, audio)
    steps = model.work.since(before).encoder_passes
    layout = model.encoder.layout
    least_s = len(audio) / RATE_HZ
    assert steps * model.encoder.chunk_s >= least_s
    most_s = least_s + max(SILENCE_MOST_S, LATE_S) + 2 * model.encoder.chunk_s
    assert steps * model.encoder.chunk_s <= most_s
    needed = (steps - 1) * layout.shift_frames + layout.chunk_frames
    padding = np.zeros(needed * SHIFT_SAMPLES + 120 - len(audio), np.int16)
    assert found.tokens == stream_of(model, audio, padding).hypothesis().tokens


def test_where_enough_silence_was_heard_none_is_added(models: Callable[[str], Model]) -> None:
    """The pause before a final costs the chunks that its audio fills, and no more."""
    model = models("transducer lstm")
    audio = np.concatenate([speech(500), silence(3000)])
    stream = stream_of(model, audio)
    stream.hypothesis()
    assert stream._search.found.quiet * model.encoder.frame_s > LATE_S
    before = model.work.snapshot()
    stream.prepare()
    layout = model.encoder.layout
    window_s = (layout.chunk_frames - layout.shift_frames) / 100
    most = -(-(window_s + 0.025) // model.encoder.chunk_s)
    assert model.work.since(before).encoder_passes <= most


def test_nothing_is_said_of_no_audio(model: Model) -> None:
    stream = model.stream()
    assert stream.hypothesis() == stream.prepare() == stream.finish() == Hypothesis("", 0.0)


# --------------------------------------------------------------------------------- words


def test_words_have_their_times(model: Model) -> None:
    found = heard(model, AUDIO)
    assert " ".join(each.word for each in found.words) == found.text
    assert 0 < found.confidence <= 1
    starts = [each.start_s for each in found.words]
    assert starts == sorted(starts)
    assert all(each.start_s < each.end_s for each in found.words)
    assert starts[-1] < len(AUDIO) / RATE_HZ + SILENCE_MOST_S + 2 * model.encoder.chunk_s


# -------------------------------------------------------------------------------- faults


def damaged(folders: Folders, tmp_path: Path, layout: str) -> Path:
    return shutil.copytree(folders(layout), tmp_path / "damaged")


def test_files_in_each_others_place_are_refused(folders: Folders, tmp_path: Path) -> None:
    folder = damaged(folders, tmp_path, "transducer zipformer2")
    files = files_of(folder)
    other = files["joiner"].read_bytes()
    files["joiner"].write_bytes(files["decoder"].read_bytes())
    files["decoder"].write_bytes(other)
    with pytest.raises(ModelDamagedError, match="no decoder and joiner"):
        loaded(folder)


def test_tokens_of_another_model_are_refused(folders: Folders, tmp_path: Path) -> None:
    for layout in ("transducer zipformer2", "ctc wenet_ctc"):
        folder = damaged(folders, tmp_path / layout, layout)
        tokens = folder / "tokens.txt"
        tokens.write_text(tokens.read_text() + "more 40\n")
        with pytest.raises(ModelDamagedError, match="41 tokens"):
            loaded(folder)
        tokens.write_text("no number\n")
        with pytest.raises(ModelDamagedError, match="no list of tokens: line 1"):
            loaded(folder)


def test_a_ctc_model_without_a_named_blank_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = damaged(folders, tmp_path, "ctc zipformer2")
    tokens = folder / "tokens.txt"
    tokens.write_text(tokens.read_text().replace("<blk>", "<nil>"))
    with pytest.raises(ModelDamagedError, match="names no blank"):
        loaded(folder)


def test_a_ctc_model_is_no_encoder(folders: Folders, tmp_path: Path) -> None:
    folder = damaged(folders, tmp_path, "transducer zipformer2")
    ctc = files_of(folders("ctc wenet_ctc"))["model"]
    files_of(folder)["encoder"].write_bytes(ctc.read_bytes())
    with pytest.raises(ModelDamagedError, match="wenet_ctc, no transducer's encoder"):
        loaded(folder)


def test_a_failure_is_told_in_our_words(
    models: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: ChunkModel = models("ctc zipformer2")
    stream = stream_of(models("ctc zipformer2"), AUDIO)

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(stream._state, "step", broken)
    for ask in (stream.hypothesis, stream.prepare, stream.finish):
        with pytest.raises(RecognitionError, match=f"{model.name} failed on 4.9 s.*out of memory"):
            ask()


# ------------------------------------------------------------------------------ the daemon


def test_live_it_gives_partials_and_finals_with_the_times_of_words(
    models: Callable[[str], Model],
) -> None:
    """Also where an utterance is cut, and a partial has heard beyond the cut."""
    model = models("transducer zipformer2")
    audio = np.concatenate([silence(500), AUDIO, speech(7000, seed=5), silence(1500)])
    source = ScriptedSource([SourceOpened("desk", RATE_HZ, 1), AudioBlock(audio, 0)])
    chosen = Settings(
        endpoint=EndpointSettings(max_utterance_s=4),
        recognizer=RecognizerSettings(min_confidence=0.0, partial_interval_ms=200),
    )
    events: list[Event] = []
    run_in_virtual_time(source, model, chosen, lambda event, _: events.append(event))
    finals = [event for event in events if isinstance(event, Final)]
    assert len(finals) > 1
    assert any(isinstance(event, Partial) for event in events)
    for final in finals:
        assert " ".join(each.word for each in final.words) == final.text
        assert final.words[-1].start_s < final.duration_s + 1


# --------------------------------------------------------------------- byte-level BPE


def write_saying(folder: Path, script: list[str]) -> Path:
    """Write a CTC model that says the script in each chunk, whatever it hears; 8 tokens."""
    small_streaming.write_ctc(folder, "zipformer2")
    path = next(folder.glob("*.onnx"))
    pieces = list(dict.fromkeys(script))
    names = ["<blk>", "<sos/eos>", "<unk>", *pieces]
    names += [f"x{i}" for i in range(small_streaming.TOKENS - len(names))]
    small_streaming.write_tokens(folder / "tokens.txt", names)
    logits = np.zeros((1, 8, small_streaming.TOKENS), np.float32)
    for frame, piece in enumerate(script):
        logits[0, frame, names.index(piece)] = 1e4
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "LogSoftmax":
            node.input[0], heard = "scripted", node.input[0]
            at = list(model.graph.node).index(node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(logits, "script"))
    model.graph.node.insert(at, onnx.helper.make_node("Add", [heard, "script"], ["scripted"]))
    onnx.save(model, str(path))
    return folder


def test_letters_that_are_bytes_become_the_text_of_sherpa_onnx(tmp_path: Path) -> None:
    script = ["▁Ƌţ", "Ņ", "▁ƌŋţ", "▁HEL", "LO", "▁ƋŞ", "Ĺ", "▁OK"]
    folder = write_saying(tmp_path / "model", script)
    files = files_of(folder)
    recognizer = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
        num_threads=1, **{role: str(path) for role, path in files.items()}
    )
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE_HZ, AUDIO.astype(np.float32) / 32768)
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    model = loaded(folder)
    found = stream_of(model, AUDIO).hypothesis()
    assert found.text.startswith("你好HELLO 世OK 你好HELLO 世OK ")
    assert found.text == recognizer.get_result(stream)
