"""Templates become a graph. Pure.

In: `PhraseSource`. Out: `PhraseGraph`, or `PhrasesError` with all faults. A tree is built from its
end: each part is given what follows it, and returns what follows the part before. White space
decides what is one word, as in ``light[s]``; so what follows is kept by the letters at its
beginning that may yet belong to the word before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Many
from typing import Final

from harkd.errors import PhrasesError
from harkd.phrases.builder import LISTED, NO_ACTION, Builder, SlotValue
from harkd.phrases.checking import check, joined
from harkd.phrases.graph import PhraseGraph
from harkd.phrases.numbers import NumberRange, number_node
from harkd.phrases.source import PhraseSource, Scope, TextList, Written
from harkd.phrases.spoken import readings, tokens
from harkd.phrases.tables import Phrase, Tables
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
from harkd.settings_file import Fault, quoted

Following = dict[str, int]
"""Nodes by the letters that come before them, without a space."""
MOST_GLUED: Final = 1000
"""Beginnings of words that one place of a template may have."""
MOST_PARTS: Final = 2_000_000
"""Parts of templates and values of lists that are built, each for what follows it; Home Assistant's
English sentences have some 50,000. A minute's work."""


class _TooMuchError(Exception):
    """A template is more than can be built; says why, and what to do."""


def compile_phrases(source: PhraseSource) -> PhraseGraph:
    """Return the graph of all templates.

    Raises:
        PhrasesError: It has faults; `message` has all of them, one a line.
    """
    checked = check(source)
    faults = checked.faults
    if faults:
        raise faulty(faults)
    builder = Builder()
    compiler = _Compiler(builder, checked.trees, english=source.english)
    end = builder.node([], ends=True)
    skipped = compiler.skipping(source.skip_words, end)
    phrases, roots = [], []
    for number, template in enumerate(source.templates):
        scope = joined(source.scope, template.own) if _has(template.own) else source.scope
        tree = checked.trees[template.written.text]
        try:
            starts = compiler.start(tree, {"": skipped}, scope) if tree else None
        except _TooMuchError as exc:
            text = f"{quoted(template.written.text)} {exc}"
            faults.append(Fault(place=template.written.place, text=text))
            if compiler.parts > MOST_PARTS:
                break
            continue
        phrases.append(
            Phrase(
                intent=template.intent,
                template=template.written.text,
                slots=template.slots,
                metadata=template.metadata,
            )
        )
        if starts is not None:
            roots.append((0, builder.action("phrase", "", number), starts))
    if faults:
        raise faulty(faults)
    start = compiler.skipping(source.skip_words, builder.node(roots), first=True)
    return PhraseGraph(Tables.of(builder, phrases, start))


def faulty(faults: Iterable[Fault]) -> PhrasesError:
    """Return the error that tells all of these."""
    return PhrasesError("\n".join(str(fault) for fault in sorted(faults, key=lambda f: f.place)))


def _has(scope: Scope) -> bool:
    return bool(scope.lists or scope.rules)


class _Compiler:
    """Builds trees, each list and rule once for what follows it."""

    def __init__(
        self, builder: Builder, trees: Mapping[str, Expression | None], *, english: bool
    ) -> None:
        self._builder = builder
        self._trees = trees
        self._english = english
        self.parts = 0
        """What was built, see `MOST_PARTS`."""
        self._numbers: dict[tuple[NumberRange, str, int], int | None] = {}
        self._lists: dict[tuple[int, str, str, int], int | None] = {}
        self._rules: dict[tuple[int, int, tuple[tuple[str, int], ...]], Following] = {}
        self._own = NO_ACTION
        """What a word without a slot tells: nothing, or that it is a list's."""

    def start(self, tree: Expression, after: Following, scope: Scope) -> int | None:
        """Return the node at which a tree begins; None where it cannot be said."""
        return self._spaced(self._before(tree, after, scope))

    def skipping(self, words: Many[Written], to: int, *, first: bool = False) -> int:
        """Return a node that leads to `to` with or without one of these words."""
        ways = [to]
        for written in words:
            node = self.start(self._tree(written.text), {"": to}, Scope())
            if node is not None:
                ways.append(node)
        if first and len(ways) > 1:  # a start of its own; the templates' roots are many
            return self._builder.node([(0, NO_ACTION, way) for way in ways])
        return self._builder.union(ways)

    def _tree(self, text: str) -> Expression:
        return self._trees.get(text) or parse(text)

    def _before(self, tree: Expression, after: Following, scope: Scope) -> Following:
        """Return what follows the part before `tree`."""
        if not after:
            return {}
        self._count()
        match tree:
            case Text(text):
                return self._text(text, after)
            case Sequence(items):
                for item in reversed(items):
                    after = self._before(item, after, scope)
                return after
            case Choice(items):
                return self._either([self._before(item, after, scope) for item in items])
            case AnyOrder(items):
                return self._any_order(items, after, scope)
            case RuleUse(name, _):
                written = scope.rules[name]
                key = (id(written), self._own, tuple(sorted(after.items())))
                if key not in self._rules:
                    self._rules[key] = self._before(self._tree(written.text), after, scope)
                return self._rules[key]
            case ListUse():
                node = self._list_use(tree, after, scope)
                return {} if node is None else {"": node}

    def _count(self) -> None:
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise _TooMuchError(
                "and those before it are too much together; take out alternatives, or uses of "
                "long lists"
            )

    def _any_order(self, items: Many[Expression], after: Following, scope: Scope) -> Following:
        # For each set of parts that are left to say, what leads on from there: 64 for 6 parts,
        # instead of their 720 orders.
        left = [after]
        for parts in range(1, 2 ** len(items)):
            ways = [
                self._before(
                    Sequence((Text(" "), item, Text(" "))), left[parts & ~(1 << number)], scope
                )
                for number, item in enumerate(items)
                if parts & (1 << number)
            ]
            left.append(self._either(ways))
        return left[-1]

    def _either(self, found: Iterable[Following]) -> Following:
        ways: dict[str, list[int]] = {}
        for following in found:
            for letters, node in following.items():
                ways.setdefault(letters, []).append(node)
        if len(ways) > MOST_GLUED:
            raise _TooMuchError(
                f"has more than {MOST_GLUED} words out of parts without spaces between them; "
                "write spaces, or the words"
            )
        return {letters: self._builder.union(nodes) for letters, nodes in ways.items()}

    def _text(self, text: str, after: Following) -> Following:
        found: list[Following] = []
        for letters, node in after.items():
            first, *words = _split(text + letters)
            for word in reversed(words):
                node = self._word(word, node)
            found.append({first: node})
        return self._either(found)

    def _spaced(self, after: Following) -> int | None:
        """Return what follows a space."""
        nodes = [self._word(letters, node) for letters, node in after.items()]
        return self._builder.union(nodes) if nodes else None

    def _word(self, word: str, to: int, action: int | None = None) -> int:
        """Return a node from which a word, as it is written, leads on to `to`.

        The first word that is spoken has the action.
        """
        for number, token in reversed(list(enumerate(tokens(word)))):
            own = self._own if number or action is None else action
            ways = [
                self._builder.chain(said, to, own, self._own)
                for said in readings(token, self._english)
            ]
            to = self._builder.union(ways)
        return to

    def _list_use(self, use: ListUse, after: Following, scope: Scope) -> int | None:
        # What is written right behind a list belongs to its last word, as in {name}'s.
        found = []
        for letters, node in after.items():
            glued = self._one_list(use, letters, node, scope)
            if glued is not None:
                found.append(glued)
        return self._builder.union(found) if found else None

    def _one_list(self, use: ListUse, letters: str, to: int, scope: Scope) -> int | None:
        if use.numbers:
            low, high, step = use.numbers
            values: NumberRange | TextList = NumberRange(low=low, high=high, step=step)
        else:
            values = scope.lists[use.name]
        if isinstance(values, NumberRange):
            to = self._word(letters, to)
            range_key = (values, use.slot, to)
            if range_key not in self._numbers:
                node = number_node(self._builder, use.slot, self._heard(values), to)
                self._numbers[range_key] = node
            return self._numbers[range_key]
        key = (id(values), use.slot, letters, to)
        if key not in self._lists:
            self._lists[key] = self._values(values, use.slot, {letters: to}, scope)
        return self._lists[key]

    def _heard(self, numbers: NumberRange) -> NumberRange:
        if self._english:
            return numbers
        return NumberRange(
            low=numbers.low,
            high=numbers.high,
            step=numbers.step,
            multiplier=numbers.multiplier,
            fractions=numbers.fractions,
            words=False,
        )

    def _values(self, values: TextList, slot: str, after: Following, scope: Scope) -> int | None:
        outside, self._own = self._own, LISTED
        found = []
        for value in values.values:
            node = self._value(self._tree(value.said.text), slot, value.out, after, scope)
            if node is not None:
                found.append(node)
        self._own = outside
        return self._builder.union(found) if found else None

    def _value(
        self, tree: Expression, slot: str, out: SlotValue, after: Following, scope: Scope
    ) -> int | None:
        """Return a node at which one value begins."""
        self._count()
        action = self._builder.action("set", slot, out)
        if not isinstance(tree, Text):
            node = self.start(tree, after, scope)
            return None if node is None else self._builder.step("", node, action)
        ((letters, node),) = after.items()
        words = [word for word in _split(tree.text + letters) if tokens(word)]
        for number, word in reversed(list(enumerate(words))):
            node = self._word(word, node, None if number else action)
        return node


def _split(text: str) -> list[str]:
    """Split at white space; the first and the last part may be empty."""
    parts = text.split()
    lead = [""] if text[:1].isspace() else []
    tail = [""] if text[-1:].isspace() and parts else []
    return [*lead, *parts, *tail] or [""]
