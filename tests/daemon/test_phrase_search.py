"""Searching for phrases: as an exhaustive search finds them, and never anything else."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harkd.recognizer.phrase_letters import LetterAutomaton, letters_of
from harkd.recognizer.phrase_numbers import number_of, words_of
from harkd.recognizer.phrase_scorer import (
    MATCH_EVIDENCE_LEAST,
    MATCH_MARGIN_MOST,
    MATCH_MARGIN_MOST_CTC,
    OpenText,
    PhraseScorer,
    PhraseScores,
    Scope,
    ScoredPhrase,
    matched,
)
from harkd.recognizer.phrase_search import Sentence, Width, search
from harkd.recognizer.phrase_tokens import TokenAutomaton, Vocabulary
from small_phrases import SmallGraph, small_graph

Float32 = NDArray[np.float32]
END = 2
# fmt: off
TEXTS: list[str | None] = [
    None, None, None, " ", " a", "a", "b", "ab", " ab", " b", "c", " C", "bc", ".", "'", "5", " 5",
    "0", "five", " Five", " x", "\n\n\n\n", " ba",
]
# fmt: on
VOCABULARY = Vocabulary(TEXTS)
WIDE = Width(paths=4000, first=4000, found=1000, within=math.inf)


class RandomDecoder:
    """Log-probabilities that depend on all tokens so far, and on nothing else."""

    def __init__(self, seed: int = 0, most_tokens: int = 40) -> None:
        self.seed = seed
        self.most_tokens = most_tokens
        self.held: list[tuple[int, ...]] = []
        self.calls = 0

    def row(self, tokens: Sequence[int]) -> Float32:
        """After these."""
        rng = np.random.default_rng([self.seed, zlib.crc32(bytes(tokens))])
        logits = 2 * rng.normal(size=len(TEXTS))
        row: Float32 = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return row

    def log_prob(self, tokens: Sequence[int]) -> float:
        """Of tokens and the end."""
        rows = [self.row(tokens[:i]) for i in range(len(tokens) + 1)]
        return sum(float(row[each]) for row, each in zip(rows, [*tokens, END], strict=True))

    def begin(self) -> Float32:
        self.held = [()]
        self.calls += 1
        return self.row(())[None]

    def advance(self, parents: list[int], tokens: list[int]) -> Float32:
        self.held = [(*self.held[i], token) for i, token in zip(parents, tokens, strict=True)]
        self.calls += 1
        return np.stack([self.row(each) for each in self.held])


class RandomListener:
    """One that hears what a `RandomDecoder` says, and in silence something else."""

    def __init__(self, seed: int = 0) -> None:
        self.decoder = RandomDecoder(seed)
        self.quiet = RandomDecoder(seed + 1000)

    def continuations(self, paths: int) -> RandomDecoder:
        assert paths > 0
        return self.decoder

    def rows(self, tokens: tuple[int, ...]) -> Float32:
        return np.stack([self.decoder.row(tokens[:i]) for i in range(len(tokens) + 1)])

    def silence(self, tokens: tuple[int, ...]) -> float:
        return self.quiet.log_prob(tokens)


def spellings(letters: str) -> Iterator[tuple[int, ...]]:
    """All ways to write letters in tokens that say something."""
    if not letters:
        yield ()
    for token, text in enumerate(TEXTS):
        said = letters_of(text or "")
        if said and letters.startswith(said):
            for rest in spellings(letters[len(said) :]):
                yield (token, *rest)


def said_by(graph: SmallGraph) -> set[str]:
    """All letters that a graph of a few phrases without numbers says."""
    return {letters_of(graph.words(arcs)) for arcs in graph.sentences()}


def plain(sentence: Sentence) -> bool:
    """Whether all of its tokens say something."""
    return all(letters_of(TEXTS[token] or "") for token in sentence.tokens)


SMALL = small_graph("(ab|b) a", "a b", "c [b]")


# ------------------------------------------------------------------------------ letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Turn on the Kitchen light.", "turnonthekitchenlight"),
        ("What's the café like?", "whatsthecafelike"),
        ("50 %", "50percent"),
        ("…", ""),
    ],
)
def test_only_letters_and_digits_count(text: str, letters: str) -> None:
    assert letters_of(text) == letters


@given(st.integers(0, 999_999))
def test_a_number_is_read_back_from_its_words(number: int) -> None:
    assert {number_of(said.split()) for said in words_of(number)} == {number}


@pytest.mark.parametrize("words", ["twenty ten", "hundred", "five hundred and", "one two", "and"])
def test_what_is_not_one_number_is_none(words: str) -> None:
    assert number_of(words.split()) is None


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("Set a timer for 25 minutes.", 25),
        ("set a timer for twenty-five minutes", 25),
        ("set a timer for 5 minutes", 5),
    ],
)
def test_numbers_are_digits_or_words(text: str, minutes: int) -> None:
    graph = small_graph("set a timer for {minutes} minutes", minutes=range(1, 61))
    path = LetterAutomaton(graph).path(letters_of(text))
    assert path is not None
    assert graph.slots(path)["minutes"] == minutes


def test_a_number_that_the_graph_does_not_have_is_no_phrase() -> None:
    graph = small_graph("set a timer for {minutes} minutes", minutes=range(1, 61))
    automaton = LetterAutomaton(graph)
    assert automaton.path("setatimerfor61minutes") is None
    assert automaton.path("setatimerfor") is None


def test_a_number_in_digits_may_be_said_in_words() -> None:
    graph = small_graph("channel 7")
    assert LetterAutomaton(graph).path("channelseven") is not None


def walked(automaton: LetterAutomaton, letters: str) -> bool:
    """Whether the automaton takes these letters for a phrase."""
    state = automaton.START
    for letter in letters:
        following = automaton.next(state)
        if letter not in following:
            return False
        state = following[letter]
    return automaton.ends(state)


@given(st.text("abc", max_size=6))
def test_the_automaton_takes_what_the_graph_says_and_nothing_else(letters: str) -> None:
    automaton = LetterAutomaton(SMALL)
    assert walked(automaton, letters) == (letters in said_by(SMALL))
    assert (automaton.path(letters) is not None) == (letters in said_by(SMALL))


def test_the_longest_phrase_is_measured() -> None:
    assert LetterAutomaton(SMALL).longest() == max(map(len, said_by(SMALL)))


# ------------------------------------------------------------------------------- tokens


def test_the_choices_at_each_state_are_all_tokens_that_go_on() -> None:
    automaton = TokenAutomaton(SMALL, VOCABULARY)
    waiting, seen = [("", automaton.begin())], set()
    while waiting:
        written, state = waiting.pop()
        seen.add(written)
        found = automaton.choices(state)
        wanted = {
            token
            for token, text in enumerate(TEXTS)
            if (said := letters_of(text or ""))
            and any(each.startswith(written + said) for each in said_by(SMALL))
        }
        assert set(found.tokens.tolist()) == wanted
        for token, to in zip(found.tokens.tolist(), found.states.tolist(), strict=True):
            waiting.append((written + letters_of(TEXTS[token] or ""), to))
        assert automaton.ends(state) == (written in said_by(SMALL))
    assert said_by(SMALL) <= seen


def test_marks_stand_behind_whole_words_only() -> None:
    automaton = TokenAutomaton(small_graph("ab c"), VOCABULARY)
    dot, apostrophe, blank = (TEXTS.index(each) for each in (".", "'", " "))
    after_a = automaton.letters.next(automaton.begin())["a"]
    after_ab = automaton.letters.next(after_a)["b"]
    assert set(automaton.silent(after_a).tolist()) == {apostrophe, blank}
    assert set(automaton.silent(after_ab).tolist()) == {dot, apostrophe, blank}


# ------------------------------------------------------------------------------- search


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_search_finds_what_looking_at_everything_finds(seed: int) -> None:
    decoder = RandomDecoder(seed)
    found = search(TokenAutomaton(SMALL, VOCABULARY), decoder, END, WIDE).sentences
    every = {way: decoder.log_prob(way) for each in said_by(SMALL) for way in spellings(each)}
    plainly = {each.tokens: each.log_prob for each in found if plain(each)}
    assert plainly.keys() == every.keys()
    assert plainly == pytest.approx(every, abs=1e-4)
    assert [each.log_prob for each in found] == sorted(plainly_and_not(found), reverse=True)


def plainly_and_not(found: list[Sentence]) -> list[float]:
    """The log-probabilities."""
    return [each.log_prob for each in found]


@pytest.mark.parametrize("paths", [1, 2, 6])
@settings(max_examples=20)
@given(seed=st.integers(0, 500))
def test_whatever_its_width_all_that_is_found_can_be_said(paths: int, seed: int) -> None:
    decoder = RandomDecoder(seed)
    width = Width(paths=paths, first=paths, within=5.0)
    for sentence in search(TokenAutomaton(SMALL, VOCABULARY), decoder, END, width).sentences:
        assert VOCABULARY.letters(sentence.tokens) in said_by(SMALL)
        assert sentence.log_prob == pytest.approx(decoder.log_prob(sentence.tokens), abs=1e-4)


def test_an_empty_graph_has_no_phrase() -> None:
    for graph in (SmallGraph(), small_graph()):
        found = search(TokenAutomaton(graph, VOCABULARY), RandomDecoder(), END, WIDE)
        assert (found.sentences, found.passes) == ([], 1)


def test_words_that_the_model_cannot_write_are_not_found() -> None:
    graph = small_graph("zebra", "zulu [a]")
    assert not search(TokenAutomaton(graph, VOCABULARY), RandomDecoder(), END, WIDE).sentences


def test_what_is_less_likely_than_asked_for_is_not_found_and_not_looked_for() -> None:
    decoder = RandomDecoder(3)
    automaton = TokenAutomaton(SMALL, VOCABULARY)
    best = search(automaton, decoder, END, WIDE).sentences[0].log_prob
    some = search(automaton, RandomDecoder(3), END, WIDE, least=best - 1.0).sentences
    assert some
    assert all(each.log_prob >= best - 1.0 for each in some)
    none = search(automaton, RandomDecoder(3), END, WIDE, least=0.0)
    assert (none.sentences, none.passes) == ([], 1)


@settings(max_examples=20)
@given(seed=st.integers(0, 200))
def test_the_cost_is_bounded_by_the_longest_phrase_and_the_width(seed: int) -> None:
    decoder = RandomDecoder(seed)
    width = Width(paths=3, first=5)
    found = search(TokenAutomaton(SMALL, VOCABULARY), decoder, END, width)
    longest = 2 * max(map(len, said_by(SMALL)))  # a silent token behind each
    assert found.passes == decoder.calls <= 1 + longest
    assert found.rows <= 1 + 2 * 5 + 3 * (found.passes - 1)


def test_a_hypothesis_grows_no_longer_than_the_decoder_takes() -> None:
    decoder = RandomDecoder(0, most_tokens=3)
    graph = small_graph("a a a a a a")
    assert not search(TokenAutomaton(graph, VOCABULARY), decoder, END, WIDE).sentences
    assert decoder.calls <= 3


# ------------------------------------------------------------------------------- scores


def scorer(*templates: str, scope: Scope | None = None) -> tuple[PhraseScorer, SmallGraph]:
    graph = small_graph(*templates)
    return PhraseScorer(graph, VOCABULARY, END, scope), graph


EXHAUSTIVE = Scope(WIDE, exhaustive=True)


def open_text(tokens: tuple[int, ...], log_prob: float) -> OpenText:
    return OpenText("".join(TEXTS[each] or "" for each in tokens), tokens, log_prob)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_phrase_is_the_likeliest_that_can_be_said(seed: int) -> None:
    scoring, graph = scorer("(ab|b) a", "a b", scope=EXHAUSTIVE)
    listener = RandomListener(seed)
    found = scoring.score(open_text((20,), -1.0), listener)
    ways = {each: list(spellings(each)) for each in said_by(graph)}
    best = max(listener.decoder.log_prob(way) for each in ways.values() for way in each)
    assert not found.exact
    assert found.phrases[0].log_prob >= best - 1e-4
    assert {letters_of(graph.words(each.arcs)) for each in found.phrases} == said_by(graph)


def test_margin_and_evidence_are_of_the_same_tokens() -> None:
    scoring, _ = scorer("a b", scope=EXHAUSTIVE)
    listener = RandomListener(1)
    best = scoring.score(open_text((20,), -2.0), listener).phrases[0]
    assert best.log_prob == pytest.approx(listener.decoder.log_prob(best.written))
    assert best.evidence == pytest.approx(best.log_prob - listener.silence(best.written))
    if best.evidence > 0:
        assert best.margin == pytest.approx((-2.0 - best.log_prob) / best.evidence)
    else:
        assert best.margin == math.inf
    assert best.per_token == pytest.approx(best.log_prob / (len(best.written) + 1))


def test_open_text_that_is_a_phrase_costs_no_search() -> None:
    scoring, graph = scorer("a b", "c")
    listener = RandomListener()
    found = scoring.score(open_text((4, 9, 13), -1.5), listener)
    assert found.exact
    assert (found.passes, listener.decoder.calls) == (0, 0)
    assert graph.words(found.phrases[0].arcs) == "a b"
    assert (found.phrases[0].margin, found.phrases[0].log_prob) == (0.0, -1.5)


def test_open_text_that_is_longer_than_all_phrases_costs_nothing() -> None:
    scoring, _ = scorer("a b")
    listener = RandomListener()
    found = scoring.score(open_text((20, 20, 20), -1.0), listener)
    assert (found.phrases, found.passes, listener.decoder.calls) == ((), 0, 0)


def test_phrases_that_are_far_less_likely_are_given_up() -> None:
    scoring, _ = scorer("a b c a b")
    found = scoring.score(open_text((20,), 0.0), RandomListener(2))
    assert found.phrases == ()
    assert found.passes < 6


def test_no_phrases_give_no_phrase() -> None:
    scoring = PhraseScorer(SmallGraph(), VOCABULARY, END)
    assert scoring.score(open_text((4,), -1.0), RandomListener()).phrases == ()
    assert scoring.score(OpenText("", (), -0.5), RandomListener()).phrases == ()


def test_states_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harkd.recognizer.phrase_tokens.STATES_MOST", 3)
    scoring, _ = scorer("(ab|b) a", "a b", scope=EXHAUSTIVE)
    first = scoring.score(open_text((20,), -1.0), RandomListener(4))
    again = scoring.score(open_text((20,), -1.0), RandomListener(4))
    assert first.phrases == again.phrases


# ------------------------------------------------------------------------------ a match


def scored(margin: float, evidence: float, *, as_a_whole: bool = False) -> PhraseScores:
    """What is said of one phrase."""
    phrase = ScoredPhrase((0,), (5,), "a", -3.0, evidence, margin)
    return PhraseScores(OpenText("b", (6,), -2.0), (phrase,), as_a_whole=as_a_whole)


def test_a_match_has_little_margin_and_much_evidence() -> None:
    best = matched(scored(MATCH_MARGIN_MOST, MATCH_EVIDENCE_LEAST))
    assert best is not None
    assert best.text == "a"
    assert matched(scored(MATCH_MARGIN_MOST + 0.01, 50.0)) is None
    assert matched(scored(0.0, MATCH_EVIDENCE_LEAST - 0.1)) is None
    assert matched(PhraseScores(OpenText("b", (6,), -2.0))) is None


def test_ctc_needs_less_margin() -> None:
    assert matched(scored(MATCH_MARGIN_MOST_CTC, 50.0, as_a_whole=True)) is not None
    assert matched(scored(MATCH_MARGIN_MOST_CTC + 0.01, 50.0, as_a_whole=True)) is None


class Judging:
    """Whole texts, each as likely as it is told."""

    def __init__(self, likely: dict[str, float], quiet: dict[str, float] | None = None) -> None:
        self.likely, self.quiet = likely, quiet or {}

    def log_probs(self, texts: Sequence[tuple[int, ...]]) -> list[float]:
        return [self.likely.get(LETTERED.text(each), -50.0) for each in texts]

    def silence(self, tokens: tuple[int, ...]) -> float:
        return self.quiet.get(LETTERED.text(tokens), -40.0)


ALPHABET = " abcdefghijklmnopqrstuvwxyz"


def lettered(text: str) -> list[int]:
    """A token for each letter; none for a text with digits."""
    return [ALPHABET.index(each) for each in text] if set(text) <= set(ALPHABET) else []


LETTERED = Vocabulary(list(ALPHABET), lettered)


def judged(heard: str, likely: dict[str, float], **quiet: float) -> str:
    """Which phrase is the best."""
    scorer = PhraseScorer(small_graph("dim to (fifty|thirty)", "put it up"), LETTERED)
    open_text = OpenText(heard, tuple(map(ALPHABET.index, heard)), -1.0)
    judging = Judging({heard: -1.0, **likely}, {k.replace("_", " "): v for k, v in quiet.items()})
    return scorer.judged(open_text, judging).phrases[0].text


def test_the_likeliest_of_those_that_sound_like_the_text_is_the_best() -> None:
    assert judged("tim to thifty", {"dim to fifty": -3.0, "dim to thirty": -6.0}) == "dim to fifty"
    assert judged("tim to thifty", {"dim to fifty": -6.0, "dim to thirty": -3.0}) == "dim to thirty"


def test_of_two_that_are_nearly_as_likely_the_nearer_is_the_better() -> None:
    likely = {"dim to fifty": -3.9, "dim to thirty": -3.0}
    assert judged("tim to fifty", likely) == "dim to fifty"
    assert judged("tim to thirty", likely) == "dim to thirty"


def test_of_two_that_are_nearly_as_likely_silence_says_less_of_the_better() -> None:
    likely = {"dim to fifty": -3.5, "dim to thirty": -3.0}
    told = judged("dim to firty", likely, dim_to_thirty=-5.0)
    assert told == "dim to fifty"


def test_a_text_that_is_a_phrase_is_it() -> None:
    scorer = PhraseScorer(small_graph("put it up"), LETTERED)
    tokens = tuple(map(ALPHABET.index, "put it up"))
    scores = scorer.judged(OpenText("put it up", tokens, -1.0), Judging({"put it up": -2.0}))
    assert scores.exact
    assert (scores.phrases[0].margin, scores.phrases[0].evidence) == (0.0, 38.0)


def test_what_is_far_from_all_phrases_is_not_asked_for() -> None:
    scorer = PhraseScorer(small_graph("put it up"), LETTERED)
    tokens = tuple(map(ALPHABET.index, "zzz zzz zzz"))
    scores = scorer.judged(OpenText("zzz zzz zzz", tokens, -1.0), Judging({}))
    assert scores.phrases == ()
