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
and what the daemon's segmenter cuts from it between silence, in virtual time. It tells how often
both hear the same, and how often that is what the daemon heard through PulseAudio and resampling.
Needs the Debian packages of scripts/test.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from streaming_compared import Compared, compare_segments  # noqa: E402
from streaming_report import Utterance, lines_of, listing, report_of  # noqa: E402
from streaming_subjects import Harkd, Package, load_streaming, peers_of  # noqa: E402

from daemon_process import Daemon  # noqa: E402 - the tests' servers serve here, too
from harkd.bench_machine import this_machine  # noqa: E402
from harkd.bench_measure import read_samples  # noqa: E402
from harkd.errors import HarkdError  # noqa: E402
from harkd.model_store import store_of  # noqa: E402
from harkd.settings import Settings  # noqa: E402
from harkd.speech_list import Recording, read_list, spread  # noqa: E402
from servers import Mosquitto, PulseServer, Received, Subscriber  # noqa: E402

SETTLE_S = 2.0
"""After the start, so that loading does not count."""


def main() -> None:
    """Read the words of the command line and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--model", required=True, help="a name, or the path of a package")
    parser.add_argument("--category", help="take those of the list that lie in this folder")
    parser.add_argument("--limit", type=int, help="take so many, evenly over the list")
    parser.add_argument("--rate-hz", type=int, default=48_000, help="of the microphone")
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
        utterances = listen(Path(folder), name, recordings, words.rate_hz, words.gap_s)
    compared = against_sherpa(package, recordings) if words.against_sherpa else None
    report = report_of(machine, package.manifest.name, utterances, compared)
    print("\n".join(lines_of(report)))
    if words.show:
        print("\n".join(listing(utterances, compared)))
    if words.json:
        whole = {**asdict(report), "utterances": [asdict(each) for each in utterances]}
        if compared:
            whole["without_daemon"] = asdict(compared)
        words.json.write_text(json.dumps(whole, indent=1), encoding="utf-8")


def listen(
    folder: Path, model: str, recordings: list[Recording], rate_hz: int, gap_s: float
) -> list[Utterance]:
    """Play each recording to a daemon, and return what it published."""
    for name in ("pulse", "mosquitto", "state"):
        (folder / name).mkdir()
    with (
        PulseServer(folder / "pulse", rate_hz=rate_hz) as pulse,
        Mosquitto(folder / "mosquitto") as broker,
    ):
        env = {
            **pulse.env,
            "HARKD_DEVICE_ID": "bench",
            "HARKD_RECOGNIZER__MODEL": model,
            "HARKD_MQTT__HOST": broker.host,
            "HARKD_MQTT__PORT": str(broker.port),
            "HARKD_STATE__DIR": str(folder / "state"),
            # Between recordings a null sink has zeros, which a real room has not.
            "HARKD_AUDIO__ZEROS_S": "0",
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


def against_sherpa(package: Package, recordings: list[Recording]) -> Compared:
    """Let harkd's recognizer and sherpa-onnx hear the files."""
    model = load_streaming(package)
    audios = [read_samples(each.path) for each in recordings]
    return compare_segments(Harkd(model), peers_of(package, model), audios)


if __name__ == "__main__":
    main()
