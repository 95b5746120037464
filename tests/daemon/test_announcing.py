"""When Home Assistant is told, and how what was told is taken back. Time is injected."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harkd import announcing, discovery
from harkd.announcing import Announced, Announcer, timer
from harkd.discovery import Device, Variant
from harkd.messages import About, Message
from harkd.mqtt_connection import Received

ONLINE = Received("homeassistant/status", b"online", retained=False)


def device(device_id: str = "kitchen", *intents: str) -> Device:
    about = About("harkd", device_id, "0.1.0", "tiny", "cpu", retain_last=True, max_age_s=30)
    return Device(about, "PC", (100, 5000), intents=intents)


def topics(variant: Variant, prefix: str = "homeassistant", device_id: str = "kitchen") -> set[str]:
    return {m.topic for m in discovery.announcements(variant, prefix, device(device_id))}


@dataclass
class Clock:
    """Timers that fire when a test says so."""

    now_s: float = 0.0
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def later(self, delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
        entry = (self.now_s + delay_s, action)
        self.due.append(entry)
        return lambda: self.due.remove(entry) if entry in self.due else None

    def advance(self, by_s: float) -> None:
        end_s = self.now_s + by_s
        while ready := [entry for entry in self.due if entry[0] <= end_s]:
            entry = min(ready, key=lambda one: one[0])
            self.due.remove(entry)
            self.now_s = entry[0]
            entry[1]()
        self.now_s = end_s


class Broker:
    """What came to the broker, in order, and when; it stands in for the publisher, too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.connected = threading.Event()
        self.came: list[tuple[float, Message]] = []
        self.kept: dict[str, Message] = {}

    def send(self, message: Message) -> None:
        if self.connected.is_set():
            self.came.append((self._clock.now_s, message))

    def keep(self, message: Message) -> None:
        self.kept[message.topic] = message
        self.send(message)

    def forget(self, topic: str) -> None:
        self.kept.pop(topic, None)

    def repeat(self) -> None:
        for message in self.kept.values():
            self.send(message)

    def connect(self) -> None:
        self.connected.set()
        self.repeat()

    @property
    def retained(self) -> set[str]:
        """Topics on which the broker keeps something."""
        last = {m.topic: m.payload for _, m in self.came if m.retain}
        return {topic for topic, payload in last.items() if payload}

    def sent(self, payload: bytes) -> set[str]:
        """Topics to which this was sent."""
        return {message.topic for _, message in self.came if message.payload == payload}


@dataclass
class House:
    """An announcer and its surroundings; may be started again with other settings."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.broker = Broker(self.clock)
        self.broker.connect()

    def start(
        self,
        variant: Variant = "device",
        prefix: str = "homeassistant",
        device_id: str = "kitchen",
        wait_s: float = 10,
    ) -> Announcer:
        self.broker.kept.clear()
        announcer = Announcer(
            variant,
            prefix,
            self.broker,
            Announced(self.folder),
            later=self.clock.later,
            jitter=lambda: 0.5,
        )
        announcer.announce(device(device_id))
        self.clock.advance(wait_s)
        return announcer


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state")


def known(house: House, *announced: str) -> None:
    """As if these had been announced by a run before."""
    Announced(house.folder).write(announced)


# --------------------------------------------------------------------------------------- announcing


def test_a_known_device_is_announced_at_once_and_at_each_connect(house: House) -> None:
    known(house, *topics("device"))
    house.start(wait_s=0)
    assert house.broker.retained == topics("device") == set(house.broker.kept)
    assert house.broker.sent(b"") == set()


def test_it_is_announced_when_the_broker_is_there(house: House) -> None:
    house.broker.connected.clear()
    known(house, *topics("component"))
    house.start(wait_s=3600)
    assert house.broker.came == []
    house.broker.connect()
    house.clock.advance(announcing.LOOK_MOST_S + 3 * announcing.SETTLE_S)
    assert house.broker.retained == topics("device")


def test_a_new_device_is_there_within_two_seconds_of_the_connection(house: House) -> None:
    house.start(wait_s=0)
    house.clock.advance(1.5)
    assert house.broker.retained == topics("device")


# --------------------------------------------------------------------------- Home Assistant's birth


def test_at_its_birth_everything_is_told_again_after_a_moment(house: House) -> None:
    known(house, *topics("device"))
    announcer = house.start()
    house.broker.keep(Message("harkd/kitchen/state", b"{}", 1, retain=True))
    house.broker.came.clear()
    begin_s = house.clock.now_s
    announcer.take(ONLINE)
    announcer.take(ONLINE)
    house.clock.advance(60)
    came = [(at_s - begin_s, message.topic) for at_s, message in house.broker.came]
    assert came == [(2.5, *topics("device")), (2.5, "harkd/kitchen/state")]


@pytest.mark.parametrize("jitter", [0.0, 0.999])
def test_the_moment_is_random_and_at_most_five_seconds(house: House, jitter: float) -> None:
    known(house, *topics("device"))
    announcer = Announcer(
        "device",
        "homeassistant",
        house.broker,
        Announced(house.folder),
        later=house.clock.later,
        jitter=lambda: jitter,
    )
    announcer.take(ONLINE)
    assert [at_s for at_s, _ in house.clock.due] == [pytest.approx(5 * jitter)]


@pytest.mark.parametrize(
    "received",
    [
        Received("homeassistant/status", b"offline", retained=False),
        Received("homeassistant/status", b"", retained=False),
        Received("homeassistant/status", b"\xff\xfe", retained=False),
        # Connecting has told everything already.
        Received("homeassistant/status", b"online", retained=True),
    ],
)
def test_nothing_else_is_a_birth(house: House, received: Received) -> None:
    known(house, *topics("device"))
    announcer = house.start()
    house.broker.came.clear()
    announcer.take(received)
    house.clock.advance(60)
    assert house.broker.came == []


def test_its_topic_has_the_prefix_and_nobody_listens_where_discovery_is_off(house: House) -> None:
    assert list(house.start(prefix="home/assistant").topics) == ["home/assistant/status"]
    assert list(house.start("off").topics) == []


def test_after_the_end_nothing_is_told(house: House) -> None:
    known(house, *topics("device"))
    announcer = house.start(wait_s=0)
    announcer.take(ONLINE)
    announcer.stop()
    house.broker.came.clear()
    announcer.take(ONLINE)
    house.clock.advance(60)
    assert house.broker.came == []


# -------------------------------------------------------------------------------------- taking back


@pytest.mark.parametrize("variant", ["device", "component"])
def test_turned_off_it_takes_back_what_a_run_before_announced(
    house: House, variant: Variant
) -> None:
    house.start(variant)
    assert house.broker.retained == topics(variant)
    house.start("off")
    assert house.broker.retained == set()
    house.broker.came.clear()
    house.start("off")
    assert house.broker.came == [], "once is enough"


@pytest.mark.parametrize(
    "other",
    [{"device_id": "attic"}, {"prefix": "home"}, {"prefix": "home", "device_id": "attic"}],
)
def test_another_name_or_prefix_takes_the_old_one_back_first(
    house: House, other: dict[str, str]
) -> None:
    house.start()
    house.broker.came.clear()
    house.start("device", **other)  # type: ignore[arg-type]
    assert house.broker.retained == topics("device", **other)
    course = [bool(message.payload) for _, message in house.broker.came]
    assert course == [False, True]
    assert house.broker.sent(b'{"migrate_discovery":true}') == set()


def test_what_an_earlier_version_announced_is_taken_back(house: House) -> None:
    old = "homeassistant/light/harkd_kitchen/lamp/config"
    known(house, old, *topics("device"))
    house.start()
    assert house.broker.sent(b"") == {old}
    assert Announced(house.folder).read() == topics("device")


@pytest.mark.parametrize("way", [("device", "component"), ("component", "device")])
def test_from_one_variant_to_the_other_home_assistant_has_time_for_each_step(
    house: House, way: tuple[Variant, Variant]
) -> None:
    """Farewell, then removal, then the new announcement; it would mix up what comes at once."""
    old, new = way
    house.start(old)
    house.broker.came.clear()
    begin_s = house.clock.now_s
    house.start(new)
    steps: dict[float, set[str]] = {}
    for at_s, message in house.broker.came:
        kind = "removal" if not message.payload else "farewell" if not message.retain else "new"
        steps.setdefault(at_s - begin_s, set()).add(kind)
    assert steps == {0.0: {"farewell"}, 1.0: {"removal"}, 2.0: {"new"}}
    assert house.broker.sent(b'{"migrate_discovery":true}') == topics(old)
    assert house.broker.sent(b"") == topics(old)
    assert house.broker.retained == topics(new)


def test_without_a_memory_the_names_of_this_version_are_taken_back(house: House) -> None:
    house.start("component")
    (house.folder / announcing.FILE).unlink()
    house.start("device")
    assert house.broker.retained == topics("device")


def test_a_connection_that_breaks_meanwhile_lets_it_begin_again(house: House) -> None:
    house.start("component")
    house.broker.came.clear()
    house.start("off", wait_s=0.5)
    house.broker.came.clear()  # as if nothing had arrived
    house.broker.connected.clear()
    house.clock.advance(60)
    house.broker.connect()
    house.clock.advance(10)
    assert house.broker.sent(b"") == topics("component")


@pytest.mark.parametrize("crash_s", [0.0, 0.5, 1.0, 1.5, 2.0, 5.0])
def test_a_crash_at_any_moment_leaves_nothing_behind(house: House, crash_s: float) -> None:
    house.start("component")
    house.start("device", wait_s=crash_s)
    house.clock.due.clear()
    house.start("off")
    assert house.broker.retained == set()


def test_announcing_again_while_it_is_taken_back_ends_in_the_same(house: House) -> None:
    house.start("component")
    announcer = house.start("device", wait_s=1.5)
    announcer.announce(device())
    house.clock.advance(10)
    assert house.broker.retained == topics("device")


# ----------------------------------------------------------------------------------- other phrases

COMMANDS = "homeassistant/event/harkd_kitchen/command/config"


def test_other_intents_are_announced_at_once(house: House) -> None:
    announcer = house.start()
    house.broker.came.clear()
    announcer.announce(device("kitchen", "on", "off"))
    ((_, message),) = house.broker.came
    assert json.loads(message.payload)["components"]["command"]["event_types"] == ["on", "off"]


def test_without_intents_the_entity_is_taken_back_and_does_not_come_again(house: House) -> None:
    announcer = house.start("component")
    announcer.announce(device("kitchen", "on"))
    assert COMMANDS in house.broker.retained
    house.broker.came.clear()
    announcer.announce(device())
    house.clock.advance(10)
    assert house.broker.sent(b"") == {COMMANDS}
    assert house.broker.sent(b'{"migrate_discovery":true}') == set(), "it does not go on elsewhere"
    house.broker.came.clear()
    house.broker.connect()
    assert house.broker.retained == topics("component")
    assert Announced(house.folder).read() == topics("component")


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
def test_intents_that_come_back_while_the_entity_is_taken_back_stay(
    house: House, after_s: float
) -> None:
    announcer = house.start("component")
    announcer.announce(device("kitchen", "on"))
    announcer.announce(device())
    house.clock.advance(after_s)
    announcer.announce(device("kitchen", "on"))
    house.clock.advance(60)
    assert house.broker.retained == topics("component") | {COMMANDS}
    assert set(house.broker.kept) == topics("component") | {COMMANDS}
    house.start("off")
    assert house.broker.retained == set()


# --------------------------------------------------------------------------------------- the memory


def test_the_memory_is_a_private_file_that_is_written_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    Announced(folder).write(["b/device/harkd_b/config", "a/device/harkd_a/config"])
    content = (folder / announcing.FILE).read_bytes()
    assert json.loads(content) == {"topics": ["a/device/harkd_a/config", "b/device/harkd_b/config"]}
    assert [path.name for path in folder.iterdir()] == [announcing.FILE]
    assert folder.stat().st_mode & 0o077 == 0


def test_topics_of_others_in_it_are_never_touched(house: House) -> None:
    known(house, "homeassistant/sensor/zigbee/config", "harkd/kitchen/state", *topics("device"))
    house.start("off")
    assert house.broker.sent(b"") == topics("device")


def test_a_folder_that_cannot_be_written_is_reported_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    house = House(tmp_path / "file" / "state")
    house.start()
    assert house.broker.retained == topics("device")
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "state.dir" in warning.getMessage()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b'{"topics": [1]}'))
def test_whatever_is_in_the_file_the_device_is_announced(tmp_path: Path, content: bytes) -> None:
    house = House(tmp_path)
    (tmp_path / announcing.FILE).write_bytes(content)
    house.start()
    assert house.broker.retained == topics("device")


# ----------------------------------------------------------------------------------------- the edge


def test_a_timer_fires_on_a_thread_of_its_own_unless_it_is_cancelled() -> None:
    fired = threading.Event()
    names: list[str] = []

    def fire() -> None:
        names.append(threading.current_thread().name)
        fired.set()

    timer(60, fire)()
    timer(0, fire)
    assert fired.wait(5)
    assert names == ["announcing"]


@pytest.mark.parametrize(
    ("content", "name"), [("Raspberry Pi 4 Model B Rev 1.4\0", "Raspberry Pi 4 Model B Rev 1.4")]
)
def test_a_board_has_its_name(tmp_path: Path, content: str, name: str) -> None:
    board = tmp_path / "model"
    board.write_text(content)
    assert announcing.this_machine(board) == name


def test_what_is_no_board_has_the_name_of_its_processor(tmp_path: Path) -> None:
    assert announcing.this_machine(tmp_path / "none")
