"""The training recipe: its units, and that it learns, stops, goes on, and leaves a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harkd_convert.conversion import to_samples
from harkd_convert.export_check import pseudo_speech
from recipes.streaming_ctc import train
from recipes.streaming_ctc.speech import Ears, read_recordings
from recipes.streaming_ctc.units import learn_units, words_of
from small_conformer import open_checkpoint

TEXTS = ["one two", "two one", "one", "Twenty-one", "a b c", "it's half"]


def test_units_write_down_every_text_and_read_it_back() -> None:
    units = learn_units(TEXTS, least=3)
    for text in [*TEXTS, "words never heard", "zebra's"]:
        assert units.decode(units.encode(text)) == " ".join(words_of(text))
    assert units.names[0] == "<blank>"
    assert len(set(units.names)) == len(units.names)


def test_only_what_is_heard_often_is_a_unit_of_its_own() -> None:
    units = learn_units(TEXTS, least=3)
    assert len(units.encode("one")) == 1
    assert len(units.encode("half")) == 4
    assert learn_units(["again"] * 9, least=5, most_of_a_text=4).merges == []


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    lines, noises = [], []
    kinds = {"train/an4/an4_train_{}_x.wav": 3, "train/words/{}.wav": 2, "train/libri/{}.wav": 1}
    for kind, count in kinds.items():
        for number in range(count):
            path = kind.format(f"{'abc'[number]}xyz")
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            audio = pseudo_speech(20_000 + int(rng.integers(5_000)))
            soundfile.write(tmp_path / path, to_samples(audio), 16_000)
            lines.append(f"{path}\t2\t16000\tone two\ta test\n")
    for name, kind, audio in [
        ("n", "noise", rng.normal(0, 0.1, 9_000)),
        ("r", "rir", np.eye(1)[0]),
    ]:
        soundfile.write(tmp_path / f"{name}.wav", audio, 8_000)
        noises.append(f"{name}.wav\t1\t8000\t{kind}\ta test\n")
    (tmp_path / "train.tsv").write_text("".join(lines))
    (tmp_path / "noise.tsv").write_text("".join(noises))
    return tmp_path


def options(speech: Path, **more: object) -> argparse.Namespace:
    given = {"speech": speech, "out": speech / "out", "minutes": 0.02, "width": 16, "layers": 2}
    (speech / "out").mkdir(exist_ok=True)
    return argparse.Namespace(**(given | {"bf16": False, "small": False} | more))


def test_what_is_heard_is_never_twice_the_same(speech: Path) -> None:
    ears = Ears(speech / "noise.tsv", np.random.default_rng(1))
    recording = read_recordings(speech / "train.tsv", "train/libri/")[0]
    one, other = ears.hear([recording]), ears.hear([recording])
    assert one.dtype == np.int16
    assert len(one) != len(other)
    assert len(ears.hear([recording] * 2)) > 1.5 * len(one)


def test_it_leaves_a_checkpoint_that_can_be_converted_and_goes_on(speech: Path) -> None:
    first = train.Training(options(speech))
    first.run()
    source = open_checkpoint(speech / "out")
    assert source.shape == first.shape
    assert first.epoch >= 1
    again = train.Training(options(speech, minutes=0.04))
    assert (again.epoch, again.step) == (first.epoch, first.step)
    again.run()
    assert again.step > first.step
