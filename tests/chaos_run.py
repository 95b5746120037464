"""Lets faults happen to a daemon while somebody speaks, and judges what it does about each.

`run_chaos` takes a rig and faults; `Report` has what was measured and which bounds were broken.
Runs on the calling thread; the daemon, the servers and the speaker are processes of their own.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from chaos_faults import COMMON, ROOT, STALL_S, ZEROS_S, Fault, Scene, nothing, schedule
from chaos_outcome import HEALED, Outcome, Report, judge_whole, line_of
from chaos_rigs import Rig
from chaos_truth import HEARS, fresh, known_share, lies, listens_since, spans, states, unended
from daemon_process import Daemon, children
from harkd.settings import AudioSettings
from servers import Mosquitto, Received, Subscriber

MODEL = "moonshine-tiny-en"
"""What is said are its recordings."""
START_S = 30.0
HEAL_AFTER_S = 8.0
"""Then it is looked whether anybody hears anything from the sound server."""
PATIENCE_S = 30.0
"""After this, a daemon has not come back."""
REST_S = (0.5, 4.0)
"""How long nothing happens after each fault."""
LONG_EVERY, LONG_FROM_S, LONG_S = 10, 4.0, (20.0, 30.0)
"""One in ten faults lasts as long as it takes until each wait of the daemon is at its longest."""
LAST_REST_S = 9.0
"""… and at the end, so that something is said that no fault disturbs."""
TEXT_S = 12.0
"""After the bound of the state: what is said goes on, then a pause, then another utterance."""
LINES_MOST = 15
"""Warnings and errors that one fault may log."""


@dataclass(frozen=True)
class Plan:
    """What is to happen."""

    count: int = 0
    """How many faults, by chance."""
    seed: int = 1
    only: str = ""
    """Takes faults with this in their name."""
    fixed: tuple[tuple[str, float], ...] = ()
    """Names of faults, and for how many seconds each, in the place of chance."""
    rest_s: tuple[float, float] = REST_S
    vocabulary: frozenset[str] = frozenset()
    """What is said."""
    model: str = MODEL
    """The model that hears it."""

    def steps_of(self, rig: Rig, chance: random.Random) -> Iterator[tuple[Fault, float]]:
        """The rig's faults, each with the seconds for which it lasts."""
        known = {each.name: each for each in [*rig.faults, *COMMON]}
        if self.fixed:
            yield from ((known[name], lasts_s) for name, lasts_s in self.fixed)
            return
        chosen = [each for name, each in known.items() if self.only in name]
        for number, fault in enumerate(schedule(chosen, self.count, chance), 1):
            is_long = number % LONG_EVERY == 0 and fault.most_s > LONG_FROM_S
            bounds = LONG_S if is_long else (fault.least_s, fault.most_s)
            yield fault, chance.uniform(*bounds)


def run_chaos(
    rig: Rig, broker: Mosquitto, folder: Path, models: str, plan: Plan, say: Callable[[str], None]
) -> Report:
    """Starts the daemon before its microphone, and lets the plan's faults happen to it."""
    chance = random.Random(f"{plan.seed} {rig.name}")  # noqa: S311 - no secret
    env = {
        **rig.env,
        "HARKD_MODELS": models,
        "HARKD_RECOGNIZER__MODEL": plan.model,
        "HARKD_DEVICE_ID": "chaos",
        "HARKD_MQTT__HOST": broker.host,
        "HARKD_MQTT__PORT": str(broker.port),
        "HARKD_AUDIO__STALL_S": str(STALL_S),
    }
    if hasattr(AudioSettings(), "zeros_s"):
        env["HARKD_AUDIO__ZEROS_S"] = str(ZEROS_S)
    printed = folder / "events.jsonl"
    with (
        Subscriber(broker) as subscriber,
        printed.open("wb") as stdout,
        rig,
        Daemon("--print", env=env, folder=folder, stdout=stdout) as daemon,
    ):
        scene = Scene(daemon, broker, subscriber, chance)
        course = Course(rig, scene, say, folder)
        absent = Fault("started before its microphone", nothing, lambda _: rig.arrive())
        subscriber.wait_for(lambda one: one.topic == f"{ROOT}/state", START_S)
        course.happen(absent, 1.0)
        for fault, lasts_s in plan.steps_of(rig, chance):
            if not course.happen(fault, lasts_s):
                break
            course.rest(chance.uniform(*plan.rest_s))
        course.rest(LAST_REST_S)
        report = course.report
        course.troubled.append((datetime.now(UTC), datetime.max.replace(tzinfo=UTC)))
        with suppress(AssertionError):
            report.log_lines = len(daemon.log)
        daemon.stop()
        report.breaches += leftovers(folder)
    events = [json.loads(line) for line in printed.read_text().splitlines()]
    report.breaches += unended(events)
    finals = [each for each in events if each["topic"] == "transcript"]
    report.finals = len(finals)
    report.known = known_share(undisturbed(finals, course.troubled), plan.vocabulary)
    (folder / "daemon.log").write_text("".join(daemon.lines))
    judge_whole(report)
    return report


class Course:
    """One fault after the other.

    Args:
        rig: The microphone.
        scene: Where they happen.
        say: Takes lines of progress.
        folder: The daemon's; its capture processes are known by it.
    """

    def __init__(self, rig: Rig, scene: Scene, say: Callable[[str], None], folder: Path) -> None:
        self.report = Report(rig.name)
        self._rig = rig
        self._scene = scene
        self._say = say
        self._folder = folder
        self.troubled: list[tuple[datetime, datetime]] = []
        """From the beginning of each fault until there was text again."""

    def happen(self, fault: Fault, lasts_s: float) -> bool:
        """Lets one happen; False where there is no daemon any more."""
        scene, daemon = self._scene, self._scene.daemon
        first_line, first_message = len(daemon.lines), len(scene.subscriber.messages)
        began_ns, began_at = time.monotonic_ns(), datetime.now(UTC)
        fault.begin(scene)
        time.sleep(lasts_s)
        before_end_ns = time.monotonic_ns()
        note = self._end(fault)
        ended_ns, ended_at = time.monotonic_ns(), datetime.now(UTC)
        if self._wait_for_state(fault, ended_ns, HEAL_AFTER_S) >= HEAL_AFTER_S and self._rig.heal():
            note = HEALED
            ended_ns, ended_at = time.monotonic_ns(), datetime.now(UTC)
        self._wait_for_state(fault, ended_ns)
        text = self._wait_for_text(first_message, ended_at)
        # Once more: what was told too late of a short fault may have come in between.
        recovered_s = self._wait_for_state(fault, ended_ns)
        told = states(scene.subscriber.messages)
        breaches = lies(told, fault, began_ns, before_end_ns)
        breaches += self._judge_recovery(fault, recovered_s, text, ended_ns)
        breaches += self._rest()
        logged = [line for line in daemon.lines[first_line:] if is_warning(line)]
        if len(logged) > LINES_MOST:
            breaches.append(f"{len(logged)} warnings and errors in the log")
        if any("Traceback" in line for line in daemon.lines[first_line:]):
            breaches.append("a traceback in the log")
        seen = spans(told, began_ns, ended_ns + int(recovered_s * 1e9))
        not_heard = [each for each, _ in seen if each.state not in HEARS]
        first = next((each for each in not_heard if each.problem), next(iter(not_heard), None))
        told_words = dict.fromkeys(each.problem or each.state for each in not_heard)
        heard_s, text_s = self._heard(text, ended_at, ended_ns)
        outcome = Outcome(
            rig=self.report.rig,
            fault=fault.name,
            lasted_s=(ended_ns - began_ns) / 1e9,
            told_s=max(0.0, (first.at_ns - began_ns) / 1e9) if first else None,
            told=" → ".join(told_words),
            recovered_s=recovered_s,
            heard_s=heard_s,
            text_s=text_s,
            log_lines=len(logged),
            breaches=tuple(breaches),
            note=note,
        )
        self.report.outcomes.append(outcome)
        self._say(line_of(outcome, len(self.report.outcomes)))
        self.troubled.append((began_at, datetime.now(UTC)))
        return daemon.process.poll() is None

    def _end(self, fault: Fault) -> str:
        """Ends a fault; returns a note where the sound server itself did not come back."""
        try:
            fault.end(self._scene)
        except (AssertionError, subprocess.SubprocessError):
            if not self._rig.heal():
                raise
            return HEALED
        return ""

    def rest(self, seconds: float) -> None:
        """Lets nothing happen; the state should stay."""
        before = len(states(self._scene.subscriber.messages))
        time.sleep(seconds)
        for told in states(self._scene.subscriber.messages)[before:]:
            if told.state not in HEARS:
                found = f'said {told.state} ("{told.reason}") while nothing happened'
                self.report.breaches.append(found)

    def _wait_for_state(self, fault: Fault, ended_ns: int, patience_s: float = PATIENCE_S) -> float:
        """Seconds from the cause's end until the state is that it listens, for good."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            messages = self._scene.subscriber.messages
            told = states(messages)
            if fault.hides_state:
                back_ns = next(
                    (one.received_ns for one in messages if one.received_ns > ended_ns), 0
                )
            else:
                back_ns = listens_since(told)
            if back_ns:
                return max(0.0, (back_ns - ended_ns) / 1e9)
            time.sleep(0.05)
        return patience_s

    def _wait_for_text(self, first_message: int, ended_at: datetime) -> Received | None:
        with suppress(AssertionError):
            return self._scene.subscriber.wait_for(
                lambda one: fresh(one, ended_at), PATIENCE_S, after=first_message
            )
        return None

    def _heard(
        self, text: Received | None, ended_at: datetime, ended_ns: int
    ) -> tuple[float, float]:
        if text is None:
            return PATIENCE_S, PATIENCE_S
        began = datetime.fromisoformat(json.loads(text.payload)["started_at"])
        heard_s = max(0.0, (began - ended_at).total_seconds())
        return heard_s, (text.received_ns - ended_ns) / 1e9

    def _judge_recovery(
        self, fault: Fault, recovered_s: float, text: Received | None, ended_ns: int
    ) -> list[str]:
        found = []
        if self._scene.daemon.process.poll() is not None:
            found.append("the daemon ended")
        if recovered_s > fault.recover_s:
            found.append(f"listened again only after {recovered_s:.1f} s")
        text_s = PATIENCE_S if text is None else (text.received_ns - ended_ns) / 1e9
        if text_s > fault.recover_s + TEXT_S:
            found.append(f"had text again only after {text_s:.1f} s")
        return found

    def _rest(self) -> list[str]:
        """Looks at the daemon's resources, once it listens again."""
        daemon = self._scene.daemon
        if daemon.process.poll() is not None:
            return []
        found = []
        process = psutil.Process(daemon.process.pid)
        self.report.fds.append(process.num_fds())
        self.report.rss_mb.append(process.memory_info().rss / 1e6)
        captures = children(daemon.process.pid)
        if len(captures) > 1:
            found.append(f"{len(captures)} capture processes")
        others = [pid for pid in ours(self._folder) if pid not in captures]
        if others:
            found.append(f"capture processes that nobody owns: {others}")
        return found


def undisturbed(
    finals: list[dict[str, Any]], troubled: list[tuple[datetime, datetime]]
) -> list[str]:
    """Texts of what was said while nothing happened, so that all of it can have been heard."""
    found = []
    for final in finals:
        began, ended = (datetime.fromisoformat(final[name]) for name in ("started_at", "ended_at"))
        margin = timedelta(seconds=0.5)
        if all(ended + margin < a or began - margin > b for a, b in troubled):
            found.append(final["text"])
    return found


def ours(folder: Path) -> list[int]:
    """Capture processes that come from the daemon of a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "harkd.capture" not in (process.info["cmdline"] or []):
            continue
        with suppress(psutil.Error):
            if process.environ().get("HARKD_STATE__DIR") == str(folder / "state"):
                found.append(process.pid)
    return found


def leftovers(folder: Path) -> list[str]:
    """What still runs after the daemon's end."""
    time.sleep(0.5)
    return [f"capture process {pid} outlived the daemon" for pid in ours(folder)]


def is_warning(line: str) -> bool:
    """Whether a line of the log is a warning or worse, or no line of the log."""
    if not line.startswith("{"):
        return bool(line.strip())
    level: Any = json.loads(line)["log.level"]
    return str(level).lower() in ("warning", "error", "critical")
