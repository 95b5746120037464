"""Nodes of a graph of words that are made once, however often they are asked for. Pure.

In: arcs to nodes that exist. Out: the node's number. Since equal nodes are one, tails that
templates have in common are shared; since arcs lead to nodes that exist, there are no circles. An
arc carries a word ("" for none) and an action: what it tells of the sentence when it is walked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

SlotValue = str | int | float
"""What a slot holds."""
Kind = Literal["none", "listed", "phrase", "set", "add", "hundred", "thousand", "minus", "times"]
Step = tuple[int, int, int]
"""Word, action, and the node that the arc leads to."""
FEW_ARCS: Final = 4
"""Nodes with no more are copied into a union; others get an empty step, which is smaller."""


@dataclass(frozen=True)
class Action:
    """What an arc tells."""

    kind: Kind
    """``listed``: a later word of a list's value; ``phrase``: which template begins. Others change
    the slot: its value, or a number that grows as it is spoken."""
    slot: str = ""
    """Name of the slot."""
    value: SlotValue = 0
    """Value, summand or factor; the template's number."""


NO_ACTION: Final = 0
LISTED: Final = 1


@dataclass
class Builder:
    """Nodes, words and actions, each once."""

    nodes: list[tuple[tuple[Step, ...], bool]] = field(default_factory=list)
    """Arcs of each node, and whether a sentence may end there."""
    words: dict[str, int] = field(default_factory=lambda: {"": 0})
    """Numbers of words."""
    actions: dict[tuple[Action, type], int] = field(
        default_factory=lambda: {(Action("none"), int): NO_ACTION, (Action("listed"), int): LISTED}
    )
    """Numbers of actions."""
    _known: dict[tuple[tuple[Step, ...], bool], int] = field(default_factory=dict)

    def word(self, word: str) -> int:
        """Return the number of a word."""
        return self.words.setdefault(word, len(self.words))

    def action(self, kind: Kind, slot: str, value: SlotValue = 0) -> int:
        """Return the number of an action."""
        # The type too: 1 == 1.0 == True, and the first of them would stand for all.
        key = (Action(kind, slot, value), type(value))
        return self.actions.setdefault(key, len(self.actions))

    def node(self, arcs: Iterable[Step], *, ends: bool = False) -> int:
        """Return the node with these arcs."""
        key = (tuple(sorted(set(arcs))), ends)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.nodes)
            self.nodes.append(key)
        return found

    def step(self, word: str, to: int, action: int = NO_ACTION) -> int:
        """Return a node with one arc."""
        return self.node([(self.word(word), action, to)])

    def chain(self, words: Iterable[str], to: int, first: int, later: int) -> int:
        """Return a node from which these words lead on; `first` is the first one's action."""
        spoken = list(words)
        for word in reversed(spoken[1:]):
            to = self.step(word, to, later)
        return self.step(spoken[0], to, first)

    def union(self, nodes: Iterable[int]) -> int:
        """Return a node from which everything leads on that does from one of these."""
        wanted = sorted(set(nodes))
        if len(wanted) == 1:
            return wanted[0]
        arcs: list[Step] = []
        ends = False
        for node in wanted:
            own, own_ends = self.nodes[node]
            if len(own) <= FEW_ARCS:
                arcs.extend(own)
                ends = ends or own_ends
            else:
                arcs.append((0, NO_ACTION, node))
        return self.node(arcs, ends=ends)
