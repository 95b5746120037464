"""Passes of a streaming Moonshine: which frames are encoded together, and what each of them sees.

In: the frames of some utterances, and a plan. Out: masks and places as tensors, for all utterances
of a batch at once. Pure; runs on the caller's thread.

Pass k of C frames (the chunk) and R more (the look-ahead) encodes the frames kC … kC + C + R - 1
once they are all there. Of these the first C are kept; the others are encoded anew by the next
pass. What is left at the end of the audio, R … C + R - 1 frames, is one pass, which is kept whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harkd.model_package import FIRST_FRAMES, LEFT_CONTEXT_FRAMES
from harkd_convert.errors import ConvertError
from harkd_convert.plan_text import chunk_and_look_ahead

FULL = "full"
FRAME_MS = 24
BLOCK_PLACES = 256
"""Attention is computed for so many places at a time, with what they may see and little more."""
_MEND = "a plan is CHUNK:LOOK_AHEAD in frames of 24 ms, such as 16:16, or full"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is encoded at once."""

    chunk: int
    """Frames that a pass keeps; 0: all of the utterance is one pass"""
    look_ahead: int = 0
    """Frames that a pass sees beyond them"""

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read `16:16` or `full`; raises ConvertError."""
        if text == FULL:
            return cls(0)
        try:
            return cls(*chunk_and_look_ahead(text))
        except ValueError as error:
            raise ConvertError(f'"{text}" is no plan of passes', _MEND) from error

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.chunk}:{self.look_ahead}" if self.chunk else FULL

    @property
    def latency_ms(self) -> int | None:
        """How long a pass waits for its last frame, from its first; None for the whole audio."""
        return (self.chunk + self.look_ahead) * FRAME_MS if self.chunk else None


def parse_weighted(text: str) -> dict[Plan, float]:
    """Read plans and how often each is trained, relative to the others.

    Args:
        text: With commas between plans, and `=` before a weight other than 1: `16:16=2,8:8,full`.

    Raises:
        ConvertError: It cannot be read, or names a plan twice.
    """
    plans = dict[Plan, float]()
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        plan = Plan.parse(name)
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = 0.0
        if not 0 < weight < 1e6:
            raise ConvertError(f'"{part}" has no weight above 0', "give weights as in 16:16=2")
        if plan in plans:
            raise ConvertError(f"the plan {plan} is named twice", "name it once, with its weight")
        plans[plan] = weight
    return plans


@dataclass(frozen=True, slots=True)
class Past:
    """Which of the frames that were kept before a pass are seen, as in the package's manifest.

    Forgetting an utterance's first frames ruins what comes after: all attention leans on them.
    """

    latest: int = LEFT_CONTEXT_FRAMES
    """So many before the pass: 4 s"""
    first: int = FIRST_FRAMES
    """And so many of the utterance's first: 3 s"""


PAST = Past()


@dataclass(frozen=True, slots=True)
class Block:
    """Some passes whose attention is computed together."""

    first: int
    """The first pass"""
    end: int
    """The pass after the last"""
    begun: int
    """So many of the very first passes are seen: their chunks"""
    oldest: int
    """The first of the passes before that are seen besides: their chunks, up to `first`"""
    mask: Tensor | None
    """bool, (batch, 1, places, chunks' frames + places): who sees whom; None: all see all"""


class Passes:
    """The passes of a batch of utterances under a plan.

    Every pass has the same `width` places; where an utterance has no frame for a place, it is not
    `valid`. Place i of pass k, which is place k · width + i of all, is frame kC + i.

    Args:
        frames: Of each utterance, 1 and up.
        plan: What is encoded at once.
        past: Which frames before a pass are seen.
        device: Where the tensors are.
    """

    def __init__(
        self,
        frames: Sequence[int],
        plan: Plan,
        past: Past = PAST,
        device: torch.device | str = "cpu",
    ) -> None:
        total = torch.tensor(frames, device=device)  # (batch,)
        most = max(frames)
        self.chunk = plan.chunk or most
        self.width = self.chunk + plan.look_ahead
        regular = ((total - plan.look_ahead) // self.chunk).clamp(min=0)
        rest = total - regular * self.chunk
        self.count = int((regular + (rest > 0)).max())
        number = torch.arange(self.count, device=device)
        place = torch.arange(self.width, device=device)
        last = number == regular[:, None]  # (batch, count)
        room = torch.where(last, rest[:, None], self.width * (number < regular[:, None]))
        valid = place < room[..., None]  # (batch, count, width)
        main = valid & ((place < self.chunk) | last[..., None])
        self.ends = torch.minimum(number * self.chunk + self.width, total[:, None])
        """int64, (batch, count): the frame after a pass's last"""
        self.positions = (number[:, None] * self.chunk + place).flatten()
        """int64, (count · width,): the frame of each place"""
        self.valid, self.main = valid.flatten(1), main.flatten(1)
        """bool, (batch, count · width): there is such a frame; it is kept"""
        self.blocks = [
            self._block(first, min(first + self._per_block, self.count), past)
            for first in range(0, self.count, self._per_block)
        ]
        """All passes in order, some at a time"""
        self.kept = self._kept(total, regular, most)
        """int64, (batch, most frames): the place where each frame is kept; 0 beyond the last"""
        self.heard = torch.arange(most, device=device) < total[:, None]
        """bool, (batch, most frames): the utterance has this frame"""

    @property
    def _per_block(self) -> int:
        return max(1, BLOCK_PLACES // self.width)

    def _block(self, first: int, end: int, past: Past) -> Block:
        oldest = max(0, first - -(-past.latest // self.chunk))
        begun = min(-(-past.first // self.chunk), oldest)
        chunks = torch.tensor([*range(begun), *range(oldest, first)], device=self.ends.device)
        place = torch.arange(self.chunk, device=self.ends.device)
        frames = (chunks[:, None] * self.chunk + place).flatten()
        own = slice(first * self.width, end * self.width)
        valid, positions = self.valid[:, None, own], self.positions[own]
        if self.count == 1 and bool(valid.all()):
            return Block(first, end, begun, oldest, None)
        number = torch.arange(first, end, device=frames.device).repeat_interleave(self.width)
        begin = (number * self.chunk - past.latest)[:, None]  # of what a place sees

        def seen(frame: Tensor) -> Tensor:
            return (frame >= begin) | (frame < past.first)

        before = number[:, None] > number
        inside = ((number[:, None] == number) & valid) | (
            before & seen(positions) & self.main[:, None, own]
        )
        # A place without a frame sees itself: nothing to look at would be no number.
        inside = inside | torch.eye(len(number), dtype=torch.bool, device=frames.device)
        outside = seen(frames).expand(len(inside), -1, -1)
        return Block(first, end, begun, oldest, torch.cat((outside, inside), 2)[:, None])

    def _kept(self, total: Tensor, regular: Tensor, most: int) -> Tensor:
        frame = torch.arange(most, device=total.device)
        number = torch.minimum(frame // self.chunk, regular[:, None])
        place = number * self.width + frame - number * self.chunk
        return torch.where(frame < total[:, None], place, 0)
