"""Distillation: what is learned, that it resumes exactly, and what it leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harkd_convert.distil.options import Options
from harkd_convert.distil.passes import Plan
from harkd_convert.distil.run import CHECKPOINT, WEIGHTS, Run
from harkd_convert.distil.run_log import read_log
from harkd_convert.errors import ConvertError
from harkd_convert.sources import open_source
from small_distillation import ENDING, RECIPE, SHAPE, run
from small_moonshine import write_directory


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


def test_a_run_can_begin_with_the_mean_of_what_others_have_taught(
    options: Options, tmp_path: Path
) -> None:
    taught = [
        run(replace(options, out=tmp_path / str(seed), seed=seed)).student.blended(0.0)
        for seed in (1, 2)
    ]
    mean = run(
        replace(
            options,
            out=tmp_path / "mean",
            begin=(tmp_path / "1" / WEIGHTS, tmp_path / "2" / WEIGHTS),
            recipe=replace(options.recipe, steps=0),
        )
    )
    name = "layers.0.mlp.fc1.weight"
    one, other = (dict(each.named_parameters())[name] for each in taught)
    assert not torch.equal(one, other)
    torch.testing.assert_close(weights_of(mean)[f"now.{name}"], (one + other) / 2)


def test_weights_of_another_shape_are_nothing_to_begin_with(
    options: Options, tmp_path: Path
) -> None:
    source = write_directory(tmp_path / "other", replace(SHAPE, encoder_layers=1), ENDING)
    with pytest.raises(ConvertError, match="other layers") as told:
        Run(replace(options, begin=(source,)), lambda _: None)
    assert told.value.mend


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
