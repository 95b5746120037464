"""What the chaos test measured: of each fault, and of a daemon as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

FDS_MOST = 2
"""Descriptors that may be open at the end and were not at the first rest."""
RSS_MOST_MB = 15.0
KNOWN_LEAST = 0.6
"""The smallest model mishears a word in ten of what is short; noise would give one in ten right."""
HEALED = "the sound server itself gave nobody sound any more, and was started anew"
WARM_UP = 5
"""Faults after which memory is looked at: the first utterances of each length take some."""


@dataclass(frozen=True)
class Outcome:
    """How one fault went."""

    rig: str
    fault: str
    lasted_s: float
    told_s: float | None
    """Until the state told of it; None where it did not."""
    told: str
    """What it said, one after the other: the problem, or the state where that names none."""
    recovered_s: float
    """From the cause's end until the state says that it listens."""
    heard_s: float
    """… until the beginning of speech of which there is text."""
    text_s: float
    """… until that text."""
    log_lines: int
    """Warnings and errors logged."""
    breaches: tuple[str, ...]
    note: str = ""
    """What was done about the sound server."""


@dataclass
class Report:
    """How one rig went."""

    rig: str
    outcomes: list[Outcome] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    """Bounds that do not belong to a fault of their own."""
    fds: list[int] = field(default_factory=list)
    """Open descriptors at each rest."""
    rss_mb: list[float] = field(default_factory=list)
    """Resident memory at each rest, in MB of 1,000,000 bytes."""
    finals: int = 0
    known: float = 0.0
    """Share of the words of finals that no fault disturbed that were among those spoken."""
    log_lines: int = 0

    @property
    def broken(self) -> list[str]:
        """All bounds that were broken."""
        of_faults = [f"{each.fault}: {what}" for each in self.outcomes for what in each.breaches]
        return [f"{self.rig}: {each}" for each in of_faults + self.breaches]


def judge_whole(report: Report) -> None:
    """Adds what all faults together broke."""
    fds, rss = report.fds, report.rss_mb[WARM_UP:]
    if fds and min(fds[-3:]) > fds[0] + FDS_MOST:
        report.breaches.append(f"{fds[-1] - fds[0]} more descriptors are open than at first")
    if len(rss) > WARM_UP and min(rss[-3:]) > max(rss[:3]) + RSS_MOST_MB:
        report.breaches.append(f"memory grew from {rss[0]:.0f} to {rss[-1]:.0f} MB")
    if report.known < KNOWN_LEAST:
        report.breaches.append(f"only {report.known:.0%} of the finals' words were spoken")


def line_of(outcome: Outcome, number: int) -> str:
    """One fault for people."""
    told = f"{outcome.told} after {outcome.told_s:.1f} s" if outcome.told else "not told"
    text = (
        f"{number:3} {outcome.rig}: {outcome.fault}, {outcome.lasted_s:.1f} s: {told}; "
        f"listens {outcome.recovered_s:.2f} s after it, heard {outcome.heard_s:.1f} s, "
        f"text {outcome.text_s:.1f} s"
    )
    noted = f"{text} ({outcome.note})" if outcome.note else text
    return " ! ".join([noted, *outcome.breaches])
