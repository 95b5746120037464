"""What a distillation is made of: what is heard at a step, and what is told if it cannot begin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from harkd.errors import HarkdError, ModelDamagedError
from harkd_convert.cli import cli
from harkd_convert.distil.corpus import hold_out, read_corpus
from harkd_convert.distil.decoding import greedy
from harkd_convert.distil.options import Options
from harkd_convert.distil.run import CHECKPOINT, LOG, Run
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import Moonshine
from harkd_convert.sources import open_source
from small_distillation import RECIPE, SHAPE, run
from small_moonshine import write_directory

# ----------------------------------------------------------------------------- what is heard


def test_a_step_always_has_the_same_batch(options: Options) -> None:
    one, other = (Run(replace(options, out=options.out / name), lambda _: None) for name in "ab")
    other.batches.batch(0)
    first, again = one.batches.batch(5), other.batches.batch(5)
    assert torch.equal(first.student, again.student)
    assert (first.tokens, first.samples, first.plan) == (again.tokens, again.samples, again.plan)
    assert not torch.equal(one.batches.batch(6).student[:, :800], first.student[:, :800])


def test_the_teachers_texts_are_made_once(options: Options) -> None:
    first = run(options)
    kept = (options.out / "teacher.jsonl").read_text()
    assert len({json.loads(line)["name"] for line in kept.splitlines()}) == len(kept.splitlines())
    (options.out / "teacher.jsonl").write_text(kept + '{"name": "cut o')
    again = Run(replace(options, resume=True), lambda _: None)
    assert (options.out / "teacher.jsonl").read_text() == kept
    assert [each.tokens for each in again.held] == [each.tokens for each in first.held]


def test_whole_speakers_are_held_out(lists: Path) -> None:
    clips = read_corpus([lists / "train.tsv"], r"(s\d+)_")
    train, held = hold_out(clips)
    assert {each.name for each in train} | {each.name for each in held} == {c.name for c in clips}
    assert {each.group for each in held} == {"read of read", "words of words"}
    assert not {each.speaker for each in train} & {each.speaker for each in held}


def test_of_a_single_speaker_recordings_are_held_out(lists: Path) -> None:
    train, held = hold_out(read_corpus([lists / "train.tsv"], "(read|words|s)"), share=0.2)
    assert held
    assert len(train) > len(held)


def test_a_folder_is_a_list_of_its_recordings(lists: Path) -> None:
    clips = read_corpus([lists / "read"])
    assert len(clips) == 12
    assert all(each.seconds > 0.3 for each in clips)


def test_a_model_that_comes_to_no_end_cannot_teach(options: Options, tmp_path: Path) -> None:
    endless = write_directory(tmp_path / "endless", SHAPE, seed=1)
    made = Run(replace(options, source=endless), lambda _: None)
    for clip in made.train:
        clip.tokens = None
    made.batches.ask = lambda _: None
    with pytest.raises(ConvertError, match="comes to no end"):
        made.batches.batch(0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_decoded_together_is_what_is_decoded_alone(source: Path, seed: int) -> None:
    decoder = Moonshine.from_source(open_source(source)).decoder
    chance = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, 50, SHAPE.width, generator=chance)
    heard = torch.arange(50) < torch.tensor([50, 20, 7, 33])[:, None]
    wanted = greedy(decoder, hidden, heard)
    assert any(wanted)
    for row, tokens in enumerate(wanted):
        alone = hidden[row : row + 1, : int(heard[row].sum())]
        assert greedy(decoder, alone, torch.ones(alone.shape[:2], dtype=torch.bool)) == [tokens]


# ----------------------------------------------------------------------------- what goes wrong


def told(error: HarkdError) -> str:
    return f"{error.message} {error.mend}"


def test_a_run_is_not_overwritten(options: Options) -> None:
    run(replace(options, recipe=replace(RECIPE, steps=4)))
    with pytest.raises(ConvertError, match="holds a run already"):
        Run(options, lambda _: None)


def test_there_must_be_something_to_resume(options: Options) -> None:
    with pytest.raises(ConvertError, match=r"no last\.pt"):
        Run(replace(options, resume=True), lambda _: None)


@pytest.mark.parametrize("content", [b"", b"nothing", "pickle"])
def test_a_damaged_checkpoint_is_told(options: Options, content: Any) -> None:
    options.out.mkdir()
    if content == "pickle":
        torch.save({"about": {}}, options.out / CHECKPOINT)
    else:
        (options.out / CHECKPOINT).write_bytes(content)
    with pytest.raises(ModelDamagedError, match="is no checkpoint"):
        Run(replace(options, resume=True), lambda _: None)


def test_a_checkpoint_of_other_weights_is_refused(options: Options, tmp_path: Path) -> None:
    run(replace(options, recipe=replace(RECIPE, steps=4)))
    other = write_directory(tmp_path / "other", SHAPE, seed=8)
    with pytest.raises(ConvertError, match="other weights"):
        Run(replace(options, resume=True, source=other), lambda _: None)


def test_recordings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("one.wav", "two.wav"):
        (tmp_path / name).write_bytes(b"no sound")
    (tmp_path / "list.tsv").write_text("one.wav\t1\t16000\t\ntwo.wav\t1\t16000\t\n")
    with pytest.raises(HarkdError) as refused:
        read_corpus([tmp_path / "list.tsv"])
    assert "one.wav" in refused.value.message
    assert "two.wav" in refused.value.message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plans", "16-16"], '"16-16" is no plan'),
        (["--speech", "missing.tsv"], "missing.tsv cannot be read"),
        (["--noise", "missing.tsv"], "missing.tsv cannot be read"),
        (["--rooms", "LIST"], "has no rooms"),
        (["--eval", "SILENT"], "does not say what is said"),
        (["--speaker", "("], "no regular expression"),
        (["--keep", "2"], "--keep"),
        (["--keep", "some"], "--keep"),
        (["--plot", "curve.txt"], "curve.txt"),
        (["--device", "abacus"], 'cannot compute on "abacus"'),
        (["--resume"], "has no last.pt"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_told(
    lists: Path, source: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    silent = tmp_path / "silent.tsv"
    silent.write_text(f"{lists / 'read' / 's0_0.wav'}\t1\t16000\t\n")
    named = {"LIST": str(lists / "train.tsv"), "SILENT": str(silent)}
    given = ["distil", str(source), "--out", str(tmp_path / "out")]
    given += [] if "--speech" in words else ["--speech", str(lists / "train.tsv")]
    found = CliRunner().invoke(cli, [*given, *(named.get(word, word) for word in words)])
    assert found.exit_code != 0
    text = found.output + (told(found.exception) if isinstance(found.exception, HarkdError) else "")
    assert message in text
    assert not (tmp_path / "out" / LOG).exists()
