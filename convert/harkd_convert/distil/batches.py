"""Which utterances are learned at a step: drawn by the step's number alone, so a run can resume.

In: clips, surroundings, a seed. Out: the batch of any step. Runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harkd.audio import RATE_HZ
from harkd_convert.distil.corpus import Clip, floats, groups_of, seconds_of
from harkd_convert.distil.hearing import Surroundings, hear
from harkd_convert.distil.passes import Plan
from harkd_convert.errors import ConvertError

DRAWN = 64
"""Utterances are drawn, of which one and those of about its length become the batch."""
JOIN_SHARE = 0.35
"""So many utterances are several recordings."""
SHORTEST_JOINED_S = 4.0
MOST_ATTEMPTS = 50
LONGEST_S = 20.0
"""Longer recordings are left out."""
BALANCE, JOINED_S = 0.5, 16.0


@dataclass(frozen=True)
class Batch:
    """Utterances that are learned at once."""

    student: Tensor
    """float32, (batch, n): what the student hears, zeros after an utterance's end"""
    teacher: Tensor
    """float32, (batch, n)"""
    samples: list[int]
    """Of each utterance"""
    tokens: list[list[int]]
    """The teacher's text of each"""
    plan: Plan
    """How the student hears it"""

    @property
    def seconds(self) -> float:
        """Return how much audio this is, without what fills up."""
        return sum(self.samples) / RATE_HZ


class Batches:
    """Makes batches.

    Args:
        clips: What is trained on.
        around: What else is heard.
        plans: With how often each is drawn, relative to the others.
        batch_s: Seconds in a batch.
        seed: Another one gives others.
        balance: A group's share is its seconds to this power: 1 takes all recordings equally
            often, 0 all groups.
        joined_s: Several recordings have so many seconds together at most.
        ask: Gives clips their tokens.

    Raises:
        ConvertError: All clips are too long.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        around: Surroundings,
        plans: dict[Plan, float],
        batch_s: float,
        seed: int,
        balance: float = BALANCE,
        joined_s: float = JOINED_S,
        ask: Callable[[Sequence[Clip]], None] = lambda _: None,
    ) -> None:
        self.around, self.batch_s, self.seed, self.ask = around, batch_s, seed, ask
        self.joined_s = joined_s
        short = [each for each in clips if each.seconds < LONGEST_S]
        if not short:
            raise ConvertError(
                f"there are no recordings shorter than {LONGEST_S:g} s to train on",
                "cut them between sentences",
            )
        self.groups = list(groups_of(short).values())
        shares = np.array([_share(each, balance) for each in self.groups])
        self.shares = shares / shares.sum()
        self.plans = list(plans)
        weights = np.array(list(plans.values()))
        self.plan_shares = weights / weights.sum()

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: always the same one.

        Raises:
            AudioFileError: A recording cannot be read.
            ConvertError: The teacher comes to no end with almost any recording.
        """
        for attempt in range(MOST_ATTEMPTS):
            seeds = [self.seed, step, attempt] if attempt else [self.seed, step]
            if batch := self._attempt(np.random.default_rng(seeds)):
                return batch
        raise ConvertError(
            "the model comes to no end with almost any of these recordings, and so cannot teach",
            "give recordings of its language",
        )

    def _attempt(self, random: np.random.Generator) -> Batch | None:
        """Draw a batch; None if the teacher has no text of what was drawn."""
        plan = self.plans[random.choice(len(self.plans), p=self.plan_shares)]
        rows = sorted((self._row(random) for _ in range(DRAWN)), key=seconds_of)
        lengths = np.array([seconds_of(each) for each in rows])
        low = int(random.choice(len(rows), p=lengths / lengths.sum()))
        high = low + 1
        while (high - low + 1) * lengths[min(high, DRAWN - 1)] <= self.batch_s:
            if high < DRAWN:
                high += 1
            elif low > 0:
                low -= 1
            else:
                break
        drawn = rows[low:high]
        self.ask([clip for row in drawn for clip in row])
        chosen = [(row, tokens) for row in drawn if (tokens := _tokens(row)) is not None]
        if not chosen:
            return None
        heard = [hear(row, self.around, random) for row, _ in chosen]
        return Batch(
            padded([each.student for each in heard]),
            padded([each.teacher for each in heard]),
            [len(each.student) for each in heard],
            [tokens for _, tokens in chosen],
            plan,
        )

    def _row(self, random: np.random.Generator) -> list[Clip]:
        """Draw an utterance: one recording, or several."""
        group = self._group(random)
        row = [group[random.integers(len(group))]]
        if random.random() < JOIN_SHARE:
            most_s = random.uniform(min(SHORTEST_JOINED_S, self.joined_s), self.joined_s)
            while True:
                if random.random() < 0.5:
                    group = self._group(random)
                clip = group[random.integers(len(group))]
                if seconds_of(row) + clip.seconds > most_s:
                    break
                row.append(clip)
        return row

    def _group(self, random: np.random.Generator) -> list[Clip]:
        return self.groups[random.choice(len(self.groups), p=self.shares)]


def _tokens(row: Sequence[Clip]) -> list[int] | None:
    """Return the text of an utterance; None if that of a part is not known."""
    out = list[int]()
    for clip in row:
        if clip.tokens is None:
            return None
        out += clip.tokens
    return out


def _share(group: Sequence[Clip], balance: float) -> float:
    """Return how often a group is drawn, for its share of all seconds to be balanced."""
    seconds = seconds_of(group)
    return float(seconds**balance / (seconds / len(group)))


def padded(sounds: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> Tensor:
    """Return sounds as float32, (batch, most samples), with zeros after their ends."""
    out = torch.zeros(len(sounds), max(len(each) for each in sounds))
    for row, sound in zip(out, sounds, strict=True):
        row[: len(sound)] = torch.from_numpy(sound)
    return out


def plain_batch(clips: Sequence[Clip], plan: Plan) -> Batch:
    """Return recordings as they are, for student and teacher alike."""
    sounds = padded([floats(each.samples) for each in clips])
    lengths = [len(each.samples) for each in clips]
    return Batch(sounds, sounds, lengths, [each.tokens or [] for each in clips], plan)


def by_length(clips: Sequence[Clip], batch_s: float) -> list[list[Clip]]:
    """Return clips in batches of about the same length, the longest last."""
    out, group = list[list[Clip]](), list[Clip]()
    for clip in sorted(clips, key=lambda each: (each.seconds, each.name)):
        if group and (len(group) + 1) * clip.seconds > batch_s:
            out.append(group)
            group = []
        group.append(clip)
    return [*out, group] if group else out
