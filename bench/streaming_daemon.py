"""A streaming model in the whole daemon: recordings into PulseAudio, transcripts out of MQTT.

    .venv/bin/python bench/streaming_daemon.py LIST --model PACKAGE --category an4_test
    .venv/bin/python bench/streaming_daemon.py LIST --model PACKAGE --against-sherpa --list

LIST is as `harkd bench --speech` takes it, with texts; PACKAGE is a name or a path. Starts a
private PulseAudio and a private mosquitto, runs `harkd run` with its default settings, and plays
each recording in real time into the microphone, with silence after it. What the broker hands out
until the next recording begins belongs to that recording; several finals count as one text, in
their order, and as a fault.

Word errors are counted twice: "plain" lowers the case and removes punctuation, and nothing else;
"whisper" is Whisper's normalizer, which also joins numbers ("one five one" is one word) and so
has fewer words. A partial has grown if it begins with the one before it, and is longer.

--against-sherpa lets harkd's recognizer and sherpa-onnx hear each recording as it is in the file,
and tells how often they hear the same, and how often that is what the daemon heard through
PulseAudio, resampling and segmenter. Needs the Debian packages of scripts/test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from streaming_subjects import Harkd, Package, compare, load_streaming, peers_of  # noqa: E402

from daemon_process import Daemon  # noqa: E402 - the tests' servers serve here, too
from harkd.bench_machine import this_machine  # noqa: E402
from harkd.bench_measure import Spread, read_samples, spread_of  # noqa: E402
from harkd.bench_words import WordErrors, count_errors, load_normalizer  # noqa: E402
from harkd.errors import HarkdError  # noqa: E402
from harkd.model_store import store_of  # noqa: E402
from harkd.settings import Settings  # noqa: E402
from harkd.speech_list import Recording, read_list, spread  # noqa: E402
from servers import Mosquitto, PulseServer, Received, Subscriber  # noqa: E402
from speech import plain  # noqa: E402 - the tests compare in the same way

SETTLE_S = 2.0
"""After the start, so that loading does not count."""


@dataclass(slots=True)
class Utterance:
    """What became of one recording."""

    path: str
    """Its name."""
    said: str
    """What is said in it."""
    finals: list[dict[str, Any]] = field(default_factory=list)
    """Payloads of `transcript`, in order."""
    rejected: list[str] = field(default_factory=list)
    """Reasons of `transcript/rejected`."""
    partials: dict[str, list[str]] = field(default_factory=dict)
    """Texts of `transcript/partial`, in order, by segment."""

    @property
    def text(self) -> str:
        """What was heard."""
        return " ".join(final["text"] for final in self.finals)


@dataclass(frozen=True, slots=True)
class Report:
    """All figures."""

    machine: str
    """Where."""
    model: str
    """Its name."""
    recordings: int
    """All of them."""
    finals_each: dict[int, int]
    """Recordings by their number of finals."""
    rejected: dict[str, int]
    """Segments without text, by reason."""
    plain: WordErrors
    """Lower case, no punctuation."""
    whisper: WordErrors | None
    """After Whisper's normalizer; None where it is not installed."""
    partials_per_final: float
    """On average."""
    partials_again: int
    """Partials that are not the first of their final."""
    grown: int
    """Those of them that begin with the one before, and are longer."""
    finals_kept: int
    """Finals that begin with their last partial."""
    finals_with_partials: int
    """Those that had one."""
    latency_ms: Spread | None
    """From the end of speech to the final's hand-over: `latency_ms` of the finals."""
    against: dict[str, dict[str, int]] = field(default_factory=dict)
    """By subject: recordings, equal texts, equal tokens."""
    as_in_file: int | None = None
    """Recordings of which the daemon's text is that of the file."""


def main() -> None:
    """Read the words of the command line and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--model", required=True, help="a name, or the path of a package")
    parser.add_argument("--category", help="take those of the list that lie in this folder")
    parser.add_argument("--limit", type=int, help="take so many, evenly over the list")
    parser.add_argument("--gap-s", type=float, default=2.0, help="silence after each")
    parser.add_argument("--against-sherpa", action="store_true")
    parser.add_argument("--list", action="store_true", dest="show", help="print each text")
    parser.add_argument("--json", type=Path, help="write all that was found to this file")
    words = parser.parse_args()
    try:
        run(words)
    except HarkdError as error:
        sys.exit(f"streaming_daemon.py: {error}")


def run(words: argparse.Namespace) -> None:
    """Measure and print."""
    listed = [each for each in read_list(words.list) if each.text is not None]
    recordings = spread(
        [each for each in listed if words.category in (None, each.category)], words.limit
    )
    if not recordings:
        sys.exit(f"{words.list} has no such recordings with their text")
    name = str(Path(words.model).resolve()) if Path(words.model).is_dir() else words.model
    found = store_of(Settings()).locate(name)
    package = Package(found.dir, found.manifest)
    machine = str(this_machine())
    with tempfile.TemporaryDirectory() as folder:
        utterances = listen(Path(folder), name, recordings, words.gap_s)
    compared = against_sherpa(package, recordings) if words.against_sherpa else None
    report = report_of(machine, package.manifest.name, utterances, compared)
    print("\n".join(lines_of(report)))
    if words.show:
        print("\n".join(listing(utterances, compared)))
    if words.json:
        whole = {**asdict(report), "utterances": [asdict(each) for each in utterances]}
        if compared:
            whole["as_in_file_texts"] = compared[0]
        words.json.write_text(json.dumps(whole, indent=1), encoding="utf-8")


def listen(folder: Path, model: str, recordings: list[Recording], gap_s: float) -> list[Utterance]:
    """Play each recording to a daemon, and return what it published."""
    for name in ("pulse", "mosquitto", "state"):
        (folder / name).mkdir()
    with PulseServer(folder / "pulse") as pulse, Mosquitto(folder / "mosquitto") as broker:
        env = {
            **pulse.env,
            "HARKD_DEVICE_ID": "bench",
            "HARKD_RECOGNIZER__MODEL": model,
            "HARKD_MQTT__HOST": broker.host,
            "HARKD_MQTT__PORT": str(broker.port),
            "HARKD_STATE__DIR": str(folder / "state"),
        }
        if "HARKD_MODELS" in os.environ:
            env["HARKD_MODELS"] = os.environ["HARKD_MODELS"]
        with (
            Subscriber(broker, "harkd/bench/transcript/#") as subscriber,
            Daemon(env=env, folder=folder) as daemon,
        ):
            daemon.wait_for_log("listening to", 30)
            time.sleep(SETTLE_S)
            begins_ns = []
            for recording in recordings:
                begins_ns.append(time.monotonic_ns())
                if pulse.play(recording.path).wait():
                    sys.exit(f"paplay could not play {recording.path}")
                time.sleep(gap_s)
            messages = subscriber.messages
    utterances = [Utterance(each.path.stem, each.text or "") for each in recordings]
    for message in messages:
        at = sum(begin <= message.received_ns for begin in begins_ns) - 1
        if at >= 0 and not message.retain:
            take(utterances[at], message)
    return utterances


def take(utterance: Utterance, message: Received) -> None:
    """Add a message to the recording that it belongs to."""
    topic = message.topic.split("/", 2)[2]
    if topic in ("transcript", "transcript/missed"):
        utterance.finals.append(json.loads(message.payload))
    elif topic == "transcript/rejected":
        utterance.rejected.append(json.loads(message.payload)["reason"])
    elif topic == "transcript/partial":
        body = json.loads(message.payload)
        utterance.partials.setdefault(body["id"], []).append(body["text"])


Compared = tuple[list[str], dict[str, dict[str, int]], dict[str, list[str]]]


def against_sherpa(package: Package, recordings: list[Recording]) -> Compared:
    """Let harkd's recognizer and sherpa-onnx hear the files."""
    model = load_streaming(package)
    audios = [read_samples(each.path) for each in recordings]
    texts, equal, said = compare(Harkd(model), peers_of(package, model), audios)
    return texts, {name: asdict(each) for name, each in equal.items()}, said


def report_of(
    machine: str, model: str, utterances: list[Utterance], compared: Compared | None
) -> Report:
    """Count."""
    said, heard = [each.said for each in utterances], [each.text for each in utterances]
    normalizer = load_normalizer("en")
    finals = [(final, each) for each in utterances for final in each.finals]
    shown = [(final["text"], each.partials.get(final["id"], [])) for final, each in finals]
    pairs = [pair for _, texts in shown for pair in pairwise(texts)]
    return Report(
        machine=machine,
        model=model,
        recordings=len(utterances),
        finals_each=dict(sorted(Counter(len(each.finals) for each in utterances).items())),
        rejected=dict(Counter(reason for each in utterances for reason in each.rejected)),
        plain=count_errors(said, heard, plain),
        whisper=count_errors(said, heard, normalizer) if normalizer else None,
        partials_per_final=statistics.mean([len(texts) for _, texts in shown] or [0]),
        partials_again=len(pairs),
        grown=sum(len(new) > len(old) and new.startswith(old) for old, new in pairs),
        finals_kept=sum(bool(texts) and text.startswith(texts[-1]) for text, texts in shown),
        finals_with_partials=sum(bool(texts) for _, texts in shown),
        latency_ms=spread_of([final["latency_ms"] for final, _ in finals]),
        against=compared[1] if compared else {},
        as_in_file=sum(map(str.__eq__, heard, compared[0])) if compared else None,
    )


def lines_of(report: Report) -> list[str]:
    """Return the report for people."""
    each = ", ".join(f"{count} with {finals}" for finals, count in report.finals_each.items())
    lines = [
        report.machine,
        f"{report.model}: {report.recordings} recordings through PulseAudio and MQTT",
        f"finals: {each}; rejected: {report.rejected or 'none'}",
        *(
            f"word errors, {name}: {e.percent} % of {e.words} words ({e.substitutions} "
            f"substitutions, {e.deletions} deletions, {e.insertions} insertions)"
            for name, e in (("plain", report.plain), ("whisper", report.whisper))
            if e
        ),
        f"partials for each final: {report.partials_per_final:.1f}; of {report.partials_again} "
        f"that are not the first, {report.grown} have grown",
        f"finals that begin with their last partial: {report.finals_kept} of "
        f"{report.finals_with_partials}",
    ]
    if ms := report.latency_ms:
        lines.append(
            f"end of speech to final: {ms.p50:.0f} ms median, {ms.p95:.0f} ms p95, "
            f"{ms.most:.0f} ms at most"
        )
    lines += [
        f"files, harkd and {name}: {count['texts']} of {count['recordings']} texts equal, "
        f"{count['tokens']} token sequences"
        for name, count in report.against.items()
    ]
    if report.as_in_file is not None:
        lines.append(f"daemon's text is that of the file: {report.as_in_file}")
    return lines


def listing(utterances: list[Utterance], compared: Compared | None) -> list[str]:
    """Return each recording with its texts."""
    lines = []
    for number, each in enumerate(utterances):
        same = "=" if plain(each.said) == plain(each.text) else "≠"
        lines += [f"{same} {each.path}", f"    said   {each.said}", f"    heard  {each.text}"]
        if compared and compared[0][number] != each.text:
            lines.append(f"    file   {compared[0][number]}")
        for name, texts in (compared[2] if compared else {}).items():
            if compared and texts[number] != compared[0][number]:
                lines.append(f"    {name}: {texts[number]}")
        lines += [f"    rejected: {reason}" for reason in each.rejected]
    return lines


if __name__ == "__main__":
    main()
