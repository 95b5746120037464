"""What is wrong with phrases is told with its place and the mend, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harkd.errors import PhrasesError
from harkd.phrases import compiling
from harkd.phrases.compiling import compile_phrases
from harkd.phrases.file import FileReader
from harkd.phrases.loading import load_files
from harkd.phrases.template import TemplateFault, parse


def faults(text: str) -> list[str]:
    """Everything that is wrong with a file, without its name."""
    reader = FileReader()
    reader.read(Path("p.yaml"), text)
    found = [str(fault) for fault in reader.faults]
    try:
        compile_phrases(reader.source())
    except PhrasesError as error:
        found += error.message.splitlines()
    return [fault.removeprefix("p.yaml:") for fault in found]


def of_template(template: str) -> list[str]:
    """What is wrong with one template, from its column on; it begins in column 7."""
    text = f"intents:\n  do:\n    - {template}\nlists:\n  lamp: [desk lamp]\n"
    return [fault.removeprefix("3:") for fault in faults(text)]


@pytest.mark.parametrize(
    ("template", "column", "words"),
    [
        ("turn on [the lamp", 15, '"[" is never closed; write the "]"'),
        ("turn on (the lamp", 15, '"(" is never closed; write the ")"'),
        ("turn on the) lamp", 18, '")" closes nothing; delete it'),
        ("turn (on the] lamp", 19, '"]" stands where ")" closes the "(" of character 6'),
        ("turn on {lamp", 15, '"{" is never closed; write the "}"'),
        ("turn on {la mp}", 15, '"{la mp}" is no name of a list'),
        ("turn on {lmp}", 15, 'there is no list "lmp"; did you mean "lamp"?'),
        ("turn on {zzz}", 15, 'there is no list "zzz"; write it under "lists:"'),
        ("in <area>", 10, 'there is no rule "area"; write it under "expansion_rules:"'),
        ("in <the area>", 10, '"<the area>" is no name of a rule'),
        ("set to {1..5}", 14, "has no name; write it behind, as in {1..5:number}"),
        ("set to {5..1:n}", 14, "write the smaller first"),
        ("go {lamp:@x}", 10, '"@" belongs in responses'),
        ("(a|b;c)", 11, 'has "|" and ";" side by side'),
        ("go \\", 10, "ends in a backslash"),
        ("'[turn] [on]'", 8, "can be said without a word"),
        ("(a;b;c;d;e;f;g)", 8, "7 parts in any order; 6 are the most"),
    ],
)
def test_a_templates_fault_has_its_column(template: str, column: int, words: str) -> None:
    (found,) = of_template(template)
    assert found.startswith(f"{column}:")
    assert words in found


def test_a_slot_is_filled_once() -> None:
    (found,) = of_template("turn on {lamp} and {lamp}")
    assert 'fills the slot "lamp" twice; name one of them differently, as in {lamp:other}' in found
    assert not of_template("turn on ({lamp}|the {lamp})")
    assert not of_template("turn on {lamp} and {lamp:other}")


def test_in_quotes_the_column_is_that_of_the_letter() -> None:
    assert of_template('"turn on {lmp}"')[0].startswith("16:")


def test_a_template_over_several_lines_is_told_by_its_beginning() -> None:
    (found,) = of_template("turn on\n        {lmp}")
    assert found.startswith("7:")


def test_all_faults_are_told_at_once_in_the_order_of_their_lines() -> None:
    found = faults(
        "intents:\n"
        "  on: ['turn on [the', 'switch on {lmp}']\n"
        "  off:\n"
        "    - sentences: ['off <x>']\n"
        "      slots: {a: [1]}\n"
        "      sloots: {}\n"
        "lists:\n"
        "  n: {range: {from: 1}}\n"
        "  m: {range: {from: 5, to: 1}}\n"
        "  w: {wildcards: true}\n"
        "  v: {values: ['(a', '[b]']}\n"
        "rules: {}\n"
    )
    lines = [fault.split(":")[0] for fault in found]
    assert sorted(lines, key=int) == ["2", "2", "4", "5", "6", "8", "9", "10", "11", "11", "12"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("intents: {do: [go]}\nlists: [a]\n", '2:8: lists are lines of "name: …"'),
        ("intents: [go]\n", '1:10: intents are lines of "name: …"'),
        ("intents: {do: go}\n", "1:15: here belong templates, each on a line with a dash"),
        ("intents:\n  do:\n    - [the] lamp\n", "3:13: is not YAML"),
        ("intents:\n  do:\n    - [go]\n", "3:7: here belongs a template; text that begins with"),
        ("intents: {a/b: [go]}\n", "1:11: an intent's name is in topics; use no"),
        ("intents: {a+: [go]}\n", "1:11: an intent's name is in topics; use no"),
        ('intents: {"a\\0b": [go]}\n', "1:11: an intent's name is in topics; use no"),
        ('intents: {"a\\x85": [go]}\n', "1:11: an intent's name is in topics; use no"),
        ("intents: {'': [go]}\n", "1:11: an intent's name is in topics; write one"),
        (
            f"intents: {{{'a' * 101}: [go]}}\n",
            "1:11: an intent's name is in topics; write one of 100",
        ),
        ("intents: {a: [go], a: [run]}\n", '1:20: "a" is there twice, first in line 1'),
        ("intents: {a: [{in: go}]}\n", '1:16: unknown key "in"'),
        ("intents: {a: {datas: [go]}}\n", '1:15: unknown key "datas"; write "data:"'),
        ("lists: {a: {from: 1}}\n", '1:13: unknown key "from"; write "values:" or "range:"'),
        ("lists: {a: }\n", '1:11: "a" has no values; write them as [kitchen, bath]'),
        ("lists: {a: {range: {from: x, to: 1}}}\n", '1:21: "from" is a whole number'),
        ("lists: {a: {range: {from: 1, to: 9999999}}}\n", '1:30: "to" is a whole number'),
        ("lists: {a: {range: {from: 1, to: 2, step: 0}}}\n", '"step" is a whole number from 1'),
        ("lists: {a: {range: {from: 1, to: 2, fractions: x}}}\n", "halves or tenths"),
        ("lists: {a: [{out: x}]}\n", '1:13: has no "in:"'),
        ("lists: {a: ['{b}']}\n", 'there is no list "b"'),
        ("lists: {a: [x], b: ['y {a}']}\n", "is a value of a list and uses another list"),
        ("expansion_rules: {a: <b>, b: x <a>}\n", "a rule uses itself (a → b → a)"),
        ("expansion_rules: {a: '(x'}\n", '1:23: "(x" "(" is never closed'),
        (
            "intents: {a: [{sentences: ['{b}'], slots: {b: 1}}]}\nlists: {b: [x]}\n",
            "its block sets",
        ),
        ("intents: {a: ['(a|b)(a|c)" + "(d|e)" * 12 + "']}\n", "more than 1000 words"),
        ("", " is empty; write"),
        ("a: b: c\n", "is not YAML"),
        ("go\n", '1:1: phrases files are lines of "name: …"'),
        ("intents: &a {x: *a}\n", "1:1"),
    ],
)
def test_a_files_fault_has_its_place_and_the_mend(text: str, fault: str) -> None:
    assert any(fault in found for found in faults(text)), faults(text)


@given(st.text(alphabet="ab ()[]{}<>|;:\\1.,'", max_size=25))
def test_any_text_is_a_template_or_has_a_fault_within_it(text: str) -> None:
    found: TemplateFault | None = None
    try:
        parse(text)
    except TemplateFault as fault:
        found = fault
    assert found is None or (0 <= found.offset <= len(text) and found.text)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab \n:-[]{}<>&*'\"|,in", max_size=60))
def test_any_text_in_a_file_ends_in_faults_or_a_graph(text: str) -> None:
    faults(f"intents:\n  do:\n    - {text}\nlists: {{a: [b]}}\n")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(PhrasesError, match=r"there is no such file; correct the path"):
        load_files([path])
    path.write_bytes(b"intents:\n  a: [caf\xe9]\n")
    with pytest.raises(PhrasesError, match=r"p\.yaml:2: is not UTF-8 text \(byte 0xe9\)"):
        load_files([path])


def test_templates_that_are_too_much_together_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "MOST_PARTS", 2_000)
    nested = "a"
    for _ in range(4):
        nested = f"({nested};b;c;d;e;f)"
    (found,) = of_template(nested)
    assert "and those before it are too much together; take out alternatives" in found


def test_a_name_that_two_files_define_is_told_with_both_places(tmp_path: Path) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text("intents: {a: ['go {x}']}\nlists: {x: [b]}\n")
    two.write_text("lists: {x: [c]}\n")
    with pytest.raises(PhrasesError) as told:
        load_files([one, two])
    assert told.value.message == (
        f'{two}:1:9: "x" is defined twice, first in {one}:2:9; delete one of them'
    )
