"""A hundred faults while somebody speaks: the real daemon, real sound servers, a real broker.

    .venv/bin/python bench/chaos.py --faults 100 --seed 1 [--markdown FILE]

Takes turns with an ALSA device in user space, a private PulseAudio and a private PipeWire, each
with a daemon of its own, and prints each fault, and the table of docs/reliability.md. Ends with 1
where a bound was broken. Needs the Debian packages of scripts/test, and for PipeWire pipewire-bin,
wireplumber, pipewire-pulse and dbus-daemon (not pipewire-alsa, which would remove PulseAudio).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chaos_outcome import Report  # noqa: E402 - what the tests have serves here, too
from chaos_report import summary, table  # noqa: E402
from chaos_rigs import RIGS, make_rig  # noqa: E402
from chaos_run import MODEL, Plan, run_chaos  # noqa: E402
from harkd.bench_machine import this_machine  # noqa: E402
from harkd.model_store import store_of  # noqa: E402
from harkd.settings import Settings  # noqa: E402
from servers import Mosquitto  # noqa: E402
from speaker import speech_of  # noqa: E402


def main() -> None:
    """Read the words of the command line, run, and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=100, help="in all rigs together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rigs", nargs="+", choices=RIGS, default=list(RIGS))
    parser.add_argument("--only", default="", help="take faults with this in their name")
    parser.add_argument("--model", default=MODEL, help="that hears it; default %(default)s")
    parser.add_argument("--markdown", type=Path, help="write the table to this file, too")
    parser.add_argument("--keep", type=Path, help="keep logs and messages in this folder")
    given = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harkd-chaos-") as made:
        folder = given.keep or Path(made)
        reports = run(given, folder)
    lines = [*table(reports), "", *summary(reports)]
    lines += ["", f"{this_machine()}; {(time.monotonic() - begin) / 60:.0f} minutes."]
    print("\n".join(lines))
    if given.markdown:
        given.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    broken = [each for report in reports for each in report.broken]
    print("\n".join(["", f"{len(broken)} bounds broken", *broken]))
    sys.exit(1 if broken else 0)


def run(given: argparse.Namespace, folder: Path) -> list[Report]:
    """Let each rig have its share of the faults."""
    model = store_of(Settings()).locate(MODEL)
    loop = speech_of(model.dir / "samples")
    reports = []
    for number, name in enumerate(given.rigs):
        share = given.faults // len(given.rigs) + (number < given.faults % len(given.rigs))
        here = folder / name
        here.mkdir(parents=True)
        (here / "broker").mkdir()
        rig = make_rig(name, here / "microphone", loop.sound)
        # The first fault is that the microphone comes after the daemon.
        plan = Plan(
            share - 1, given.seed, given.only, vocabulary=loop.vocabulary, model=given.model
        )
        with Mosquitto(here / "broker") as broker:
            reports.append(run_chaos(rig, broker, here, str(model.dir.parent), plan, say))
    return reports


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
