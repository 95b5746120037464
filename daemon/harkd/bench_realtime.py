"""The daemon's own pipeline in real time: how late texts come, and what that costs.

In: recordings, paced as a microphone would deliver them, each followed by silence. Out:
latencies, CPU and memory. Takes as long as the recordings. Events come on the pipeline's threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from harkd.audio import RATE_HZ, FileSource
from harkd.bench_live import tail_s
from harkd.bench_machine import memory_mb
from harkd.bench_measure import BenchError, Spread, read_samples, require_success, spread_of
from harkd.errors import HarkdError
from harkd.events import Event, Final, Partial, Rejected
from harkd.pipeline import Pipeline
from harkd.recognizer.protocol import Recognizer
from harkd.second_look import SecondLook
from harkd.settings import Settings
from harkd.speech_list import Recording


@dataclass(frozen=True, slots=True)
class RealTimeFigures:
    """One subject in real time."""

    name: str
    """The subject."""
    recordings: int
    """How many were played."""
    played_s: float
    """Seconds that it listened, with the silence after each recording."""
    cpu_s_per_s: float
    """CPU seconds, all threads, for each of them."""
    speech_to_final_ms: Spread | None
    """From the last speech sample to the final in a sink's hands, in ms."""
    endpoint_to_final_ms: Spread | None
    """From the decision that the utterance is over to there, in ms."""
    speech_to_first_partial_ms: Spread | None
    """From the first speech sample to the first partial in a sink's hands, in ms."""
    partial_lag_ms: Spread | None
    """From the last sample that a partial covers to there, in ms."""
    finals: int
    """Utterances."""
    partials: int
    """Texts before them."""
    rejected: int
    """Segments without text."""
    rss_mb: float | None
    """Resident memory after the last recording, in MB; None where other subjects share it."""
    most_rss_mb: float | None
    """The most that it ever was."""


class Stopwatch:
    """A sink that notes when events reach it.

    Args:
        monotonic_ns: The clock of the events' ``…_ns``.
        utc: The clock of their ``…_at``.
    """

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        utc: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._utc = utc
        self.speech_to_final_ms: list[float] = []
        self.endpoint_to_final_ms: list[float] = []
        self.speech_to_first_partial_ms: list[float] = []
        self.partial_lag_ms: list[float] = []
        self.finals = self.partials = self.rejected = 0

    def __call__(self, event: Event) -> None:
        """Take an event. Any thread."""
        now_ns, now = self._monotonic_ns(), self._utc()
        match event:
            case Partial():
                self.partials += 1
                spoken = now - event.started_at
                if event.rev == 1:
                    self.speech_to_first_partial_ms.append(spoken / timedelta(milliseconds=1))
                lag = spoken - timedelta(seconds=event.duration_s)
                self.partial_lag_ms.append(lag / timedelta(milliseconds=1))
            case Final():
                self.finals += 1
                self.speech_to_final_ms.append((now_ns - event.speech_end_ns) / 1e6)
                self.endpoint_to_final_ms.append((now_ns - event.endpoint_ns) / 1e6)
            case Rejected():
                require_success(event)
                self.rejected += 1


def run_in_real_time(
    name: str,
    recognizer: Recognizer,
    settings: Settings,
    recordings: Sequence[Recording],
    *,
    memory: bool = True,
    second_look: SecondLook | None = None,
    done: Callable[[], None] = lambda: None,
) -> RealTimeFigures:
    """Play each recording to a pipeline of its own.

    Args:
        name: For the report.
        recognizer: The loaded model.
        settings: All settings.
        recordings: Taken in their order.
        memory: Whether this process's memory tells anything.
        second_look: Hears whether there is a voice, where `vad.second_look` is on.
        done: Called after each.

    Raises:
        HarkdError: A recording or the model failed.
    """
    watch = Stopwatch()
    played_s = cpu_s = 0.0
    for recording in recordings:
        samples = read_samples(recording.path, str(settings.audio.channel))
        silence = np.zeros(int(tail_s(settings.endpoint) * RATE_HZ), np.int16)
        length_s = (len(samples) + len(silence)) / RATE_HZ
        with tempfile.TemporaryDirectory(prefix="harkd-bench-") as folder:
            path = Path(folder) / "spoken.wav"
            write_wav(path, np.concatenate([samples, silence]))
            cpu_begin_s = time.process_time()
            play(FileSource(path), recognizer, settings, watch, second_look)
            cpu_s += time.process_time() - cpu_begin_s
        played_s += length_s
        done()
    resident = memory_mb() if memory else {}
    return RealTimeFigures(
        name=name,
        recordings=len(recordings),
        played_s=round(played_s, 3),
        cpu_s_per_s=round(cpu_s / played_s, 6),
        speech_to_final_ms=spread_of(watch.speech_to_final_ms),
        endpoint_to_final_ms=spread_of(watch.endpoint_to_final_ms, 1),
        speech_to_first_partial_ms=spread_of(watch.speech_to_first_partial_ms),
        partial_lag_ms=spread_of(watch.partial_lag_ms),
        finals=watch.finals,
        partials=watch.partials,
        rejected=watch.rejected,
        rss_mb=resident.get("rss_mb"),
        most_rss_mb=resident.get("most_rss_mb"),
    )


def play(
    source: FileSource,
    recognizer: Recognizer,
    settings: Settings,
    sink: Callable[[Event], None],
    second_look: SecondLook | None,
) -> None:
    """Run a pipeline to the end of its source. Raises HarkdError."""
    pipeline = Pipeline(source, recognizer, settings, sink, second_look=second_look)
    pipeline.start()
    try:
        pipeline.wait()
    finally:
        pipeline.stop()  # where it was interrupted
    if isinstance(pipeline.failure, HarkdError):
        raise pipeline.failure
    if pipeline.failure:
        raise BenchError(f"the pipeline failed ({pipeline.failure!r})") from pipeline.failure


def write_wav(path: Path, samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
    """Write 16 kHz mono: int16, shape (n,)."""
    import soundfile

    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")


def real_time_rows(found: Sequence[RealTimeFigures]) -> list[list[str]]:
    """Return a table with a column for each subject."""

    def spread(one: Spread | None) -> str:
        return f"{one.p50:g} / {one.p95:g} / {one.most:g}" if one else "–"

    spreads = (
        ("last speech → final, ms, median / p95 / most", "speech_to_final_ms"),
        ("endpoint → final, ms", "endpoint_to_final_ms"),
        ("first speech → first partial, ms", "speech_to_first_partial_ms"),
        ("last sample of a partial → partial, ms", "partial_lag_ms"),
    )
    rows = [
        ["", *(each.name for each in found)],
        ["CPU seconds per second", *(f"{each.cpu_s_per_s:.4f}" for each in found)],
        *([name, *(spread(getattr(each, key)) for each in found)] for name, key in spreads),
        *(
            [key, *(str(getattr(each, key)) for each in found)]
            for key in ("finals", "partials", "rejected")
        ),
    ]
    if any(each.rss_mb for each in found):
        cells = [
            f"{each.rss_mb:.0f} / {each.most_rss_mb:.0f}" if each.rss_mb else "–" for each in found
        ]
        rows.append(["resident memory, MB, now / most", *cells])
    return rows
