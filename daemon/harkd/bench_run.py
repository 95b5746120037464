"""All that ``harkd bench`` does: recordings and models → measurements → one report.

In: what is wanted, and the settings. Out: a `Report`, which is the JSON, and its lines. Runs on the
calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harkd.app import load
from harkd.bench_live import Live, tail_s
from harkd.bench_machine import Machine, this_machine
from harkd.bench_measure import BenchError, Subject, measure
from harkd.bench_realtime import RealTimeFigures, real_time_rows, run_in_real_time
from harkd.bench_report import Figures, figures_of, lines_of, table
from harkd.bench_start import StartFigures, measure_start, start_rows
from harkd.bench_whole import Whole
from harkd.bench_words import MISSING, load_normalizer
from harkd.model_store import InstalledModel, store_of
from harkd.recognizer.protocol import Recognizer
from harkd.recognizing import effort_of
from harkd.second_look import find_second_look
from harkd.settings import Settings
from harkd.speech_list import Recording, read_list, spread

Done = Callable[[], None]
"""Called when a subject is done with a recording."""
TITLES = {
    "whole": "whole: each recording as one utterance",
    "live": "live: as spoken, with partials, in virtual time",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured."""

    modes: tuple[str, ...]
    """Of start, realtime, whole and live."""
    speech: Path | None = None
    """A list of recordings; None for those that come with the model."""
    limit: int | None = None
    """So many recordings of it; None for all."""
    against: tuple[str, ...] = ()
    """Other models, by name or path."""
    off: tuple[frozenset[str], ...] = ()
    """For each, the first model once more, without these parts."""
    repeat: int = 1
    """Rounds, of which medians are taken."""
    config: Path | None = None
    """The settings file that was named, for daemons that are started."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A model, and how it is run."""

    name: str
    """For the report."""
    recognizer: Recognizer
    """Loaded."""
    settings: Settings
    """Those that it runs with."""
    model: InstalledModel
    """Where it is."""
    off: frozenset[str] = frozenset()
    """The parts that are switched off."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One subject, as the report names it."""

    name: str
    """In the report."""
    model: str
    """The model's name."""
    dir: str
    """Its folder."""
    family: str
    """Which recognizer runs it."""
    provider: str
    """The execution provider that really runs it."""
    off: list[str]
    """Parts that are switched off."""


@dataclass(frozen=True, slots=True)
class Report:
    """All figures. The first of each list is what the others are compared with."""

    machine: Machine
    """Where it was measured."""
    threads: int
    """Threads for each pass."""
    speech: str
    """Where the recordings come from."""
    repeat: int
    """Rounds, of which medians are taken."""
    subjects: list[ModelFacts]
    """What was measured."""
    start: list[StartFigures] = field(default_factory=list)
    """Cold starts."""
    realtime: list[RealTimeFigures] = field(default_factory=list)
    """The pipeline in real time."""
    whole: list[Figures] = field(default_factory=list)
    """Each recording as one utterance."""
    live: list[Figures] = field(default_factory=list)
    """Each recording as spoken, in virtual time."""
    hints: list[str] = field(default_factory=list)
    """What the figures lack, and how to mend it."""

    @property
    def modes(self) -> dict[str, list[Figures]]:
        """Those modes that go over the recordings, where they were measured."""
        return {name: each for name in TITLES if (each := getattr(self, name))}


PARTS = {
    "draft": ("recognizer", "draft"),
    "incremental": ("recognizer", "incremental"),
    "share": ("recognizer", "partial_share"),
    "confidence": ("recognizer", "partial_confidence"),
    "adaptive": ("endpoint", "adaptive"),
}
"""What can be switched off, by the setting that does it."""


def without(settings: Settings, off: frozenset[str]) -> Settings:
    """Return the settings without these parts. Raises BenchError."""
    for part in sorted(off):
        section, name = PARTS[part]
        if not getattr(getattr(settings, section), name):
            raise BenchError(f"{section}.{name} is off already", f"leave out `--off {part}`")
    recognizer = replace(
        settings.recognizer,
        draft=settings.recognizer.draft and "draft" not in off,
        incremental=settings.recognizer.incremental and "incremental" not in off,
        partial_share=0.0 if "share" in off else settings.recognizer.partial_share,
        partial_confidence=0.0 if "confidence" in off else settings.recognizer.partial_confidence,
    )
    adaptive = settings.endpoint.adaptive and "adaptive" not in off
    endpoint = replace(settings.endpoint, adaptive=adaptive)
    return replace(settings, recognizer=recognizer, endpoint=endpoint)


class Bench:
    """What was found and loaded for one report.

    Args:
        wanted: What is to be measured.
        settings: All settings; `recognizer.model` is the first model.

    Raises:
        HarkdError: A model or the list cannot be used, or a part is off already.
    """

    def __init__(self, wanted: Wanted, settings: Settings) -> None:
        self._wanted = wanted
        self._second_look = find_second_look(settings.vad)
        self._machine = this_machine()
        store = store_of(settings)
        models = [store.locate(name) for name in (settings.recognizer.model, *wanted.against)]
        changed = [without(settings, off) for off in wanted.off]
        self.recordings, self._speech = find_recordings(wanted, models)
        first, *others = (
            Variant(name, load(model, settings), settings, model)
            for name, model in zip(names_of(models), models, strict=True)
        )
        loaded = {effort_of(settings): first.recognizer}
        for each in changed:
            if effort_of(each) not in loaded:
                loaded[effort_of(each)] = load(first.model, each)
        less = (
            replace(
                first,
                name=f"without {', '.join(sorted(off))}",
                recognizer=loaded[effort_of(each)],
                settings=each,
                off=off,
            )
            for off, each in zip(wanted.off, changed, strict=True)
        )
        self.variants = [first, *less, *others]

    @property
    def models(self) -> list[Variant]:
        """The variants with all parts."""
        return [each for each in self.variants if not each.off]

    @property
    def turns(self) -> int:
        """How often `run` calls `done`."""
        rounds = {
            "realtime": len(self.variants),
            "whole": len(self.models) * self._wanted.repeat,
            "live": len(self.variants) * self._wanted.repeat,
        }
        return len(self.recordings) * sum(rounds.get(mode, 0) for mode in self._wanted.modes)

    def run(self, done: Done = lambda: None) -> Report:
        """Measure. Raises HarkdError."""
        from harkd.recognizer.onnx import choose_threads

        first = self.variants[0]
        report = Report(
            machine=self._machine,
            threads=choose_threads(first.settings.recognizer.threads),
            speech=self._speech,
            repeat=self._wanted.repeat,
            subjects=[facts_of(each) for each in self.variants],
        )
        modes = self._wanted.modes
        # These first: what the other modes need would count as the pipeline's memory.
        if "start" in modes:
            report.start.extend(map(self._start, self.models))
        if "realtime" in modes:
            report.realtime.extend(self._real_time(each, done) for each in self.variants)
        normalizer = load_normalizer(first.recognizer.language)
        if normalizer is None and any(each.text is not None for each in self.recordings):
            report.hints.append(MISSING)
        subjects: dict[str, list[Subject]] = {
            "whole": [Whole(each.name, each.recognizer) for each in self.models],
            "live": [
                Live(
                    each.name,
                    each.recognizer,
                    each.settings,
                    tail_s(each.settings.endpoint),
                    self._second_look,
                )
                for each in self.variants
            ],
        }
        for mode in (each for each in subjects if each in modes):
            timed = measure(
                subjects[mode],
                self.recordings,
                repeat=self._wanted.repeat,
                channel=str(first.settings.audio.channel),
                done=done,
            )
            names = [each.name for each in subjects[mode]]
            getattr(report, mode).extend(figures_of(names, timed, normalizer))
        return report

    def _start(self, variant: Variant) -> StartFigures:
        words = ["--config", str(self._wanted.config)] if self._wanted.config else []
        environ = {
            "HARKD_RECOGNIZER__MODEL": str(variant.model.dir),
            "HARKD_RECOGNIZER__THREADS": str(variant.settings.recognizer.threads),
        }
        return measure_start(variant.name, words, environ)

    def _real_time(self, variant: Variant, done: Done) -> RealTimeFigures:
        return run_in_real_time(
            variant.name,
            variant.recognizer,
            variant.settings,
            self.recordings,
            memory=len(self.variants) == 1,
            second_look=self._second_look,
            done=done,
        )


def find_recordings(
    wanted: Wanted, models: Sequence[InstalledModel]
) -> tuple[list[Recording], str]:
    """Return the recordings, and where they come from. Raises BenchError, SpeechListError."""
    if wanted.modes == ("start",):
        return [], ""
    if wanted.speech:
        return spread(read_list(wanted.speech), wanted.limit), str(wanted.speech)
    for model in models:
        if samples := model.manifest.samples:
            found = [Recording(model.dir / each.path, "", each.text) for each in samples]
            return spread(found, wanted.limit), f"the recordings of {model.manifest.name}"
    raise BenchError(
        f"the model {models[0].manifest.name} comes without recordings",
        "name a list of some with --speech",
    )


def names_of(models: Sequence[InstalledModel]) -> list[str]:
    """Return a name for each model: its own; where these are alike, its folder's or its path."""
    for names in (
        [each.manifest.name for each in models],
        [each.dir.name for each in models],
        [str(each.dir) for each in models],
    ):
        if len(set(names)) == len(names):
            return names
    return [f"{at}: {each.manifest.name}" for at, each in enumerate(models, 1)]


def facts_of(variant: Variant) -> ModelFacts:
    """Return what the report says of a subject."""
    manifest = variant.model.manifest
    return ModelFacts(
        name=variant.name,
        model=manifest.name,
        dir=str(variant.model.dir),
        family=manifest.family,
        provider=variant.recognizer.provider,
        off=sorted(variant.off),
    )


def lines_of_report(report: Report) -> list[str]:
    """Return the report for people."""
    first = report.subjects[0]
    many = "thread" if report.threads == 1 else "threads"
    rounds = f", medians of {report.repeat} rounds" if report.repeat > 1 else ""
    lines = [
        str(report.machine),
        f"{first.model}: {first.provider}, {report.threads} {many}{rounds}",
    ]
    if report.speech:
        lines.append(f"speech: {report.speech}")
    lines.append("")
    if report.start:
        lines += ["start: the daemon in a process of its own, its files in memory", ""]
        lines += [*table(start_rows(report.start)), ""]
    if report.realtime:
        played = report.realtime[0]
        lines += [
            f"realtime: the pipeline, paced; {played.recordings} recordings, "
            f"{played.played_s:.0f} s with the silence after each",
            "",
        ]
        lines += [*table(real_time_rows(report.realtime)), ""]
    for mode, found in report.modes.items():
        lines += lines_of(TITLES[mode], found, live=mode == "live")
    return [*lines, *report.hints]
