"""The student as it learns: optimizer, average of the weights, and checkpoints that resume exactly.

In: batches. Out: weights. Runs on the caller's thread.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harkd.errors import ModelDamagedError
from harkd_convert.distil.batches import Batch
from harkd_convert.distil.objective import Losses, Teacher
from harkd_convert.distil.streaming_encoder import StreamingEncoder
from harkd_convert.errors import ConvertError
from harkd_convert.moonshine import Encoder, Moonshine

BETAS = (0.9, 0.98)
CLIP = 1.0
AVERAGED = 0.99
"""Of the averaged weights stays at a step; less at first."""
LEARNED = ("layers.", "layer_norm.")
"""The encoder's parts that learn: not the stem."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides what is learned; a run is resumed with the same."""

    steps: int
    """Of training in all"""
    rate: float
    """AdamW's learning rate at its highest"""
    warm_steps: int
    """The rate rises over these"""
    decay_share: float
    """The rate falls to a twentieth over this last part of the steps"""
    pull: float
    """So strongly the weights are drawn back to the original ones, in the place of weight decay"""
    divergence: float
    """The weight of the decoder's divergence beside the hidden states' error"""
    halved: bool
    """Products in bfloat16"""

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        rise = min((step + 1) / max(self.warm_steps, 1), 1.0)
        left = (self.steps - step) / max(self.decay_share * self.steps, 1)
        return self.rate * rise * max(0.05, min(left, 1.0))

    @property
    def dtype(self) -> torch.dtype:
        """Return what products are computed in."""
        return torch.bfloat16 if self.halved else torch.float32


class Student:
    """Weights that learn, and their average.

    Args:
        teacher: The original weights; the student begins as a copy, and shares the stem and the
            decoder, which do not learn.
        recipe: How it learns.
        begin: Encoders of the same shape whose mean it begins with instead.
    """

    def __init__(self, teacher: Teacher, recipe: Recipe, begin: Sequence[Encoder] = ()) -> None:
        self.teacher, self.recipe = teacher, recipe
        original = teacher.model.encoder
        self.encoder = copy.deepcopy(original)
        if begin:
            states = [each.state_dict() for each in begin]
            means = {n: torch.stack([each[n] for each in states]).mean(0) for n in states[0]}
            self.encoder.load_state_dict(means)
        for name, weight in self.encoder.named_parameters():
            weight.requires_grad_(name.startswith(LEARNED))
        self.average = copy.deepcopy(self.encoder).requires_grad_(False)
        self.running = StreamingEncoder(self.encoder, dtype=recipe.dtype)
        known = dict(original.named_parameters())
        named = [(n, w) for n, w in self.encoder.named_parameters() if w.requires_grad]
        self._weights = [weight for _, weight in named]
        self._origins = [known[name].detach() for name, _ in named]
        averages = dict(self.average.named_parameters())
        self._averages = [averages[name] for name, _ in named]
        self.optimizer = torch.optim.AdamW(
            self._weights, lr=recipe.rate, betas=BETAS, weight_decay=0.0
        )
        self.step = 0
        self.seconds = 0.0

    def learn(self, batch: Batch) -> Losses:
        """Take one step."""
        stem = self.teacher.stem(batch.teacher, batch)
        taught = self.teacher.teach(batch, stem)
        stem = self.teacher.stem(batch.student, batch)
        losses = self.teacher.losses(taught, self.running.in_passes(stem, batch.plan))
        loss: Tensor = losses.hidden + self.recipe.divergence * losses.divergence
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self._weights, CLIP)
        rate = self.recipe.rate_at(self.step)
        if torch.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self._pull(rate)
        self.step += 1
        self.seconds += batch.seconds
        self._follow()
        return losses

    @torch.no_grad()
    def _pull(self, rate: float) -> None:
        if self.recipe.pull:
            for weight, origin in zip(self._weights, self._origins, strict=True):
                weight.lerp_(origin, rate * self.recipe.pull)

    @torch.no_grad()
    def _follow(self) -> None:
        kept = min(AVERAGED, self.step / (9 + self.step))
        for mean, weight in zip(self._averages, self._weights, strict=True):
            mean.lerp_(weight, 1 - kept)

    def blended(self, keep: float) -> Encoder:
        """Return the averaged weights, mixed with so much (0…1) of the original ones."""
        out = copy.deepcopy(self.average)
        original = dict(self.teacher.model.encoder.named_parameters())
        with torch.no_grad():
            for name, weight in out.named_parameters():
                weight.lerp_(original[name], keep)
        return out

    def model(self, keep: float) -> Moonshine:
        """Return the whole model with the blended encoder."""
        out = copy.deepcopy(self.teacher.model)
        out.encoder = self.blended(keep)
        return out.eval()

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write a checkpoint, in the place of the last one, at once.

        Args:
            path: The file.
            about: What has to be the same for the run to be resumed.
        """
        saved = {
            "about": about | {"recipe": asdict(self.recipe)},
            "step": self.step,
            "seconds": self.seconds,
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        staged = path.with_name(f".{path.name}")
        with staged.open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)

    def resume(self, path: Path, about: dict[str, Any]) -> list[str]:
        """Go on where a checkpoint was written.

        Returns:
            What is different from then, in words; the run then goes on, but is not the same.

        Raises:
            ModelDamagedError: It cannot be read.
            ConvertError: It is of other weights.
        """
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            before, now = saved["about"], about | {"recipe": asdict(self.recipe)}
            if before["source"] != now["source"]:
                raise ConvertError(
                    f"{path} is of a run with other weights", "name the model that it began with"
                )
            self.encoder.load_state_dict(saved["encoder"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = int(saved["step"]), float(saved["seconds"])
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            EOFError,
            pickle.UnpicklingError,
        ) as error:
            raise ModelDamagedError(
                f"{path} is no checkpoint of a distillation ({error})", "begin anew elsewhere"
            ) from error
        return _differences(before, now)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    flat = [{**each, **each["recipe"]} for each in (before, now)]
    names = [name for name in flat[1] if name != "recipe" and flat[0].get(name) != flat[1][name]]
    return [f"{name} was {flat[0].get(name)} and is {flat[1][name]}" for name in names]
