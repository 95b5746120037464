"""How well a student hears: against its teacher on what was held out, and against what was said.

In: an encoder, plans, recordings. Out: figures by plan. Runs on the caller's thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from harkd.bench_words import Normalizer, WordErrors, count_errors
from harkd.speech_list import spread
from harkd_convert.distil.batches import by_length, plain_batch
from harkd_convert.distil.corpus import Clip
from harkd_convert.distil.decoding import greedy
from harkd_convert.distil.objective import Teacher
from harkd_convert.distil.passes import Passes, Plan
from harkd_convert.distil.streaming_encoder import StreamingEncoder

BATCH_S = 40.0
ALL = "all"


@dataclass(frozen=True, slots=True)
class Agreement:
    """With the teacher."""

    hidden: float
    """The squared error of the hidden states, as a part of their square"""
    divergence: float
    """Of the decoder's distributions, in nats for each token"""
    tokens: float
    """So many of the teacher's likeliest tokens are the student's, after the teacher's own text"""


@torch.no_grad()
def agreement(
    clips: Sequence[Clip], teacher: Teacher, student: StreamingEncoder, plans: Iterable[Plan]
) -> dict[Plan, Agreement]:
    """Compare a student with its teacher, on recordings as they are."""
    sums = {plan: [0.0, 0.0, 0.0] for plan in plans}
    frames = tokens = 0
    for batch in by_length(clips, BATCH_S):
        plain = plain_batch(batch, Plan(0))
        stem = teacher.stem(plain.student, plain)
        taught = teacher.teach(plain, stem)
        for plan, total in sums.items():
            losses = teacher.losses(taught, student.in_passes(stem, plan))
            total[0] += float(losses.hidden) * sum(stem.frames)
            total[1] += float(losses.divergence) * losses.tokens
            total[2] += losses.agreement * losses.tokens
        frames += sum(stem.frames)
        tokens += losses.tokens
    return {
        plan: Agreement(hidden / frames, divergence / tokens, alike / tokens)
        for plan, (hidden, divergence, alike) in sums.items()
    }


@dataclass(frozen=True, slots=True)
class Said:
    """A recording of which is known what is said."""

    clip: Clip
    """It"""
    category: str
    """It is counted in"""
    text: str
    """What is said"""


@torch.no_grad()
def texts(
    said: Sequence[Said],
    teacher: Teacher,
    student: StreamingEncoder | None,
    plan: Plan,
    text_of: Callable[[list[int]], str],
) -> list[str]:
    """Return what is heard in each; without a student, by the teacher."""
    places = {id(each.clip): number for number, each in enumerate(said)}
    heard = [""] * len(said)
    for batch in by_length([each.clip for each in said], BATCH_S):
        plain = plain_batch(batch, plan)
        stem = teacher.stem(plain.student, plain)
        hidden = student.in_passes(stem, plan) if student else teacher.encoder.at_once(stem)
        mask = Passes(stem.frames, Plan(0), device=hidden.device).heard
        for clip, tokens in zip(batch, greedy(teacher.model.decoder, hidden, mask), strict=True):
            heard[places[id(clip)]] = text_of(tokens)
    return heard


def errors_by_category(
    said: Sequence[Said], heard: Sequence[str], normalizer: Normalizer
) -> dict[str, WordErrors]:
    """Count word errors, by category and over all."""
    pairs = defaultdict[str, list[tuple[str, str]]](list)
    for each, text in zip(said, heard, strict=True):
        pairs[each.category].append((each.text, text))
    pairs[ALL] = [pair for category in list(pairs.values()) for pair in category]
    return {
        category: count_errors([a for a, _ in both], [b for _, b in both], normalizer)
        for category, both in pairs.items()
    }


def some(clips: Sequence[Clip], most_s: float) -> list[Clip]:
    """Return so many seconds of clips, evenly over the whole."""
    total = sum(each.seconds for each in clips)
    return spread(clips, int(len(clips) * most_s / total)) if total > most_s else list(clips)
