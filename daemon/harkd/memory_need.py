"""How much memory a model takes, from what was measured of it, or of others of its family. Pure.

In: a manifest, and how long an utterance may be. Out: a `Need`. All of it is memory that nothing
but swap can take away; pages of files, such as onnxruntime's own, are not in it. `bench/memory.py`
holds the estimate against what a model really takes on this machine.

A model loads, with a peak of its own, and stays; each utterance then takes some more, and so much
for each of its seconds, which is given back at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from harkd.model_package import Manifest
from harkd.settings import EndpointSettings

MEASURED_KEY: Final = "memory"
"""Of a manifest's `measured`: a mapping with the fields of `Figures`, which wins over any guess."""
MB: Final = 1_000_000
REST_MB: Final = 31.0
"""What else comes: the capture process (9), the second look (10), what live recognition adds, the
kernel's share."""
PHRASES_MB: Final = 50.0
"""What looking for phrases takes, besides the phrases themselves: those of
config/phrases/house.en.yaml, with Moonshine tiny (docs/performance.md, "Memory")."""
THREAD_MB: Final = 2.0
"""Each thread of a pass, after the first."""
MOST_MB: Final = 1e6
"""A figure beyond it is none."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model takes besides what the process has before it loads, in MB (10^6 bytes)."""

    load_mb: float
    """At most while it loads."""
    loaded_mb: float
    """When it is loaded."""
    base_mb: float
    """At most in an utterance, without what its seconds take."""
    per_s_mb: float
    """And for each second of the utterance."""

    def at_most_mb(self, utterance_s: float, streams: int = 1) -> float:
        """Return the most that it takes, with so many utterances of that length at once."""
        each_mb = max(0.0, self.base_mb + self.per_s_mb * utterance_s - self.loaded_mb)
        return max(self.load_mb, self.loaded_mb + streams * each_mb)


@dataclass(frozen=True, slots=True)
class Need:
    """What must be free before a model is loaded, in bytes."""

    least_bytes: int
    """With one utterance of full length at a time."""
    most_bytes: int
    """With as many as may be recognized at a time, all of full length."""
    own_bytes: int
    """The least that the limits of one process must leave it: what the model alone takes.

    They count what is mapped, of which the process has some to spare and its libraries take some
    more. Where they are a little too low for a long utterance, that one fails, and nothing else.
    """


NEVER_AGAIN = "moonshine-streaming that hears nothing again"
"""In the place of a family: a package whose `doubt_below` is 0"""
FIGURES: Final[Mapping[str, tuple[tuple[float, Figures], ...]]] = {
    "moonshine": (
        (43.9, Figures(132, 70, 74, 9.3)),
        (63.6, Figures(328, 324, 552, 6.7)),
    ),
    "moonshine-lean": (  # from floats, tiny has 34.2 MB and base 74.7, and take the same
        (34.2, Figures(78, 69, 60, 5.1)),
        (43.7, Figures(78, 69, 60, 5.1)),
        (74.7, Figures(136, 120, 115, 8.2)),
        (88.3, Figures(136, 120, 115, 8.2)),
    ),
    "moonshine-streaming": (  # an utterance that is heard again takes the most
        (34.2, Figures(84, 76, 86, 5.0)),
        (43.7, Figures(84, 76, 86, 5.0)),
        (74.7, Figures(153, 136, 155, 8.6)),
        (88.3, Figures(153, 136, 155, 8.6)),
    ),
    NEVER_AGAIN: (
        (34.2, Figures(84, 76, 104, 1.3)),
        (43.7, Figures(84, 76, 104, 1.3)),
        (74.7, Figures(153, 136, 180, 2.5)),
        (88.3, Figures(153, 136, 180, 2.5)),
    ),
    "streaming-ctc": (
        (3.6, Figures(24, 23, 30, 0.05)),
        (11.6, Figures(38, 31, 39, 0.05)),
        (105.3, Figures(135, 135, 142, 0.05)),
        (340.0, Figures(370, 370, 378, 0.05)),
    ),
    "streaming-transducer": (
        (21.4, Figures(51, 50, 57, 0.05)),
        (105.3, Figures(135, 135, 142, 0.05)),
        (340.0, Figures(370, 370, 378, 0.05)),
    ),
}
"""Size of the files in MB → figures, by `bench/memory.py`: docs/performance.md, "Memory"."""


def need_of(
    manifest: Manifest, endpoint: EndpointSettings, threads: int = 1, streams: int = 1
) -> Need | None:
    """Return what a model needs; None where nobody has measured anything of its kind.

    Args:
        manifest: The model's.
        endpoint: `max_utterance_s` and what comes before and after speech make an utterance.
        threads: Threads of each pass.
        streams: Utterances that may be recognized at the same time.
    """
    figures = figures_of(manifest)
    if figures is None:
        return None
    longest_s = min(endpoint.max_utterance_s, manifest.limits.max_segment_s)
    more_mb = THREAD_MB * max(0, threads - 1)
    least_mb = figures.at_most_mb(longest_s) + more_mb
    most_mb = figures.at_most_mb(longest_s, streams) + more_mb
    return Need(
        least_bytes=round((least_mb + REST_MB) * MB),
        most_bytes=round((most_mb + REST_MB) * MB),
        own_bytes=round(least_mb * MB),
    )


def figures_of(manifest: Manifest) -> Figures | None:
    """Return what is written in the manifest, or else an estimate by its family and size."""
    never_again = manifest.streaming is not None and manifest.streaming.doubt_below == 0
    return measured_figures(manifest.measured) or estimate(
        NEVER_AGAIN if never_again else manifest.family,
        sum(file.size_bytes for file in manifest.files.values()) / MB,
    )


def measured_figures(measured: Mapping[str, Any]) -> Figures | None:
    """Return the figures of a manifest's `measured`; None where they are not there, or are none."""
    found = measured.get(MEASURED_KEY)
    if not isinstance(found, Mapping):
        return None
    values = [found.get(field.name) for field in fields(Figures)]
    sound = [float(v) for v in values if isinstance(v, int | float) and 0 <= v < MOST_MB]
    return Figures(*sound) if len(sound) == len(values) else None


def estimate(family: str, size_mb: float) -> Figures | None:
    """Return figures between those of the next smaller and the next larger model of a family.

    Below the smallest they fall with its line, and above the largest they grow with the size.
    """
    known = FIGURES.get(family)
    if known is None:
        return None
    last_mb, last = known[-1]
    if size_mb >= last_mb:
        scale = size_mb / last_mb
        return Figures(*(getattr(last, field.name) * scale for field in fields(Figures)))
    at = next(i for i, (mb, _) in enumerate(known[1:], 1) if size_mb < mb)
    (low_mb, low), (high_mb, high) = known[at - 1], known[at]
    share = (size_mb - low_mb) / (high_mb - low_mb)

    def between(name: str) -> float:
        one, other = getattr(low, name), getattr(high, name)
        return max(0.0, float(one + share * (other - one)))

    return Figures(*(between(field.name) for field in fields(Figures)))
