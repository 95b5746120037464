"""Distillation: what is learned, that it resumes exactly, and what is told when it cannot begin."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from harkd.errors import HarkdError, ModelDamagedError
from harkd_convert.checkpoint import Shape
from harkd_convert.cli import cli
from harkd_convert.distil.corpus import hold_out, read_corpus
from harkd_convert.distil.decoding import greedy, greedy_from
from harkd_convert.distil.learning import Recipe
from harkd_convert.distil.options import Options
from harkd_convert.distil.passes import Plan
from harkd_convert.distil.run import CHECKPOINT, LOG, WEIGHTS, Run
from harkd_convert.distil.run_log import read_log
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import Moonshine
from harkd_convert.sources import open_source
from small_moonshine import write_directory

SHAPE = Shape(24, 2, 2, 1, 32, 32, 29, 8)
RATE_HZ = 16_000
RECIPE = Recipe(
    steps=8,
    rate=2e-3,
    warm_steps=2,
    decay_share=0.5,
    pull=0.1,
    divergence=1.0,
    halved=False,
)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech of three sources, noise and a room, as far as a random model can tell."""
    folder = tmp_path_factory.mktemp("speech")
    random = np.random.default_rng(3)
    lines, others = [], []

    def write(path: str, seconds: float, text: str, source: str = "") -> str:
        samples = int(seconds * RATE_HZ)
        envelope = np.abs(np.sin(np.linspace(0, 9, samples))) * 0.3
        (folder / path).parent.mkdir(exist_ok=True)
        soundfile.write(folder / path, random.normal(size=samples) * envelope, RATE_HZ)
        return f"{path}\t{seconds}\t{RATE_HZ}\t{text}\t{source}"

    for number in range(24):
        group, speaker = ("read", "words")[number % 2], number // 4
        seconds = 0.4 + 0.1 * (number % 7)
        lines.append(write(f"{group}/s{speaker}_{number}.wav", seconds, "alder", f"of {group}"))
    others.append(write("noise/one.wav", 1.0, "noise"))
    others.append(write("noise/room.wav", 0.2, "rir"))
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    (folder / "noise.tsv").write_text("\n".join(others) + "\n")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(tmp_path_factory.mktemp("model") / "small", SHAPE)


@pytest.fixture
def options(lists: Path, source: Path, tmp_path: Path) -> Options:
    return Options(
        source=source,
        corpora=(lists / "train.tsv",),
        out=tmp_path / "out",
        plans={Plan(4, 4): 2.0, Plan(6, 0): 1.0, Plan(0): 1.0},
        recipe=RECIPE,
        noises=(lists / "noise.tsv",),
        rooms=(lists / "noise.tsv",),
        speaker=r"(s\d+)_",
        batch_s=2.5,
        evaluate_steps=4,
    )


def run(options: Options) -> Run:
    made = Run(options, lambda _: None)
    made.go()
    return made


def weights_of(made: Run) -> dict[str, torch.Tensor]:
    both = {"now": made.student.encoder, "average": made.student.average}
    return {f"{a}.{n}": w for a, m in both.items() for n, w in m.state_dict().items()}


# ----------------------------------------------------------------------------- learning


def test_the_losses_go_down_in_twenty_steps(options: Options) -> None:
    recipe = replace(RECIPE, steps=20, rate=1e-3, decay_share=0.2, pull=0.0)
    made = run(replace(options, recipe=recipe, evaluate_steps=20, plans={Plan(4, 2): 1.0}))
    before, after = [each for each in read_log(made.log.path) if each["kind"] == "held out"]
    assert (before["step"], after["step"]) == (0, 20)
    assert after["hidden"] < 0.9 * before["hidden"]
    assert after["divergence"] < before["divergence"]


def test_stem_and_decoder_stay_as_they_were(options: Options) -> None:
    made = run(options)
    before = open_source(options.source).weights
    after = open_source(options.out / WEIGHTS).weights
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {
        name for name in before if name.startswith(("encoder.layers.", "encoder.layer_norm."))
    }
    assert all(not each.requires_grad for each in made.teacher.model.parameters())


def test_a_resumed_run_ends_in_the_same_weights(options: Options) -> None:
    whole = run(options)
    halves = replace(options, out=options.out.with_name("halves"))
    stopped = Run(halves, lambda _: None)
    stopped.evaluate(spoken=False)
    for step in range(3):
        stopped.student.learn(stopped.batches.batch(step))
    stopped.student.save(halves.out / CHECKPOINT, stopped.about)
    stopped.student.learn(stopped.batches.batch(3))  # after the checkpoint: lost
    stopped.log.add("losses", step=4)
    said: list[str] = []
    resumed = Run(replace(halves, resume=True), said.append)
    assert resumed.student.step == 3
    resumed.go()
    assert not any("Not the same run" in line for line in said)
    for name, wanted in weights_of(whole).items():
        assert torch.equal(weights_of(resumed)[name], wanted), name
    logs = [[x for x in read_log(each.log.path) if x["step"] > 4] for each in (whole, resumed)]
    assert logs[0] == logs[1]
    assert resumed.student.seconds == whole.student.seconds


def test_a_resumed_run_says_what_is_not_as_it_was(options: Options) -> None:
    run(options)
    said: list[str] = []
    recipe = replace(RECIPE, rate=1e-3)
    Run(replace(options, resume=True, recipe=recipe, seed=2), said.append)
    assert "Not the same run: seed was 1 and is 2" in said
    assert "Not the same run: rate was 0.002 and is 0.001" in said


def test_weights_that_are_kept_whole_are_the_original_ones(options: Options) -> None:
    recipe = replace(RECIPE, steps=4)
    run(replace(options, keep=(1.0,), recipe=recipe))
    before = open_source(options.source).weights
    after = open_source(options.out / WEIGHTS).weights
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        np.testing.assert_allclose(after[name], wanted, atol=1e-6)


def test_a_strong_pull_keeps_the_weights_near_the_original_ones(options: Options) -> None:
    def moved(pull: float, name: str) -> float:
        out = options.out.with_name(name)
        made = run(replace(options, out=out, recipe=replace(RECIPE, steps=4, pull=pull)))
        original = dict(made.teacher.model.encoder.named_parameters())
        pairs = [(w, original[n]) for n, w in made.student.encoder.named_parameters()]
        return sum(float((a - b).detach().square().sum()) for a, b in pairs)

    assert moved(400.0, "pulled") < 0.5 * moved(0.0, "free")


def test_what_was_written_is_a_model_that_can_be_converted(options: Options) -> None:
    run(options)
    found, before = open_source(options.out / WEIGHTS), open_source(options.source)
    assert found.shape == before.shape
    assert found.tokenizer == before.tokenizer
    assert (found.licence, found.licence_text) == (before.licence, before.licence_text)
    assert found.languages == before.languages


def test_word_errors_are_counted_by_category(options: Options, lists: Path) -> None:
    corpora = (lists / "read",)
    copied = options.out.with_name("elsewhere")
    shutil.copytree(lists, copied)
    recipe = replace(RECIPE, steps=0)
    made = run(replace(options, corpora=corpora, evaluated=copied / "train.tsv", recipe=recipe))
    (words, *_) = [each for each in read_log(made.log.path) if each["kind"] == "words"]
    assert words["errors"].keys() == {"read", "words", "all"}
    assert [words["errors"][name][1] for name in ("read", "words", "all")] == [12, 12, 24]


def test_what_is_evaluated_is_never_trained_on(options: Options, lists: Path) -> None:
    with pytest.raises(ConvertError, match=r"24 recordings of .* would be trained on"):
        Run(replace(options, evaluated=lists / "train.tsv"), lambda _: None)


def test_recordings_may_all_be_too_long(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harkd_convert.distil.batches.LONGEST_S", 0.1)
    with pytest.raises(ConvertError, match="no recordings shorter than"):
        Run(options, lambda _: None)


def test_curves_are_drawn(options: Options) -> None:
    picture = options.out.with_suffix(".svg")
    run(replace(options, plot=picture, recipe=replace(RECIPE, steps=4)))
    assert "held out" in picture.read_text()


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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_draft_saves_time_and_changes_nothing(source: Path, seed: int) -> None:
    decoder = Moonshine.from_source(open_source(source)).decoder
    chance = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, 50, SHAPE.width, generator=chance)
    heard = torch.arange(50) < torch.tensor([50, 20, 7, 33])[:, None]
    wanted = greedy(decoder, hidden, heard)
    assert any(wanted)
    for drafts in (wanted, [[]] * 4, [[7, 8, 9]] * 4, [[*each[:-2], 5] for each in wanted]):
        assert greedy_from(decoder, hidden, heard, drafts) == wanted
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
