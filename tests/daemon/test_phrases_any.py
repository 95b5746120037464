"""Any template: its graph has its sentences, and each is read back with its own slots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harkd.phrases import PhraseGraph
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
from phrasing import compiled, said, sentences, spelled, walk

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
