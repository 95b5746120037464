"""Where a loaded model runs, and why it is not where it was to be. Pure.

In: what the settings want, and what was read back from onnxruntime. Out: values and words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

CPU: Final = "cpu"
CUDA: Final = "cuda"
MIXED: Final = "mixed"
"""What a model runs on where some of its sessions are not where they belong."""


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """One reason."""

    what: str
    """What is wrong, in one sentence without a full stop"""
    mend: str
    """What to do about it, the same"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The onnxruntime that is installed."""

    version: str
    """Its version"""
    cuda: str = ""
    """The CUDA that it is built with, as ``13.0``; empty where it does not say, or has none"""

    @property
    def cuda_major(self) -> int:
        """Return the first number of `cuda`; 0 where it is not known."""
        first = self.cuda.partition(".")[0]
        return int(first) if first.isdigit() else 0

    @property
    def extras(self) -> str:
        """Return what pip is told to install so that CUDA and cuDNN come with it."""
        return f"'onnxruntime-gpu[cuda,cudnn]=={self.version}'"


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """Where a loaded model runs."""

    wanted: str
    """`recognizer.device`: auto, cpu or cuda"""
    provider: str
    """cpu, cuda or mixed"""
    sessions: Mapping[str, str] = field(default_factory=dict)
    """By role: cpu, cuda, or mixed for one that is spread over both"""
    faults: Sequence[DeviceFault] = ()
    """Why it is not on the GPU, where that was to be"""

    @property
    def missed(self) -> bool:
        """Tell whether it should have been on the GPU, and is not, or not as a whole."""
        return self.provider != CUDA and (self.wanted == CUDA or bool(self.faults))

    @property
    def what(self) -> str:
        """Return what is wrong, without a full stop; only where the GPU was missed."""
        wish = f"recognizer.device is {self.wanted}"
        if self.wanted != CUDA:
            wish += ", and onnxruntime-gpu is installed"
        where = "on the CPU" if self.provider == CPU else f"partly on the CPU ({self.places})"
        why = "; ".join(each.what for each in self.faults)
        return f"{wish}, but the model runs {where}: {why}"

    @property
    def mend(self) -> str:
        """Return what to do about it, without a full stop."""
        mends = dict.fromkeys(each.mend for each in self.faults)
        if self.wanted != CUDA:
            mends["if that is as it should be, set recognizer.device: cpu"] = None
        return "; ".join(mends)

    @property
    def places(self) -> str:
        """Return each session with what it runs on."""
        return ", ".join(f"{role}: {provider}" for role, provider in self.sessions.items())
