"""What the chaos test found, as the table of docs/reliability.md."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from chaos_outcome import Outcome, Report
from chaos_truth import slope

HEADER = (
    "fault",
    "times",
    "on",
    "listens again after: median (worst), s",
    "heard again after: median (worst), s",
    "the state said",
)
AT_ONCE = "two of these at once"


def table(reports: Sequence[Report]) -> list[str]:
    """Returns a Markdown table: one line for each fault, on whatever it happened, and sums."""
    everything = [each for report in reports for each in report.outcomes]
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in everything:
        groups[AT_ONCE if " + " in outcome.fault else outcome.fault].append(outcome)
    lines = [row(*HEADER), row(*["---"] * len(HEADER))]
    lines += [line_of(name, groups[name]) for name in sorted(groups, key=lambda one: sort_key(one))]
    if told := [each for each in everything if each.told not in ("", "muted")]:
        lines.append(line_of("**all that the state told of, but muting**", told, brief=True))
    if everything:
        lines.append(line_of("**all**", everything, brief=True))
    return lines


def sort_key(name: str) -> tuple[bool, str]:
    """By name, and two at once at the end."""
    return name == AT_ONCE, name


def line_of(name: str, outcomes: Sequence[Outcome], *, brief: bool = False) -> str:
    """One line of the table."""
    rigs = Counter(each.rig for each in outcomes)
    return row(
        name,
        str(len(outcomes)),
        "" if brief else ", ".join(f"{rig} {count}×" for rig, count in rigs.items()),
        median_and_worst([each.recovered_s for each in outcomes]),
        median_and_worst([each.heard_s for each in outcomes]),
        "" if brief else what_was_told(outcomes),
    )


def row(*cells: str) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def median_and_worst(seconds: Sequence[float]) -> str:
    """Returns the median and the worst, in seconds."""
    return f"{statistics.median(seconds):.1f} ({max(seconds):.1f})"


def what_was_told(outcomes: Sequence[Outcome]) -> str:
    """Returns the words, how often each, and how soon; "nothing" where no word was due."""
    told = Counter(each.told for each in outcomes if each.told_s is not None)
    parts = [f"`{word}` {count}×" for word, count in told.most_common()]
    silent = sum(each.told_s is None for each in outcomes)
    if silent:
        parts.append(f"still listening {silent}×")
    if healed := sum(bool(each.note) for each in outcomes):
        parts.append(f"(server started anew {healed}×)")
    soon = [each.told_s for each in outcomes if each.told_s is not None]
    after = f", after {statistics.median(soon):.1f} s" if soon else ""
    return ", ".join(parts) + after


def summary(reports: Sequence[Report]) -> list[str]:
    """Returns what holds for each daemon as a whole."""
    return [
        f"- {each.rig}: {len(each.outcomes)} faults, {each.finals} finals "
        f"({each.known:.0%} of their words were spoken), "
        f"descriptors {each.fds[0]} at first and {each.fds[-1]} at the end, "
        f"resident memory {min(each.rss_mb):.0f}…{max(each.rss_mb):.0f} MB "
        f"({slope(each.rss_mb[5:]) * 10:+.1f} MB in ten faults), "
        f"at most {max(one.log_lines for one in each.outcomes)} warnings for one fault"
        for each in reports
        if each.outcomes
    ]
