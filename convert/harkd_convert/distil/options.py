"""What a run of distillation is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harkd_convert.distil.learning import Recipe
from harkd_convert.distil.passes import Plan


@dataclass(frozen=True)
class Options:
    """Of the command line."""

    source: Path
    """The model"""
    corpora: tuple[Path, ...]
    """Lists and folders of recordings to train on"""
    out: Path
    """Where everything is written"""
    plans: dict[Plan, float]
    """What is trained, and how often relative to the others"""
    recipe: Recipe
    """How it is trained"""
    begin: tuple[Path, ...] = ()
    """Weights whose mean the student begins with; none: those of the model"""
    noises: tuple[Path, ...] = ()
    """Lists of noises"""
    rooms: tuple[Path, ...] = ()
    """Lists of impulse responses"""
    evaluated: Path | None = None
    """A list of recordings with what is said in them"""
    judged: tuple[Plan, ...] = ()
    """The plans that are evaluated; none: those that are trained"""
    speaker: str = ""
    """A regular expression that finds the speaker in a file's name"""
    batch_s: float = 32.0
    """Seconds in a batch"""
    seed: int = 1
    """Of everything that is drawn"""
    balance: float = 0.5
    """How much long sources count; see `Batches`"""
    joined_s: float = 16.0
    """Several recordings that become one utterance have so many seconds at most"""
    evaluate_steps: int = 100
    """The held-out recordings are heard after so many steps"""
    evaluate_minutes: float = 30.0
    """The evaluated list is heard once so long has passed, at the next such step"""
    keep: tuple[float, ...] = (0.0,)
    """So much of the original weights is mixed in: in what is evaluated and, of the first, in what
    is written"""
    resume: bool = False
    """Go on with the checkpoint in `out`"""
    device: str = "cpu"
    """What PyTorch computes on"""
    plot: Path | None = None
    """The picture of the curves"""

    @property
    def about(self) -> dict[str, Any]:
        """Return what has to be the same for a resumed run to be the same run."""
        return {
            "plans": {str(plan): weight for plan, weight in self.plans.items()},
            "begin": [str(each) for each in self.begin],
            "corpora": [str(each) for each in self.corpora],
            "noises": [str(each) for each in self.noises],
            "rooms": [str(each) for each in self.rooms],
            "speaker": self.speaker,
            "batch_s": self.batch_s,
            "seed": self.seed,
            "balance": self.balance,
            "joined_s": self.joined_s,
        }
