"""Phrases that were sent over MQTT: what they take the place of, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harkd.errors import PhrasesError
from harkd.phrases import loading
from harkd.phrases.loading import PhraseSet, load
from harkd.phrases.sent import MOST_BYTES, Sent, as_yaml, read_sent
from harkd.settings import PhrasesSettings

LAMPS = """\
intents:
  on: ["turn on {lamp}"]
  off:
    - sentences: ["turn off {lamp}", "turn off {room}"]
      lists: {room: [kitchen]}
lists:
  lamp: [desk lamp]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lamps.yaml").write_text(LAMPS)
    return tmp_path


def loaded(folder: Path, payload: object) -> PhraseSet | None:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    options = PhrasesSettings(file="lamps.yaml")
    return load(options, folder / "harkd.yaml", sent=read_sent(text.encode()))


def can_be_said(found: PhraseSet | None) -> set[str]:
    return {match.phrase for match in found.graph.sentences()} if found else set()


def faults(folder: Path, payload: object) -> str:
    with pytest.raises(PhrasesError) as told:
        loaded(folder, payload)
    return told.value.message


# ------------------------------------------------------------------------ what it stands for


def test_with_intents_it_stands_in_place_of_all(folder: Path) -> None:
    found = loaded(folder, {"intents": {"go": ["go to {x}"]}, "lists": {"x": ["bed", "work"]}})
    assert can_be_said(found) == {"go to bed", "go to work"}


def test_faults_of_the_settings_phrases_do_not_matter_then(folder: Path) -> None:
    (folder / "lamps.yaml").write_text("intents: {")
    assert can_be_said(loaded(folder, {"intents": {"go": ["go"]}})) == {"go"}


def test_intents_without_any_are_none(folder: Path) -> None:
    assert loaded(folder, {"intents": {}}) is None


def test_with_lists_alone_these_take_the_place_of_those_with_their_names(folder: Path) -> None:
    found = loaded(folder, {"lists": {"lamp": ["sun", {"in": "(big|old) moon", "out": 5}]}})
    assert can_be_said(found) == {
        *("turn on sun", "turn on big moon", "turn on old moon", "turn off kitchen"),
        *("turn off sun", "turn off big moon", "turn off old moon"),
    }
    assert found
    match = found.graph.match("turn on old moon")
    assert match
    assert match.slots == {"lamp": 5}


def test_so_do_ranges_and_lists_of_a_block(folder: Path) -> None:
    payload = {"lists": {"lamp": {"range": {"from": 1, "to": 2}}, "room": ["bath", "attic"]}}
    said = can_be_said(loaded(folder, payload))
    assert {"turn on one", "turn off 2", "turn off bath", "turn off attic"} <= said
    assert "turn off kitchen" not in said


def test_the_mode_alone_leaves_phrases_as_they_are(folder: Path) -> None:
    assert read_sent(b'{"mode":"only"}') == Sent(
        text='{"mode":"only"}', scope="nothing", mode="only"
    )
    plain = load(PhrasesSettings(file="lamps.yaml"), folder / "harkd.yaml")
    found = loaded(folder, {"mode": "open"})
    assert plain
    assert found
    assert found.graph is plain.graph, "it is not made twice"


@pytest.mark.parametrize("payload", ["{}", " {} \n", "{ }"])
def test_an_empty_object_is_nothing(payload: str) -> None:
    assert read_sent(payload.encode()) is None


def test_yaml_is_taken_too(folder: Path) -> None:
    text = "# my house\nmode: only\nintents:\n  go:\n    - go [now]\n"
    sent = read_sent(text.encode())
    assert sent
    assert (sent.scope, sent.mode) == ("all", "only")
    assert can_be_said(loaded(folder, text)) == {"go", "go now"}


@pytest.mark.parametrize("indent", ["\t", 2, None])
def test_json_is_taken_however_it_is_written(folder: Path, indent: str | int | None) -> None:
    body = {"intents": {"go": ['say "{x}" now']}, "lists": {"x": [{"in": "a", "out": "👍\té\\u"}]}}
    for escaped in (True, False):
        found = loaded(folder, json.dumps(body, indent=indent, ensure_ascii=escaped))
        assert found
        match = found.graph.match("say a now")
        assert match
        assert match.slots == {"x": "👍\té\\u"}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=4))
def test_any_json_means_the_same_as_yaml_takes_it(body: dict[str, str]) -> None:
    text = json.dumps(body, indent="\t")
    assert json.loads(as_yaml(text)) == json.loads(text)


# ------------------------------------------------------------------------ what is wrong with it


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("[]", "phrases/set: it is no object; send"),
        ('"go"', "phrases/set: it is no object"),
        ("  ", "phrases/set: it is no object"),
        ("{", "phrases/set:1:2: is not YAML"),
        ('{"intent":{}}', 'phrases/set:1:2: unknown key "intent"; did you mean "intents"?'),
        ('{"mode":"all"}', 'phrases/set:1:2: "mode" is open, prefer or only; correct it'),
        ('{"mode":["only"]}', 'phrases/set:1:2: "mode" is open, prefer or only'),
        (
            '{"lists":{"lamp":["x"]},\n "skip_words":["please"]}',
            'phrases/set:2:2: "skip_words" is for the "intents" beside it; send those, too',
        ),
        (
            '{"lists":\n  {"lmp":["x"]}}',
            'phrases/set:2:4: the phrases of the settings have no list "lmp"; did you mean "lamp"?',
        ),
        ('{"lists":{"zzz":["x"]}}', "send templates that use it, too"),
        (
            '{"intents":{"on":[\n "turn on [the {x}",\n "go {y}"]}}',
            'phrases/set:2:11: "turn on [the {x}" "[" is never closed',
        ),
        ('{"intents":{"on":[\n "the {x}",\n "go {y}"]}}', "phrases/set:3:6: there is no list"),
        ('{"intents":{"a/b":["go"]}}', "phrases/set:1:13: an intent's name is in topics"),
        ("a: &a [x]\nb: *a\n", "aliases (*) are not read here; write it out"),
        ("intents: &a {x: *a}", "aliases (*) are not read here"),
        ("[" * 5000, "is nested too deeply"),
        ("go: \x00", "U+0000 is not allowed"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_in_the_payload_and_the_mend(
    folder: Path, payload: str, words: str
) -> None:
    assert words in faults(folder, payload)


def test_what_is_no_text_is_told() -> None:
    with pytest.raises(PhrasesError, match=r"phrases/set:2: is not UTF-8 text \(byte 0xff\)"):
        read_sent(b"{\n\xff}")


def test_what_is_too_large_is_not_looked_at() -> None:
    with pytest.raises(PhrasesError, match="bytes are more than 261120; write the phrases into"):
        read_sent(b" " * (MOST_BYTES + 1))


def test_two_thousand_templates_are_not_too_large() -> None:
    templates = [f"(turn|switch) on [the] {{lamp}} in the {{room}} number {n}" for n in range(2000)]
    payload = json.dumps({"intents": {"on": templates}}).encode()
    assert len(payload) < MOST_BYTES
    assert read_sent(payload)


def test_lists_are_told_with_the_faults_of_the_settings_phrases(folder: Path) -> None:
    (folder / "lamps.yaml").write_text(LAMPS.replace("{lamp}", "{lmp}", 1))
    told = faults(folder, {"lists": {"lamp": ["(x"]}})
    assert 'lamps.yaml:2:17: there is no list "lmp"' in told
    assert 'phrases/set:1:22: "(x" "(" is never closed' in told


# ------------------------------------------------------------------------ what it costs


def test_what_was_sent_is_kept_compiled_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SLOW_S", 0.0)
    sent = read_sent(b'{"intents":{"go":["go"]}}')
    options, state = PhrasesSettings(), folder / "state"
    first = load(options, None, sent=sent, keep_in=state)
    loading._in_use.clear()  # as after a restart
    second = load(options, None, sent=sent, keep_in=state)
    assert first
    assert second
    assert (first.kept, second.kept) == (False, True)


def test_a_short_text_cannot_stand_for_a_very_long_one() -> None:
    """A list of lists of lists, each ten times the one before, is refused at once."""
    lines = ["a: &a [go, go, go]", *(f"{x}: &{x} [{', '.join([f'*{y}'] * 10)}]" for y, x in
             zip("abcdefgh", "bcdefghi", strict=True))]  # fmt: skip
    with pytest.raises(PhrasesError, match="aliases"):
        read_sent("\n".join(lines).encode())
