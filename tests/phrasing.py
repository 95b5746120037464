"""Phrases for tests: graphs of a few templates, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harkd.phrases import PhraseGraph
from harkd.phrases.compiling import compile_phrases
from harkd.phrases.file import FileReader
from harkd.phrases.spoken import number_words

HOUSE = Path(__file__).parents[1] / "config" / "phrases" / "house.en.yaml"


def compiled(text: str) -> PhraseGraph:
    """The graph of a phrases file's text, which must have no faults."""
    reader = FileReader()
    reader.read(Path("phrases.yaml"), text)
    assert not reader.faults
    return compile_phrases(reader.source())


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


def spelled(number: int) -> str:
    """A number as most people say it."""
    sign = "minus " if number < 0 else ""
    return sign + " ".join(number_words(abs(number)))


def ranged(low: int, high: int, step: int = 1, more: str = "") -> PhraseGraph:
    """A graph of "n" and a number."""
    return compiled(
        "intents: {x: ['n {n}']}\n"
        f"lists: {{n: {{range: {{from: {low}, to: {high}, step: {step}{more}}}}}}}\n"
    )
