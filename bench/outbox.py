"""What the outbox costs: latency of finals through it, and memory over many of them.

    .venv/bin/python bench/outbox.py latency [--finals 600] [--folder DIR] [--memory]
    .venv/bin/python bench/outbox.py memory [--finals 100000] [--folder DIR]

`latency` publishes 10 finals a second through a real mosquitto on loopback and prints the time from
the hand-over to the publisher to a subscriber's receipt. `memory` sends many finals through the
outbox, a thousand of which always wait, to a broker that is away at first, and prints the resident
memory on the way. Each prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from finals import final  # noqa: E402 - the tests' servers serve here, too
from harkd.messages import About  # noqa: E402
from harkd.mqtt_connection import Address  # noqa: E402
from harkd.outbox import Outbox  # noqa: E402
from harkd.publisher import Publisher  # noqa: E402
from servers import Mosquitto, Subscriber, wait_until  # noqa: E402

ABOUT = About("harkd", "bench", "0", "tiny", "cpu", retain_last=True, max_age_s=30)
RATE_HZ = 10.0
WAITING = 1000


def percentile(values: list[float], share: float) -> float:
    """The value that this share does not exceed, in milliseconds."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 2)


def latency(folder: Path, finals: int, in_memory: bool) -> dict[str, object]:
    """Hand-over → receipt of the transcript, in milliseconds."""
    given_ns: dict[str, int] = {}
    with Mosquitto(folder) as broker, Subscriber(broker, ABOUT.topic("transcript")) as subscriber:
        outbox = Outbox(None if in_memory else folder / "outbox.sqlite")
        publisher = Publisher(Address(broker.host, broker.port, "bench"), "5", ABOUT, outbox)
        publisher.start()
        publisher.connected.wait(5)
        begin_s = time.monotonic()
        for number in range(finals):
            time.sleep(max(0.0, begin_s + number / RATE_HZ - time.monotonic()))
            given_ns[f"{number}"] = now_ns = time.monotonic_ns()
            publisher.publish(final(f"{number}", spoken_ns=now_ns))
        wait_until(lambda: len(subscriber.messages) >= finals, "the last", 10)
        publisher.stop()
        took_ms = [
            (each.received_ns - given_ns[json.loads(each.payload)["id"]]) / 1e6
            for each in subscriber.messages
        ]
    return {
        "finals": len(took_ms),
        "on_disk": outbox.on_disk,
        "p50_ms": percentile(took_ms, 0.5),
        "p99_ms": percentile(took_ms, 0.99),
        "max_ms": percentile(took_ms, 1.0),
    }


def memory(folder: Path, finals: int) -> dict[str, object]:
    """Resident memory while many finals go through, in MB."""
    process = psutil.Process()
    resident: list[float] = []
    outbox = Outbox(folder / "outbox.sqlite")
    with Mosquitto(folder) as broker:
        publisher = Publisher(Address(broker.host, broker.port, "bench"), "5", ABOUT, outbox)

        def waits(most: int) -> Callable[[], bool]:
            return lambda: publisher.outbox_facts().waiting <= most

        publisher.start()
        begin_s = time.monotonic()
        broker.kill()
        for number in range(finals):
            if number == WAITING:
                broker.start()
            if number >= WAITING and number % 100 == 0:
                wait_until(waits(WAITING), "room", 60)
            publisher.publish(final(f"{number}", spoken_ns=time.monotonic_ns()))
            if number % (finals // 10) == finals // 10 - 1:
                resident.append(round(process.memory_info().rss / 1e6, 1))
        wait_until(waits(0), "the last acknowledgement", 60)
        facts = publisher.outbox_facts()
        publisher.stop()
    return {
        "finals": finals,
        "seconds": round(time.monotonic() - begin_s, 1),
        "dropped": facts.dropped,
        "waiting": facts.waiting,
        "on_disk": facts.on_disk,
        "rss_mb": resident,
        "rss_mb_at_end": round(process.memory_info().rss / 1e6, 1),
        "file_mb": round((folder / "outbox.sqlite").stat().st_size / 1e6, 2),
    }


def main() -> None:
    """Read the words of the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["latency", "memory"])
    parser.add_argument("--finals", type=int, help="how many; 600 for latency, else 100000")
    parser.add_argument("--folder", type=Path, help="the disk that is measured; else the system's")
    parser.add_argument("--memory", action="store_true", help="latency without the disk")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        if words.what == "latency":
            figures = latency(Path(name), words.finals or 600, words.memory)
        else:
            figures = memory(Path(name), words.finals or 100_000)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
