"""Some faults of `bench/chaos.py`, with all its bounds; that has all of them, and PipeWire."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos_rigs import make_rig
from chaos_run import Plan, run_chaos
from servers import Mosquitto
from speaker import speech_of

pytestmark = [pytest.mark.integration, pytest.mark.model]

# Long enough that each must have been told, where the name says what is wrong.
PLANS = {
    "alsa": (
        ("replugged with another format", 4.2),
        ("all zero", 5.2),
        ("busy", 1.0),
    ),
    "pulseaudio": (
        ("source removed, another there", 4.2),
        ("pulseaudio killed", 1.0),
        ("capture process killed", 0.0),
        ("broker killed", 0.5),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_after_each_fault_it_listens_again_in_time_and_had_told_the_truth(
    name: str, broker: Mosquitto, model_dir: Path, tmp_path: Path
) -> None:
    """What speaks meanwhile is a recording; its words come back as text after each fault."""
    loop = speech_of(model_dir / "samples")
    rig = make_rig(name, tmp_path / "microphone", loop.sound)
    plan = Plan(fixed=PLANS[name], rest_s=(0.2, 0.5), vocabulary=loop.vocabulary)
    report = run_chaos(rig, broker, tmp_path, str(model_dir.parent), plan, print)
    assert len(report.outcomes) == len(PLANS[name]) + 1
    assert report.broken == []
