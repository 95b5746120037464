"""Templates: the sentences that they have, and what these mean."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from harkd.phrases import Match, PhraseGraph
from harkd.phrases.spoken import readings, tokens
from phrasing import HOUSE, compiled, of, said, sentences, slots, walk


@pytest.fixture(scope="module")
def house() -> PhraseGraph:
    """The phrases that come with harkd."""
    return compiled(HOUSE.read_text(encoding="utf-8"))


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
