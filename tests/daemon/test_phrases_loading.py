"""Phrases of the settings and their files: loaded, rebuilt with other lists, kept on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from harkd.cli_config import config
from harkd.cli_phrases import phrases
from harkd.errors import PhrasesError
from harkd.phrases import loading
from harkd.phrases.loading import load, load_files, phrase_files
from harkd.settings import PhrasesSettings
from harkd.settings import load as load_settings

LAMPS = "intents:\n  on:\n    - turn on {lamp}\nlists:\n  lamp: [desk lamp]\n"


@pytest.fixture
def lamps(tmp_path: Path) -> Path:
    path = tmp_path / "lamps.yaml"
    path.write_text(LAMPS)
    return path


def indented(text: str) -> str:
    """As it stands in the settings' section."""
    return "phrases:\n" + "".join(f"  {line}\n" for line in text.splitlines())


def test_phrases_may_stand_in_the_settings_file_beside_the_options(tmp_path: Path) -> None:
    path = tmp_path / "harkd.yaml"
    path.write_text(indented("mode: only\n" + LAMPS))
    settings = load_settings(path, {})
    assert settings.phrases == PhrasesSettings(mode="only")
    found = load(settings.phrases, path)
    assert found
    assert found.graph.match("turn on desk lamp")


def test_a_fault_of_phrases_in_the_settings_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "harkd.yaml"
    path.write_text(indented("mode: only\nintents:\n  on:\n    - go [there\n"))
    with pytest.raises(PhrasesError, match=r"harkd\.yaml:5:12: "):
        load(load_settings(path, {}).phrases, path)


def test_a_file_is_named_from_the_folder_of_the_settings(tmp_path: Path, lamps: Path) -> None:
    path = tmp_path / "harkd.yaml"
    path.write_text(f"phrases:\n  file: {lamps.name}\n")
    found = load(load_settings(path, {}).phrases, path)
    assert found
    assert found.graph.expansions() == 1


def test_files_are_named_one_by_one_or_by_folder_or_by_pattern(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (tmp_path / name).write_text(LAMPS)
    both = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    assert phrase_files("b.yaml, a.yaml", tmp_path) == both[::-1]
    assert phrase_files(".", tmp_path) == both
    assert phrase_files("*.yaml", tmp_path) == both
    assert phrase_files("", tmp_path) == []
    with pytest.raises(PhrasesError, match="there is no such file"):
        phrase_files("*.yml", tmp_path)


def test_several_files_are_one_set(tmp_path: Path, lamps: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("intents:\n  on: ['switch on {lamp}']\n  stop: [stop it]\n")
    found = load_files([lamps, more])
    assert found
    assert [phrase.intent for phrase in found.graph.phrases] == ["on", "on", "stop"]
    assert found.graph.match("switch on desk lamp")


def test_without_phrases_there_is_no_set(tmp_path: Path) -> None:
    path = tmp_path / "harkd.yaml"
    path.write_text("device_id: kitchen\n")
    assert load(PhrasesSettings(), path) is None
    assert load(PhrasesSettings(), None) is None


def test_a_list_that_came_later_stands_in_place_of_the_files(lamps: Path) -> None:
    found = load_files([lamps], lists={"lamp": ["bed light", {"in": "(TV|telly) light", "out": 5}]})
    assert found
    assert found.graph.match("turn on desk lamp") is None
    match = found.graph.match("turn on telly light")
    assert match
    assert match.slots == {"lamp": 5}


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"lamps": ["x"]}, 'there is no list "lamps" (known: lamp); correct its name'),
        ({"lamp": [{"out": "x"}]}, 'value 1 of the list "lamp" is neither a text nor has "in"'),
        ({"lamp": ["a", "(b"]}, 'list "lamp", value 2:1: "(b" "(" is never closed'),
    ],
)
def test_a_bad_list_is_told_and_the_set_that_was_loaded_stays(
    lamps: Path, lists: dict[str, list[str]], words: str
) -> None:
    before = load_files([lamps])
    with pytest.raises(PhrasesError) as told:
        load_files([lamps], lists=lists)
    assert words in told.value.message
    assert before
    assert before.graph.match("turn on desk lamp")


def test_what_took_long_is_kept_and_is_the_same_when_it_is_read_back(
    lamps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SLOW_S", 0.0)
    state = tmp_path / "state"
    text = LAMPS + "  n: {range: {from: 0, to: 100, multiplier: 0.5}}\n"
    lamps.write_text(text.replace("turn on {lamp}", "turn on {lamp} to {n}"))
    first = load_files([lamps], keep_in=state)
    loading._in_use.clear()  # as after a restart
    second = load_files([lamps], keep_in=state)
    assert first
    assert second
    assert (first.kept, second.kept) == (False, True)
    assert list(first.graph.sentences()) == list(second.graph.sentences())
    assert first.graph.tables == second.graph.tables


def test_what_was_quick_is_not_kept(lamps: Path, tmp_path: Path) -> None:
    load_files([lamps], keep_in=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_other_files_lists_or_damage_are_compiled_anew(
    lamps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SLOW_S", 0.0)
    state = tmp_path / "state"
    assert load_files([lamps], keep_in=state)
    (kept,) = state.iterdir()
    other = load_files([lamps], lists={"lamp": ["x"]}, keep_in=state)
    assert other
    assert not other.kept
    kept.write_bytes(kept.read_bytes()[:-5])
    again = load_files([lamps], keep_in=state)
    assert again
    assert not again.kept
    for number in range(10):
        load_files([lamps], lists={"lamp": [f"lamp {number}"]}, keep_in=state)
    assert len(list(state.iterdir())) == loading.MOST_KEPT


# ------------------------------------------------------------------------------- the command line


def test_check_shows_intents_counts_and_samples(lamps: Path) -> None:
    done = CliRunner().invoke(phrases, ["check", str(lamps), "--samples", "1"])
    assert done.exit_code == 0
    assert "on: 1 templates, 1 sentences\n    turn on desk lamp  lamp=desk lamp\n" in done.output
    assert f"{lamps}: no faults" in done.output


def test_check_names_a_template_that_cannot_be_said(lamps: Path) -> None:
    lamps.write_text("intents:\n  on:\n    - turn on {lamp}\nlists:\n  lamp: []\n")
    done = CliRunner().invoke(phrases, ["check", str(lamps)])
    assert (
        "note: on: 'turn on {lamp}' cannot be said: a list in it is empty, or free text"
        in done.stderr
    )


def test_check_tells_where_a_sentence_is_taken_for_another(lamps: Path) -> None:
    lamps.write_text("intents: {all: [turn on all], one: ['turn on {x}']}\nlists: {x: [all]}\n")
    done = CliRunner().invoke(phrases, ["check", str(lamps), "--samples", "1"])
    assert "    turn on all  x=all  (taken as all)\n" in done.output


def test_the_example_is_the_house(tmp_path: Path) -> None:
    path = tmp_path / "house.yaml"
    path.write_text(CliRunner().invoke(phrases, ["example"]).output)
    done = CliRunner().invoke(phrases, ["match", "turn on the bed light", str(path)])
    assert json.loads(done.output)["intent"] == "HassTurnOn"


def test_checking_the_settings_checks_their_phrases(tmp_path: Path) -> None:
    path = tmp_path / "harkd.yaml"
    path.write_text(indented("intents:\n  on:\n    - go [there\n"))
    done = CliRunner().invoke(config, ["check", str(path)])
    assert isinstance(done.exception, PhrasesError)


def test_match_shows_the_meaning_of_a_text(lamps: Path) -> None:
    done = CliRunner().invoke(phrases, ["match", "Turn on desk lamp.", str(lamps)])
    assert json.loads(done.output) == {
        "phrase": "turn on desk lamp",
        "intent": "on",
        "slots": {"lamp": "desk lamp"},
        "template": "turn on {lamp}",
    }
    done = CliRunner().invoke(phrases, ["match", "turn off", str(lamps)])
    assert done.exit_code == 1
    assert done.stderr == "no phrase: turn off\n"


def test_the_command_takes_the_settings_where_no_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "harkd.yaml"
    path.write_text(indented(LAMPS))
    done = CliRunner().invoke(phrases, ["match", "turn on desk lamp", "--config", str(path)])
    assert done.exit_code == 0
    path.write_text("device_id: x\n")
    done = CliRunner().invoke(phrases, ["check", "--config", str(path)])
    assert isinstance(done.exception, PhrasesError)
    assert "there are no phrases in the settings" in str(done.exception)
