"""Templates: every sentence that they have is read back with its own intent and slots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harkd.phrases import Match, PhraseGraph
from harkd.phrases.compiling import compile_phrases
from harkd.phrases.file import FileReader
from harkd.phrases.spoken import number_words, readings, tokens
from harkd.phrases.template import (
    AnyOrder,
    Choice,
    Expression,
    ListUse,
    RuleUse,
    Sequence,
    Text,
    parse,
)

HOUSE = Path(__file__).parents[2] / "config" / "phrases" / "house.en.yaml"


def compiled(text: str) -> PhraseGraph:
    """The graph of a phrases file's text, which must have no faults."""
    reader = FileReader()
    reader.read(Path("phrases.yaml"), text)
    assert not reader.faults
    return compile_phrases(reader.source())


@pytest.fixture(scope="module")
def house() -> PhraseGraph:
    """The phrases that come with harkd."""
    return compiled(HOUSE.read_text(encoding="utf-8"))


def of(*templates: str, **lists: list[str]) -> PhraseGraph:
    """The graph of templates of one intent."""
    lines = ["intents:", "  do:", *(f"    - '{template}'" for template in templates), "lists:"]
    lines += [f"  {name}: {values}" for name, values in lists.items()]
    return compiled("\n".join(lines))


def sentences(graph: PhraseGraph) -> list[str]:
    """All of them, sorted."""
    return sorted(match.phrase for match in graph.sentences())


def slots(graph: PhraseGraph, text: str) -> dict[str, Any]:
    """What a text has in it, which must be a sentence."""
    found = graph.match(text)
    assert found, text
    return found.slots


def said(text: str) -> list[str]:
    """The words of a sentence."""
    return text.split()


def walk(graph: PhraseGraph, words: list[str]) -> list[int]:
    """The arcs from the start that spell these words, to an end."""
    node, path = graph.start, []
    for word in words:
        (arc,) = [arc for arc in graph.arcs(node) if arc.word == word]
        path.append(arc.ident)
        node = arc.to
    assert graph.ends(node)
    return path


@pytest.mark.parametrize(
    ("template", "phrases"),
    [
        ("turn on the light", ["turn on the light"]),
        ("turn on [the] light", ["turn on light", "turn on the light"]),
        ("(dim|brighten) it", ["brighten it", "dim it"]),
        ("light[s] on", ["light on", "lights on"]),
        ("(un|)lock", ["lock", "unlock"]),
        ("[very|quite] loud", ["loud", "quite loud", "very loud"]),
        ("a[ b[ c]]", ["a", "a b", "a b c"]),
        ("(on;now) please", ["now on please", "on now please"]),
        ("50%", ["50 percent", "fifty percent"]),
        ("What's up, Doc?", ["what's up doc"]),
        ("the TV", ["the t v", "the tv"]),
        ("a \\(b\\)", ["a b"]),
        ("  wide   open  ", ["wide open"]),
        ("vorzüglich", ["vorzüglich"]),
    ],
)
def test_a_template_has_these_sentences(template: str, phrases: list[str]) -> None:
    graph = of(template.replace("'", "''"))
    assert sentences(graph) == phrases
    assert graph.expansions() == len(phrases)


def test_a_list_fills_its_slot_with_what_stands_under_out() -> None:
    graph = compiled(
        "intents: {on: ['turn on {lamp:name}']}\n"
        "lists: {lamp: [desk lamp, {in: (night|bed) light, out: light.bed}, {in: two, out: 2}]}\n"
    )
    assert slots(graph, "turn on desk lamp") == {"name": "desk lamp"}
    assert slots(graph, "Turn on Bed Light!") == {"name": "light.bed"}
    assert slots(graph, "turn on two") == {"name": 2}
    assert graph.match("turn on lamp") is None


def test_what_a_value_with_alternatives_puts_out_is_its_first_reading() -> None:
    graph = of("on {lamp}", lamp=["(desk|table) lamp[s]"])
    assert slots(graph, "on table lamps") == {"lamp": "desk lamp"}


def test_a_value_of_a_list_may_have_letters_behind_it() -> None:
    assert slots(of("{who}''s room", who=["Anna"]), "Anna's room") == {"who": "Anna"}


def test_yes_and_no_in_a_list_are_words() -> None:
    graph = compiled("intents: {x: ['say {word}']}\nlists: {word: [on, off, yes, no]}\n")
    assert slots(graph, "say off") == {"word": "off"}


def test_a_block_adds_slots_and_metadata_and_has_lists_of_its_own() -> None:
    graph = compiled(
        "intents:\n"
        "  on:\n"
        "    data:\n"
        "      - sentences: [go <there>]\n"
        "        slots: {speed: 3}\n"
        "        metadata: {reply: done}\n"
        "        lists: {room: {values: [hall]}}\n"
        "        expansion_rules: {there: 'to {room}'}\n"
        "      - sentences: ['leave {room}']\n"
        "lists: {room: [kitchen]}\n"
    )
    found = graph.match("go to hall")
    assert found == Match(
        phrase="go to hall",
        intent="on",
        slots={"speed": 3, "room": "hall"},
        template="go <there>",
        metadata={"reply": "done"},
    )
    assert graph.match("go to kitchen") is None
    assert slots(graph, "leave kitchen") == {"room": "kitchen"}


def test_words_to_skip_may_be_said_before_and_after() -> None:
    graph = compiled("intents: {on: [light on]}\nskip_words: [please, could you]\n")
    assert all(graph.match(f"{word} light on") for word in ("please", "could you", ""))
    assert graph.match("light on please")
    assert graph.expansions() == len(sentences(graph)) == 9
    assert graph.expansions("on") == 9


def test_of_two_readings_the_one_with_more_words_of_its_own_is_meant() -> None:
    graph = compiled(
        "intents: {one: ['turn on {name}'], all: [turn on all lights]}\n"
        "lists: {name: [all lights, desk lamp]}\n"
    )
    found = graph.match("turn on all lights")
    assert found
    assert found.intent == "all"


def test_of_two_equal_readings_the_first_that_was_written_is_meant() -> None:
    graph = compiled("intents: {b: [go], a: [go]}\n")
    found = graph.match("go")
    assert found
    assert found.intent == "b"


def test_free_text_is_no_phrase_and_no_fault() -> None:
    """Home Assistant's own sentences have some."""
    graph = compiled(
        "intents: {say: ['announce {message}', 'timer [called {message}]']}\n"
        "lists: {message: {wildcard: true}}\n"
    )
    assert sentences(graph) == ["timer"]


def test_a_list_without_values_makes_its_templates_impossible_and_no_fault() -> None:
    graph = compiled("intents: {on: ['on {lamp}', go]}\nlists: {lamp: []}\n")
    assert [count for _, count in graph.counts()] == [0, 1]
    assert sentences(graph) == ["go"]


# ------------------------------------------------------------------------------- the graph


def test_a_walk_along_the_arcs_is_interpreted() -> None:
    graph = of("set a timer for {1..24:hours} hour[s] [and {1..59:minutes} minute[s]]")
    path = walk(graph, said("set a timer for 3 hours and 10 minutes"))
    assert graph.interpret(path).slots == {"hours": 3, "minutes": 10}
    path = walk(graph, said("set a timer for three hours and twenty five minutes"))
    assert graph.interpret(path).slots == {"hours": 3, "minutes": 25}


def test_a_walk_that_ends_within_a_sentence_is_refused() -> None:
    graph = of("turn on the light")
    first = graph.arcs(graph.start)[0]
    with pytest.raises(ValueError, match="no whole sentence"):
        graph.interpret([first.ident])


def test_from_each_node_a_word_leads_to_one_other_and_none_is_empty(house: PhraseGraph) -> None:
    todo, seen = [house.start], {house.start}
    while todo:
        arcs = house.arcs(todo.pop())
        words = [arc.word for arc in arcs]
        assert len(set(words)) == len(words)
        assert all(word and word == word.lower() and " " not in word for word in words)
        new = {arc.to for arc in arcs} - seen
        todo.extend(new)
        seen |= new
    assert len(seen) < 5_000  # for billions of sentences
    assert house.expansions() > 1_000_000_000


def test_tails_that_templates_share_are_there_once() -> None:
    rooms = [f"room number {number}" for number in range(100)]
    few = of("light on in {room}", room=rooms).size()
    many = of(*(f"{verb} in {{room}}" for verb in ("go", "stop", "wait", "sit")), room=rooms)
    assert many.size()[1] < few[1] + 20


# ------------------------------------------------------------------------------- numbers


def spelled(number: int) -> str:
    """A number as most people say it."""
    sign = "minus " if number < 0 else ""
    return sign + " ".join(number_words(abs(number)))


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0, 100, 5), (1, 12, 1), (-20, 20, 4), (7, 5000, 7), (990, 1010, 1)]
)
def test_a_range_has_its_numbers_and_no_others(low: int, high: int, step: int) -> None:
    graph = of(f"n {{{low}..{high},{step}:n}}") if low >= 0 else ranged(low, high, step)
    inside = set(range(low, high + 1, step))
    for number in range(low - 30, high + 30):
        found = graph.best(f"n {spelled(number)}".split())
        assert (found is not None) == (number in inside), number
        if found:
            assert found.slots == {"n": number}
            assert type(found.slots["n"]) is int


def ranged(low: int, high: int, step: int = 1, more: str = "") -> PhraseGraph:
    """A graph of "n" and a number."""
    return compiled(
        "intents: {x: ['n {n}']}\n"
        f"lists: {{n: {{range: {{from: {low}, to: {high}, step: {step}{more}}}}}}}\n"
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 999_999))
def test_any_number_to_a_million_is_read_back(number: int) -> None:
    assert slots(MILLION, f"n {spelled(number)}") == {"n": number}
    assert slots(MILLION, f"n {number:,}") == {"n": number}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(-3_000, 999_000),
    st.integers(0, 300_000),
    st.integers(1, 5_000),
    st.lists(st.integers(0, 300_000), max_size=20),
)
def test_any_range_has_its_numbers_and_no_others(
    low: int, span: int, step: int, offsets: list[int]
) -> None:
    high = min(low + span, 999_999)
    graph, inside = ranged(low, high, step, ", digits: false"), range(low, high + 1, step)
    tried = {inside[0], inside[-1], inside[-1] + step, low + 1, low - 1}
    for number in tried | {low + offset for offset in offsets}:
        if abs(number) <= 999_999:
            found = graph.best(f"n {spelled(number)}".split())
            assert (found and found.slots) == ({"n": number} if number in inside else None)


def test_a_million_numbers_take_few_arcs() -> None:
    assert MILLION.size()[1] < 500


MILLION = ranged(0, 999_999)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("a hundred", 100),
        ("one hundred and five", 105),
        ("one hundred five", 105),
        ("two thousand and five", 2005),
        ("a thousand two hundred", 1200),
        ("nine hundred and ninety nine thousand nine hundred and ninety nine", 999_999),
        ("zero", 0),
        ("12,345", 12_345),
    ],
)
def test_numbers_are_said_in_these_ways(said: str, value: int) -> None:
    assert slots(MILLION, f"n {said}") == {"n": value}


@pytest.mark.parametrize(
    "said", ["hundred", "twenty eleven", "five twenty", "one thousand thousand", "and five", ""]
)
def test_these_are_no_numbers(said: str) -> None:
    assert MILLION.match(f"n {said}") is None


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("twenty one point five", 21.5),
        ("twenty one and a half", 21.5),
        ("21.5", 21.5),
        ("-3", -3),
        ("minus three point five", -3.5),
        ("twenty", 20),
    ],
)
def test_halves_may_follow(said: str, value: float) -> None:
    found = slots(ranged(-5, 25, 1, ", fractions: halves"), f"n {said}")["n"]
    assert found == value
    assert type(found) is type(value)


def test_tenths_may_follow() -> None:
    graph = ranged(0, 5, 1, ", fractions: tenths")
    assert slots(graph, "n two point seven") == {"n": 2.7}
    assert graph.match("n two and a half") is None


def test_a_multiplier_makes_the_value_of_the_number() -> None:
    assert slots(ranged(1, 60, 1, ", multiplier: 60"), "n five") == {"n": 300}
    assert slots(ranged(0, 100, 1, ", multiplier: 2.55"), "n 50") == {"n": 127.5}


def test_a_number_with_a_fraction_is_one_word_in_digits() -> None:
    graph = ranged(-1, 1, 1, ", fractions: halves, words: false")
    assert sentences(graph) == [
        *("n 0", "n 0.5", "n 1", "n 1.5", "n minus 1", "n minus 1.5"),
    ]
    found = graph.best(["n", "minus", "1.5"])
    assert found
    assert found.slots == {"n": -1.5}


def test_numbers_can_be_heard_as_digits_only_or_words_only() -> None:
    digits, words = ranged(1, 5, 1, ", words: false"), ranged(1, 5, 1, ", digits: false")
    assert digits.best(["n", "5"])
    assert not digits.best(["n", "five"])
    assert words.best(["n", "five"])
    assert not words.best(["n", "5"])


def test_numbers_of_another_language_are_digits() -> None:
    graph = compiled("language: de\nintents: {x: ['auf {0..30:n} Grad']}\n")
    assert slots(graph, "auf 21 grad") == {"n": 21}
    assert graph.expansions() == 31


# ------------------------------------------------------------------------------- how text is said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("50%", ["50", "percent"]),
        ("21°", ["21", "degrees"]),
        ("Air-Conditioner", ["Air", "Conditioner"]),
        ("it’s 7:30, o'clock!", ["it's", "7", "30", "o'clock"]),
        ("H2O & 4K", ["H", "2", "O", "and", "4", "K"]),
        ("-5", ["minus", "5"]),
        ("'quoted'", ["quoted"]),
        ("Café", ["Café"]),
        ("…", []),
    ],
)
def test_text_is_split_into_what_is_said(text: str, words: list[str]) -> None:
    assert list(tokens(text)) == words


def test_a_word_has_these_readings() -> None:
    assert readings("TV") == (("tv",), ("t", "v"))
    assert readings("25") == (("twenty", "five"), ("25",))
    assert readings("007")[0] == ("zero", "zero", "seven")
    assert readings("2.5") == (("two", "point", "five"), ("2.5",))
    assert readings("25", english=False) == (("25",),)
    assert readings("Kitchen") == (("kitchen",),)


# ------------------------------------------------------------------------------- any template

WORDS = st.sampled_from(["on", "off", "the", "lamp", "red", "now"])
LISTS = {"a": ["one lamp", "two", "red"], "b": ["blue sky", "sky"]}
RULES = {"r": "[really] now", "s": "(go|run) {b:deep}"}


def templates() -> st.SearchStrategy[str]:
    """Templates without punctuation; each use of a list has a slot of its own."""
    leaves = st.one_of(
        WORDS,
        WORDS,
        st.sampled_from(["{a:?}", "{b:?}", "{3..120,9:?}", "<r>"]),
    )

    def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        several = st.lists(inner, min_size=2, max_size=3)
        return st.one_of(
            several.map(" ".join),
            several.map(lambda parts: f"({'|'.join(parts)})"),
            inner.map(lambda part: f"[{part}]"),
            st.tuples(inner, inner).map(lambda two: f"({two[0]};{two[1]})"),
            st.tuples(WORDS, WORDS).map(lambda two: f"{two[0]}[{two[1]}]"),
        )

    def named(template: str) -> str:
        numbers = itertools.count(1)
        return "".join(
            f"s{next(numbers)}" if letter == "?" else letter for letter in f"go {template}"
        )

    return st.recursive(leaves, more, max_leaves=7).map(named)


def written_out(tree: Expression, rules: Mapping[str, str]) -> Iterator[str]:  # noqa: C901
    """Every sentence of a tree, text by text: what the graph is held against."""
    match tree:
        case Text(text):
            yield text
        case Choice(items):
            for item in items:
                yield from written_out(item, rules)
        case Sequence(items):
            parts = [list(written_out(item, rules)) for item in items]
            yield from map("".join, itertools.product(*parts))
        case AnyOrder(items):
            for order in itertools.permutations(items):
                parts = [list(written_out(item, rules)) for item in order]
                yield from (f" {' '.join(each)} " for each in itertools.product(*parts))
        case RuleUse(name, _):
            yield from written_out(parse(rules[name]), rules)
        case ListUse(name, _, _, None):
            yield from LISTS[name]
        case ListUse(_, _, _, (low, high, step)):
            for number in range(low, high + 1, step):
                yield str(number)
                yield from number_ways(number)


def number_ways(number: int) -> Iterator[str]:
    """A number below 200 in words."""
    said = spelled(number)
    yield said
    if number > 100:
        yield said.replace("hundred", "hundred and")
    if number >= 100:
        yield said.replace("one hundred", "a hundred", 1)
    if number > 100:
        yield said.replace("one hundred", "a hundred and", 1)


def graph_of(texts: list[str]) -> PhraseGraph:
    """The graph of generated templates, one intent each."""
    lines = ["intents:"]
    for number, text in enumerate(texts):
        lines += [f"  i{number}:", f"    - '{text}'"]
    lines += ["lists:", *(f"  {name}: {values}" for name, values in LISTS.items())]
    lines += ["expansion_rules:", *(f"  {name}: '{rule}'" for name, rule in RULES.items())]
    return compiled("\n".join(lines))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(templates())
def test_a_graph_has_the_sentences_of_its_template_and_no_others(template: str) -> None:
    graph = graph_of([template])
    if graph.expansions() > 3_000:
        return
    wanted = {" ".join(text.split()) for text in written_out(parse(template), RULES)}
    found = sentences(graph)
    assert set(found) == wanted
    assert graph.expansions() == len(found)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(templates(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_random_sentence_is_read_back_as_one_of_its_meanings(
    texts: list[str], random: Random
) -> None:
    graph = graph_of(texts)
    for _ in range(5):
        sample = graph.sample(random)
        found = graph.interpret(walk(graph, said(sample.phrase)))
        assert found.phrase == sample.phrase
        if found.slots != sample.slots or found.intent != sample.intent:
            assert ambiguous(graph, sample.phrase)


def ambiguous(graph: PhraseGraph, phrase: str) -> bool:
    """Whether a sentence has several meanings, looked up among all sentences."""
    if graph.expansions() > 20_000:
        return True
    meanings = {
        (match.intent, str(sorted(match.slots.items())))
        for match in graph.sentences()
        if match.phrase == phrase
    }
    return len(meanings) > 1


# ------------------------------------------------------------------------------- the house


def test_the_house_understands_its_commands(house: PhraseGraph) -> None:
    assert len(house.phrases) >= 340
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "turn off lights in the Office": ("HassTurnOff", {"domain": "light", "area": "office"}),
        "set Bed Light brightness to 50 percent": (
            "HassLightSet",
            {"name": "bed light", "percent": 50},
        ),
        "set a timer for 3 hours and 10 minutes": ("HassStartTimer", {"hours": 3, "minutes": 10}),
        "set a timer for five minutes": ("HassStartTimer", {"minutes": 5}),
        "activate Mood Lighting": ("ActivateScene", {"scene": "mood lighting"}),
        "is the Front Door locked": ("HassGetState", {"state": "locked", "name": "front door"}),
        "next": ("HassMediaNext", {}),
        "what's the weather": ("HassGetWeather", {}),
        "close the left shutter": ("HassCloseCover", {"name": "left shutter"}),
        "set the heating in the bathroom to 21.5 degrees": (
            "HassClimateSetTemperature",
            {"area": "bathroom", "temperature": 21.5},
        ),
        "add milk and bread to the shopping list": (
            "HassListAddItem",
            {"item": "milk", "second_item": "bread", "name": "shopping"},
        ),
    }
    for text, (intent, expected) in wanted.items():
        found = house.match(text)
        assert found, text
        assert (found.intent, found.slots) == (intent, expected)


def test_sentences_of_the_house_are_read_back(house: PhraseGraph) -> None:
    random = Random(7)  # noqa: S311
    differ = 0
    for phrase in house.phrases:
        sample = house.sample(random, phrase)
        found = house.best(sample.phrase.split())
        assert found
        differ += (found.intent, found.slots) != (sample.intent, sample.slots)
    # Some sentences are of two templates: "good night" is a scene and the words for it.
    assert differ <= len(house.phrases) * 0.02
