"""hassil, which reads these templates for Home Assistant, hears the same in our sentences."""

from __future__ import annotations

from random import Random
from typing import Any

import hassil
import yaml

from phrasing import HOUSE, compiled

TEMPLATES = """
language: en
intents:
  LampOn:
    data:
      - sentences:
          - (turn|switch) on <the_lamp> [in <area>]
          - (turn;<the_lamp>) on
        slots: {domain: light}
  Set:
    data:
      - sentences:
          - set <the_lamp> to {percent}[[ ]%| percent]
          - (dim|brighten) [the] light[s] in <area> [to {percent} percent]
  Timer:
    data:
      - sentences:
          - set [a] timer for {hours} hour[s] [and {minutes} minute[s]]
lists:
  lamp:
    values:
      - {in: desk lamp, out: light.desk}
      - {in: "(bed|night) light[s]", out: light.bed}
  area: {values: [{in: living room, out: living}, {in: kitchen, out: kitchen}]}
  percent: {range: {from: 0, to: 99}}
  hours: {range: {from: 1, to: 24}}
  minutes: {range: {from: 5, to: 55, step: 5}}
expansion_rules:
  the_lamp: "[the|my] {lamp:name}"
  area: "[the] {area}"
"""


def heard(intents: hassil.Intents, text: str) -> list[tuple[str, dict[str, Any]]]:
    """All that hassil finds in a sentence."""
    return [
        (
            found.intent.name,
            {name: entity.value for name, entity in found.entities.items()},
        )
        for found in hassil.recognize_all(text, intents)
    ]


def test_hassil_hears_what_was_meant_in_each_sampled_sentence() -> None:
    # hassil samples no ranges within templates, but hears them.
    inline = "- timer {1..90,10:seconds} seconds\n          - set [a] timer"
    templates = TEMPLATES.replace("- set [a] timer", inline)
    graph, intents = compiled(templates), hassil.Intents.from_dict(yaml.safe_load(templates))
    random = Random(11)  # noqa: S311
    for _ in range(300):
        sample = graph.sample(random)
        assert (sample.intent, sample.slots) in heard(intents, sample.phrase), sample


def test_what_hassil_samples_is_read_here_too() -> None:
    from hassil.sample import sample_intents

    graph, intents = compiled(TEMPLATES), hassil.Intents.from_dict(yaml.safe_load(TEMPLATES))
    every = [
        (intent, text)
        for number, (intent, text) in enumerate(sample_intents(intents, language="en"))
        if number % 97 == 0
    ]
    assert len(every) > 50
    for intent, text in every:
        found = graph.match(text)
        assert found, text
        assert found.intent == intent, text


def test_hassil_takes_the_house_as_it_is() -> None:
    """Lists are written shorter there, so they are brought into hassil's form first."""
    house = yaml.safe_load(HOUSE.read_text(encoding="utf-8"))
    graph = compiled(HOUSE.read_text(encoding="utf-8"))
    lists = {
        name: values if isinstance(values, dict) else {"values": values}
        for name, values in house["lists"].items()
    }
    intents = hassil.Intents.from_dict(
        {
            **house,
            "lists": lists,
            "intents": {
                name: {
                    "data": [
                        block if isinstance(block, dict) else {"sentences": [block]}
                        for block in blocks
                    ]
                }
                for name, blocks in house["intents"].items()
            },
        }
    )
    random = Random(5)  # noqa: S311
    plain = [
        phrase
        for phrase in graph.phrases
        if not any(word in phrase.template for word in ("TV", "AC", "<length>", "{temperature}"))
    ]
    for phrase in random.sample(plain, 40):
        sample = graph.sample(random, phrase)
        if any(word in sample.phrase for word in (" and ", "hundred", " t v", " a c", " l e d")):
            continue  # said in a way that hassil does not know
        assert sample.intent in [intent for intent, _ in heard(intents, sample.phrase)], sample
