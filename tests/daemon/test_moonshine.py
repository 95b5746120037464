"""Moonshine: tokens to text, loops, and the real default model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from harkd.errors import HarkdError, ModelDamagedError, ModelError, RecognitionError
from harkd.model_package import Manifest, PackagedFile, load_manifest
from harkd.recognizer.factory import load_recognizer
from harkd.recognizer.moonshine import Moonshine
from harkd.recognizer.moonshine_tokens import (
    STEM_SAMPLES,
    TOKEN_END,
    TOKEN_START,
    Decoded,
    Tokenizer,
    ends_in_loop,
    hypothesis_of,
    repeated_at_end,
)
from harkd.recognizer.protocol import Effort
from speech import plain, word_error_rate

# ----------------------------------------------------------------------------- Tokenizer


def entry(token: bytes) -> bytes:
    """A token as the file has it: its length in one or two bytes, then itself."""
    size = len(token)
    return (bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])) + token


def tokenizer(tmp_path: Path, *tokens: bytes) -> Tokenizer:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(b"".join(map(entry, tokens)))
    return Tokenizer(path)


def test_tokens_are_joined_and_the_space_mark_becomes_a_space(tmp_path: Path) -> None:
    one = tokenizer(tmp_path, b"<unk>", b"<s>", b"</s>", "▁hel".encode(), b"lo", "▁you".encode())
    assert len(one) == 6
    assert one.text([3, 4, 5]) == "hello you"
    assert one.text([]) == ""


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 255, 256, 300, 16_383])
def test_a_token_may_have_any_length_that_two_bytes_hold(tmp_path: Path, size: int) -> None:
    one = tokenizer(tmp_path, b"", b"", b"x" * size, b"end")
    assert len(one) == 4
    assert one.text([2]) == "x" * size
    assert one.text([3]) == "end"


def test_a_character_of_several_tokens_is_put_together(tmp_path: Path) -> None:
    one = tokenizer(tmp_path, b"\xc3", b"\xa9", b"\xff", b"t")
    assert one.text([3, 0, 1]) == "té"
    assert one.text([3, 2]) == "t\ufffd"


@pytest.mark.parametrize("cut", [1, 2, 67, 132, 133, 134])
def test_a_tokenizer_that_was_cut_short_is_damaged(tmp_path: Path, cut: int) -> None:
    """At every byte of its last token, both bytes of the length included."""
    path = tmp_path / "tokenizer.bin"
    whole = b"".join(map(entry, [b"a", b"b", b"c", b"d", b"x" * 133]))
    assert len(entry(b"x" * 133)) == 135
    path.write_bytes(whole)
    assert len(Tokenizer(path)) == 5
    path.write_bytes(whole[:-cut])
    with pytest.raises(ModelDamagedError, match=r"tokenizer\.bin") as damaged:
        Tokenizer(path)
    assert damaged.value.mend


@pytest.mark.parametrize("data", [b"", b"\x01a\x01b"])
def test_a_tokenizer_without_even_the_marks_is_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(data)
    with pytest.raises(ModelDamagedError):
        Tokenizer(path)


def test_a_tokenizer_that_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(ModelDamagedError, match="No such file") as damaged:
        Tokenizer(tmp_path / "tokenizer.bin")
    assert damaged.value.mend


# --------------------------------------------------------------------------------- loops


@pytest.mark.parametrize("length", range(1, 11))
def test_a_phrase_of_up_to_ten_tokens_said_four_times_is_a_loop(length: int) -> None:
    phrase = list(range(100, 100 + length))
    assert ends_in_loop([1, 2, 3, *phrase * 4])
    assert ends_in_loop([1, 2, 3, *phrase * 4, *phrase[: length // 2]]), "stopped mid-phrase"
    assert not ends_in_loop([1, 2, 3, *phrase * 3])
    assert not ends_in_loop([*phrase * 4, 1]), "it got out of it"


@pytest.mark.parametrize(
    ("tokens", "repeated"),
    [
        ([1, 2, 3], 0),
        ([1, 5, 6, 7, 5, 6, 7, 5, 6], 5),
        ([1, 5, 6, 7, 5, 6, 7], 3),
        ([1, 5, 6, 7, 5, 6], 0),
        ([8, 8, 8], 0),
        ([8, 8, 8, 8], 3),
        ([4, 8, 9, 8, 9], 0),
        ([4, 8, 9, 8, 9, 8], 3),
        ([5, 6, 7, 5, 6, 7, 1], 0),
        ([], 0),
    ],
)
def test_what_only_repeats_what_was_before_it_is_counted(tokens: list[int], repeated: int) -> None:
    assert repeated_at_end(tokens) == repeated


@pytest.mark.parametrize("tokens", [[], [7], [7, 7, 7], [1, 2] * 3, list(range(11)) * 4])
def test_less_than_that_is_no_loop(tokens: list[int]) -> None:
    assert not ends_in_loop(tokens)


# ------------------------------------------------------------------------- the real model

Model = tuple[Path, Manifest, Moonshine]


@pytest.fixture(scope="session")
def model(model_dir: Path) -> Model:
    """The default model, loaded once."""
    manifest = load_manifest(model_dir)
    loaded = load_recognizer(model_dir, manifest, threads=1)
    assert isinstance(loaded, Moonshine)
    return model_dir, manifest, loaded


@pytest.fixture(scope="session")
def beckett(model: Model) -> tuple[NDArray[np.int16], str]:
    """The recording at 16 kHz, and what is said in it."""
    folder, manifest, _ = model
    sample = next(each for each in manifest.samples if each.path.endswith("beckett.wav"))
    audio, rate_hz = soundfile.read(folder / sample.path, dtype="int16")
    assert rate_hz == 16000
    assert sample.text
    return audio, sample.text


@pytest.fixture
def passes(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of samples at each pass of the encoder."""
    lengths: list[int] = []
    encode = model[2].encode

    def counted(audio: NDArray[np.float32]) -> NDArray[np.float32]:
        lengths.append(len(audio))
        return encode(audio)

    monkeypatch.setattr(model[2], "encode", counted)
    return lengths


@pytest.mark.model
def test_the_model_understands_its_sample_and_does_not_think_twice(
    model: Model, beckett: tuple[NDArray[np.int16], str], passes: list[int]
) -> None:
    audio, text = beckett
    stream = model[2].stream()
    for piece in np.array_split(audio, 50):
        stream.accept(piece)
    heard = stream.hypothesis()
    assert word_error_rate(text, heard.text) <= 0.1
    assert 0.5 < heard.confidence <= 1
    assert heard.tokens
    assert not heard.looped
    assert stream.hypothesis() is heard
    stream.accept(audio[:0])
    assert stream.prepare() is heard
    assert stream.finish() is heard
    assert passes == [len(audio)]


@pytest.mark.model
def test_it_counts_its_work(model: Model, beckett: tuple[NDArray[np.int16], str]) -> None:
    """The first two seconds are encoded twice; tokens of a draft share one pass of the decoder."""
    audio, _ = beckett
    stream = model[2].stream()
    before = model[2].work.snapshot()
    stream.accept(audio[:32000])
    first = stream.hypothesis().tokens
    work = model[2].work.since(before)
    assert (work.encoder_passes, work.encoded_s, work.tokens) == (1, 2.0, len(first))
    assert work.decoder_passes == work.decoder_rows == len(first) + 1, "and one for the end mark"
    before = model[2].work.snapshot()
    stream.accept(audio[32000:80000])
    second = stream.prepare().tokens
    stream.finish()
    work = model[2].work.since(before)
    assert (work.encoder_passes, work.encoded_s, work.tokens) == (1, 5.0, len(second))
    agreed = next(i for i, token in enumerate(first) if second[i] != token)
    after = len(second) - agreed
    assert (work.decoder_passes, work.decoder_rows) == (1 + after, 1 + len(first) + after)


@pytest.mark.model
def test_a_partial_ends_before_what_is_unlikely_and_a_final_does_not(
    model: Model, beckett: tuple[NDArray[np.int16], str]
) -> None:
    """Where every word is wanted surer than it can be, the first one is left."""
    audio = beckett[0][: 7 * 16000]
    sure = load_recognizer(model[0], model[1], threads=1, effort=Effort(partial_confidence=1.0))
    stream = sure.stream()
    stream.accept(audio)
    partial = stream.hypothesis()
    assert len(partial.tokens) == 1
    whole = model[2].stream()
    whole.accept(audio)
    assert stream.prepare().text == whole.prepare().text != partial.text
    assert stream.finish() is stream.prepare() is stream.hypothesis()
    stream.accept(beckett[0][7 * 16000 : 8 * 16000])
    assert len(stream.hypothesis().tokens) > 1, "what was there is not new"


def test_a_partial_that_ends_within_a_character_is_shown_without_it(tmp_path: Path) -> None:
    one = tokenizer(tmp_path, b"\xc3", b"\xa9", b"t")
    assert hypothesis_of(Decoded([2, 0], [0.0, 0.0], cut_short=True), one).text == "t"
    assert hypothesis_of(Decoded([2, 0, 1], [0.0] * 3, cut_short=True), one).text == "té"
    assert hypothesis_of(Decoded([2, 0], [0.0, 0.0]), one).text == "t\ufffd"


@pytest.mark.model
def test_a_restarted_stream_verifies_what_it_recognized(
    model: Model, beckett: tuple[NDArray[np.int16], str]
) -> None:
    audio, shorter = beckett[0], beckett[0][: -2 * 16000]
    stream = model[2].stream()
    stream.accept(audio)
    stream.hypothesis()
    stream.restart()
    stream.accept(shorter)
    before = model[2].work.snapshot()
    text = stream.prepare().text
    work = model[2].work.since(before)
    assert work.encoded_s == len(shorter) / 16000
    assert work.decoder_passes < 0.5 * work.tokens
    alone = model[2].stream()
    alone.accept(shorter)
    assert word_error_rate(alone.finish().text, text) <= 0.1


@pytest.mark.model
def test_a_draft_gives_the_text_that_none_gives(
    model: Model, beckett: tuple[NDArray[np.int16], str]
) -> None:
    """But for near ties: the tokens of a draft are quantized together."""
    audio, _ = beckett
    thorough = load_recognizer(model[0], model[1], threads=1, effort=Effort(draft=False))
    streams = model[2].stream(), thorough.stream()
    before = [each.work.snapshot() for each in (model[2], thorough)]
    for piece in np.array_split(audio, 8):
        for stream in streams:
            stream.accept(piece)
        drafted, alone = (stream.hypothesis() for stream in streams)
    assert word_error_rate(alone.text, drafted.text) <= 0.1
    assert drafted.confidence == pytest.approx(alone.confidence, abs=0.05)
    work, most = (
        each.work.since(earlier) for each, earlier in zip((model[2], thorough), before, strict=True)
    )
    assert work.encoded_s == most.encoded_s
    assert work.decoder_passes < 0.8 * most.decoder_passes
    assert most.tokens <= most.decoder_passes == most.decoder_rows <= most.tokens + 8


@pytest.mark.model
@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda right: right,
        lambda right: right[:-1],
        lambda right: [*right, 5, 6],
        lambda right: right[1:],
        lambda right: [right[0], 100, *right[2:]],
        lambda right: [100] * len(right),
        lambda right: [TOKEN_START, TOKEN_END, *right],
        lambda right: right * 50,
    ],
    ids=["none", "right", "short", "long", "late", "one", "all", "marks", "endless"],
)
def test_a_wrong_draft_does_no_harm(
    model: Model,
    beckett: tuple[NDArray[np.int16], str],
    change: Callable[[list[int]], list[int]],
) -> None:
    samples = beckett[0][:64_000].astype(np.float32) / np.float32(32768)
    hidden = model[2].encode(samples)
    wanted = model[2].decode(hidden, len(samples))
    assert len(wanted.tokens) > 4
    assert wanted.ended
    draft = change(wanted.tokens)
    found = model[2].decode(hidden, len(samples), list(draft))
    assert (found.tokens, found.ended) == (wanted.tokens, True)
    assert found.log_probs == pytest.approx(wanted.log_probs, abs=0.2)
    pairs = zip(draft, wanted.tokens, strict=False)
    agreed = next(
        (i for i, (a, b) in enumerate(pairs) if a != b), min(len(draft), len(wanted.tokens))
    )
    assert found.passes == len(wanted.tokens) - agreed + 1


@pytest.mark.model
def test_a_draft_longer_than_the_audio_can_say_is_cut(
    model: Model, beckett: tuple[NDArray[np.int16], str]
) -> None:
    """And the limit holds in the pass that verifies it, too."""
    samples = beckett[0][:8000].astype(np.float32) / np.float32(32768)
    hidden = model[2].encode(samples)
    most = int(0.5 * 6.5) + 2
    right = model[2].decode(hidden, len(samples)).tokens
    for draft in (right, [100] * 1000, right + [100] * 1000):
        found = model[2].decode(hidden, len(samples), draft)
        assert len(found.tokens) <= most
        assert found.rows <= most + found.passes - 1


@pytest.mark.model
def test_new_audio_is_heard_along_with_the_old(
    model: Model, beckett: tuple[NDArray[np.int16], str], passes: list[int]
) -> None:
    audio, _ = beckett
    stream = model[2].stream()
    stream.accept(audio[:24000])
    first = stream.hypothesis()
    stream.accept(audio[24000:48000])
    assert len(stream.hypothesis().text) > len(first.text)
    assert passes == [24000, 48000]


@pytest.mark.model
@pytest.mark.parametrize("samples", [1, 894, 895, 1000])
def test_audio_shorter_than_the_encoders_window_is_padded(
    model: Model, passes: list[int], samples: int
) -> None:
    stream = model[2].stream()
    stream.accept(np.zeros(samples, np.int16))
    assert 0 <= stream.finish().confidence <= 1
    assert passes == [max(samples, STEM_SAMPLES)]


@pytest.mark.model
def test_no_audio_is_no_words_and_no_work(model: Model, passes: list[int]) -> None:
    stream = model[2].stream()
    stream.accept(np.empty(0, np.int16))
    heard = stream.finish()
    assert (heard.text, heard.confidence, heard.tokens) == ("", 0.0, ())
    assert passes == []


@pytest.mark.model
def test_a_failing_pass_is_a_recognition_error(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(model[2], "encode", fail)
    stream = model[2].stream()
    stream.accept(np.zeros(16000, np.int16))
    with pytest.raises(RecognitionError, match=r"1\.0 s of audio \(out of memory\)") as failed:
        stream.hypothesis()
    assert failed.value.mend


@pytest.mark.model
def test_the_model_says_what_it_is(model: Model) -> None:
    _, manifest, loaded = model
    assert (loaded.name, loaded.language, loaded.provider) == (manifest.name, "en", "cpu")
    assert loaded.max_segment_s == manifest.limits.max_segment_s


def with_files(manifest: Manifest, **paths: str | None) -> Manifest:
    """Let roles name other files; None takes the role away."""
    files = {role: file for role, file in manifest.files.items() if paths.get(role, "") is not None}
    for role, path in paths.items():
        if path:
            files[role] = PackagedFile(path=path, sha256="0" * 64, size_bytes=0)
    return msgspec.structs.replace(manifest, files=files)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path: Path) -> None:
    path.write_bytes(b"no model" * 1000)


ENCODER, DECODER, TOKENIZER = "encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"


@pytest.mark.model
@pytest.mark.parametrize("name", [ENCODER, DECODER, TOKENIZER])
@pytest.mark.parametrize("damage", [cut_in_half, spoil, Path.unlink], ids=["cut", "wrong", "gone"])
def test_a_damaged_file_is_named_with_a_mend(
    model: Model, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for each in (ENCODER, DECODER, TOKENIZER):
        (folder / each).symlink_to(model[0] / each)
    (folder / name).unlink()
    shutil.copyfile(model[0] / name, folder / name)
    damage(folder / name)
    with pytest.raises(ModelDamagedError, match=name) as damaged:
        load_recognizer(folder, model[1], threads=1)
    assert damaged.value.mend


@pytest.mark.model
@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"encoder": DECODER, "decoder": ENCODER}, "is no Moonshine encoder"),
        ({"encoder": DECODER}, "is no Moonshine encoder"),
        ({"decoder": ENCODER}, "is no merged Moonshine decoder"),
        ({"tokenizer": ENCODER}, "tokenizer"),
        ({"tokenizer": None}, "names no tokenizer file"),
        ({"encoder": None}, "names no encoder file"),
    ],
)
def test_files_in_the_wrong_roles_are_told(
    model: Model, paths: dict[str, str | None], message: str
) -> None:
    with pytest.raises(ModelDamagedError, match=message) as damaged:
        load_recognizer(model[0], with_files(model[1], **paths), threads=1)
    assert damaged.value.mend


@pytest.mark.model
def test_a_tokenizer_of_another_model_is_told(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(entry(b"token") * 100)
    wrong = with_files(model[1], tokenizer=str(path))
    with pytest.raises(ModelDamagedError, match="100 tokens, but the decoder 32768") as damaged:
        load_recognizer(model[0], wrong, threads=1)
    assert damaged.value.mend


@pytest.mark.model
def test_files_that_load_but_do_not_run_together_are_told_at_the_start(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an encoder of another size: told when the model is loaded, not at the first utterance."""

    def narrow(_: Moonshine, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros((1, len(audio) // 384, 416), np.float32)

    monkeypatch.setattr(Moonshine, "encode", narrow)
    with pytest.raises(ModelDamagedError, match="do not work together") as damaged:
        load_recognizer(model[0], model[1], threads=1)
    assert damaged.value.mend


@pytest.mark.model
def test_an_unknown_family_is_told(model: Model) -> None:
    unknown = msgspec.structs.replace(model[1], family="crystal-ball")
    message = 'family "crystal-ball"; this harkd runs moonshine, moonshine-lean'
    with pytest.raises(ModelError, match=message) as no:
        load_recognizer(model[0], unknown)
    assert isinstance(no.value, HarkdError)
    assert no.value.mend


@pytest.mark.model
def test_the_larger_model_of_the_catalogue_recognizes_too(base_model_dir: Path) -> None:
    """Its decoder takes no attention mask, and its tokenizer leaves out the last tokens."""
    manifest = load_manifest(base_model_dir)
    recognizer = load_recognizer(base_model_dir, manifest, threads=1)
    (sample,) = manifest.samples
    samples, _ = soundfile.read(base_model_dir / sample.path, dtype="int16")
    stream = recognizer.stream()
    stream.accept(samples[: 4 * 16000])
    hypothesis = stream.finish()
    assert plain(hypothesis.text).startswith("ever tried ever failed")
    assert 0.5 < hypothesis.confidence <= 1
