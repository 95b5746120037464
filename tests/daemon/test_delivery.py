"""Which final is sent when: the disk, the connection and the clock are the test's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finals import final
from harkd import delivery
from harkd.delivery import AT_HAND, BLAMED_MOST, DISK_S, REFUSED_S, WINDOW, Delivery
from harkd.events import PhraseMatch
from harkd.messages import About, Message
from harkd.outbox_file import Kept

ABOUT = About("harkd", "kitchen", "0.1.0", "tiny", "CPU", retain_last=True, max_age_s=30)
NOT_AUTHORIZED, QUOTA, FORMAT_INVALID = 0x87, 0x97, 0x99


@dataclass
class Disk:
    """Does what is asked only when told to, as a thread of its own would."""

    rows: dict[int, Kept] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def write(self, kept: Kept) -> None:
        self.asked.append(("write", kept))

    def forget(self, number: int) -> None:
        self.asked.append(("forget", number))

    def read(self, number: int, most: int) -> None:
        self.asked.append(("read", (number, most)))

    def work(self, delivery: Delivery) -> None:
        """Do all that is asked, and what that asks for."""
        while self.asked:
            what, value = self.asked.pop(0)
            if what == "write":
                self.rows[value.number] = value
                delivery.written([value.number])
            elif what == "forget":
                self.rows.pop(value, None)
            else:
                number, most = value
                delivery.read([self.rows[n] for n in sorted(self.rows) if n > number][:most], most)


@dataclass
class Broker:
    """Takes messages and answers when told to."""

    sent: list[tuple[int, Message]] = field(default_factory=list)
    unanswered: list[tuple[int, Message]] = field(default_factory=list)
    gone: bool = False

    def send(self, message: Message) -> int | None:
        if self.gone:
            return None
        self.sent.append((len(self.sent) + 1, message))
        self.unanswered.append(self.sent[-1])
        return len(self.sent)

    def on(self, name: str) -> list[str]:
        """Ids of the finals that came on a topic."""
        topic = ABOUT.topic(name)
        return [json.loads(each.payload)["id"] for _, each in self.sent if each.topic == topic]


class World:
    """A delivery and what is around it."""

    def __init__(self, rows: int = 0) -> None:
        self.now_s = 1000.0
        self.reported: list[str] = []
        self.disk = Disk({n: self.kept(n) for n in range(1 - rows, 1)})
        self.broker = Broker()
        self.delivery = Delivery(
            self.disk,
            lambda: ABOUT,
            lambda: round(self.now_s * 1e9),
            lambda: self.now_s,
            self.reported.append,
        )
        self.delivery.tick()  # as its thread does at first
        self.work()

    def kept(self, number: int, *, aged: bool = True, age_s: float = 0.0) -> Kept:
        spoken_ns = round((self.now_s - age_s) * 1e9)
        return Kept(number, final(f"id-{number}", spoken_ns=spoken_ns), spoken_ns, aged)

    def work(self) -> None:
        self.disk.work(self.delivery)

    def take(self, ident: str) -> None:
        self.delivery.take(final(ident, spoken_ns=round(self.now_s * 1e9)))

    def connect(self) -> Broker:
        self.broker = Broker()
        self.delivery.connected(self.broker)
        self.work()
        return self.broker

    def answer(self, code: Callable[[Message], int] = lambda _message: 0) -> None:
        """Answer all, and what that lets go out."""
        while self.broker.unanswered:
            mid, message = self.broker.unanswered.pop(0)
            self.delivery.answered(mid, code(message))
            self.work()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.delivery.tick()
        self.work()


def refuse(name: str, code: int = NOT_AUTHORIZED) -> Callable[[Message], int]:
    return lambda message: code if message.topic == ABOUT.topic(name) else 0


def names(*numbers: int) -> list[str]:
    return [f"id-{number}" for number in numbers]


# -------------------------------------------------------------------------------- all is well


def test_a_final_is_sent_once_it_is_on_the_disk_and_forgotten_once_it_is_answered() -> None:
    world = World()
    broker = world.connect()
    world.take("one")
    assert broker.sent == []
    world.work()
    assert broker.on("transcript") == ["one"]
    assert not world.delivery.settled
    (first, _), (second, _), (last, _) = broker.sent
    world.delivery.answered(first, 0)
    world.delivery.answered(second, 0)
    assert world.disk.asked == []
    world.delivery.answered(last, 0)
    assert world.disk.asked == [("forget", 1)]
    world.work()
    assert world.delivery.settled


def test_what_waits_goes_out_in_order_a_few_at_a_time_and_new_ones_after_it() -> None:
    world = World(rows=100)
    broker = world.connect()
    world.take("new")
    world.work()
    assert len(broker.on("transcript")) == WINDOW
    assert len(world.delivery._ready) <= AT_HAND
    world.answer()
    assert broker.on("transcript") == [*names(*range(-99, 1)), "new"]
    assert world.disk.rows == {}
    assert world.delivery.settled


def test_a_thousand_finals_of_an_outage_are_not_in_memory() -> None:
    world = World()
    for number in range(1000):
        world.take(f"{number}")
        world.work()
    assert len(world.delivery._ready) + len(world.delivery._unwritten) <= AT_HAND
    broker = world.connect()
    world.answer()
    assert broker.on("transcript") == [f"{number}" for number in range(1000)]


# -------------------------------------------------------------------------------- connections


def test_a_new_connection_gets_all_that_the_old_one_left_unanswered_in_order() -> None:
    world = World()
    old = world.connect()
    for ident in "abcdefgh":
        world.take(ident)
    world.work()
    assert old.on("transcript") == list("abcde")
    for mid, _ in old.unanswered[:5]:  # "a" and a part of "b"
        world.delivery.answered(mid, 0)
    world.delivery.disconnected()
    world.take("i")
    world.work()
    new = world.connect()
    world.answer()
    assert new.on("transcript") == list("bcdefghi")
    assert world.disk.rows == {}


def test_an_answer_of_an_old_connection_counts_for_nothing_on_the_new_one() -> None:
    world = World()
    old = world.connect()
    world.take("a")
    world.work()
    (last, _) = old.sent[-1]
    world.delivery.disconnected()
    world.delivery.answered(last, 0)
    assert 1 in world.disk.rows
    world.connect()
    world.delivery.answered(99, 0)
    assert 1 in world.disk.rows


def test_a_connection_that_ends_in_the_middle_of_a_final_gets_nothing_more() -> None:
    world = World(rows=3)
    world.broker.gone = True
    world.delivery.connected(world.broker)
    world.work()
    assert world.broker.sent == []
    new = world.connect()
    world.answer()
    assert new.on("transcript") == names(-2, -1, 0)


def test_at_a_clean_exit_nothing_more_is_sent_but_answers_count() -> None:
    world = World(rows=10)
    broker = world.connect()
    world.delivery.hold()
    world.answer()
    assert broker.on("transcript") == names(*range(-9, -4))
    assert sorted(world.disk.rows) == [-4, -3, -2, -1, 0]


# ----------------------------------------------------------------------------------- commands


def test_a_command_is_sent_once_with_its_final_and_again_only_if_that_is() -> None:
    world = World()
    broker = world.connect()
    match = PhraseMatch("lights on", "light_on", {}, 0.9, 0.1)
    spoken = final("one", spoken_ns=round(world.now_s * 1e9))
    world.delivery.take(replace(spoken, match=match))
    world.work()
    assert broker.on("transcript") == broker.on("command/light_on") == ["one"]
    for mid, _ in broker.sent[:-1]:
        world.delivery.answered(mid, 0)
    assert world.disk.asked == []
    world.delivery.answered(len(broker.sent), 0)
    assert world.disk.asked == [("forget", 1)]


def test_a_command_that_the_broker_refuses_is_not_tried_again_and_its_final_counts() -> None:
    world = World()
    broker = world.connect()
    match = PhraseMatch("lights on", "light_on", {}, 0.9, 0.1)
    spoken = final("one", spoken_ns=round(world.now_s * 1e9))
    world.delivery.take(replace(spoken, match=match))
    world.work()
    world.answer(refuse("command/light_on"))
    world.wait(2 * REFUSED_S)
    assert broker.on("transcript") == broker.on("command/light_on") == ["one"]
    assert world.disk.rows == {}
    assert world.delivery.settled


def test_a_command_that_no_broker_took_in_time_is_never_sent() -> None:
    world = World()
    match = PhraseMatch("lights on", "light_on", {}, 0.9, 0.1)
    spoken = final("one", spoken_ns=round(world.now_s * 1e9))
    world.delivery.take(replace(spoken, match=match))
    world.work()
    world.connect()  # … and it does not answer
    world.wait(30.1)
    world.delivery.disconnected()
    broker = world.connect()
    world.answer()
    assert broker.on("transcript/missed") == ["one"]
    assert [message.topic for _, message in broker.sent] == [ABOUT.topic("transcript/missed")]


# ---------------------------------------------------------------------------------------- age


def test_old_finals_and_those_of_unknown_age_are_missed_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.disk.rows = {
        -3: world.kept(-3, aged=False),
        -2: world.kept(-2, age_s=30.1),
        -1: world.kept(-1, age_s=-5),  # from the future: nobody knows
        0: world.kept(0, age_s=29.9),
    }
    world.delivery._unread = True
    broker = world.connect()
    world.answer()
    assert broker.on("transcript/missed") == names(-3, -2, -1)
    assert broker.on("transcript") == names(0)
    assert world.disk.rows == {}
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert "from before the machine started" in caplog.text


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("code", [NOT_AUTHORIZED, QUOTA])
def test_a_refused_final_waits_and_is_tried_again_without_holding_up_the_others(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    broker = world.connect()
    for ident in "ab":
        world.take(ident)
    world.work()
    world.answer(refuse("transcript", code))
    assert sorted(world.disk.rows) == [1, 2]
    assert world.delivery.settled, "a clean exit does not wait for them"
    world.take("c")
    world.work()
    world.answer()
    assert broker.on("transcript") == ["a", "b", "c"]
    assert sorted(world.disk.rows) == [1, 2]
    assert world.delivery.due_s() == REFUSED_S
    world.wait(REFUSED_S)
    assert broker.on("transcript/missed") == ["a"], "one, to see whether it is worth while"
    world.answer(refuse("transcript/missed", code))
    world.wait(REFUSED_S / 2)
    world.answer()
    assert broker.on("transcript/missed") == ["a"]
    world.wait(REFUSED_S / 2)
    while world.disk.rows:
        world.answer()
        world.wait(0)
    assert broker.on("transcript/missed") == ["a", "a", "b"]
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(told) == 1
    assert "refused final a" in told[0]


def test_a_refused_final_is_tried_again_at_each_connection() -> None:
    world = World()
    world.connect()
    world.take("a")
    world.work()
    world.answer(refuse("transcript"))
    world.delivery.disconnected()
    assert world.delivery.due_s() is None
    for _ in range(2):
        broker = world.connect()
        world.wait(0)
        assert broker.on("transcript") == ["a"]
        world.delivery.disconnected()
    broker = world.connect()
    world.wait(0)
    world.answer()
    assert world.disk.rows == {}


def test_the_refusal_of_the_conveniences_is_not_the_finals() -> None:
    world = World()
    world.connect()
    world.take("a")
    world.work()
    world.answer(refuse("transcript/last"))
    assert world.disk.rows == {}


def test_a_final_that_no_broker_would_ever_take_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.connect()
    world.take("a")
    world.work()
    world.answer(refuse("transcript", FORMAT_INVALID))
    assert world.disk.rows == {}
    assert world.delivery.dropped == 1
    assert "final a is lost: the broker says payload format invalid" in caplog.text


def test_a_final_that_ends_every_connection_does_not_stand_in_the_others_way_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(rows=3)
    for _ in range(BLAMED_MOST):
        world.connect()
        world.delivery.disconnected()
    broker = world.connect()
    world.answer()
    assert broker.on("transcript") == names(-1, 0)
    assert sorted(world.disk.rows) == [-2], "it is not lost"
    assert "5 connections ended at final id--2" in caplog.text


def test_connections_that_end_after_some_progress_blame_nobody() -> None:
    world = World(rows=20)
    for _ in range(2 * BLAMED_MOST):
        broker = world.connect()
        for mid, _ in broker.unanswered[:3]:
            world.delivery.answered(mid, 0)
        world.delivery.disconnected()
        world.work()
    assert sorted(world.disk.rows) == list(range(-9, 1))
    world.connect()
    world.answer()
    assert world.disk.rows == {}


# ----------------------------------------------------------------------------- a disk that hangs


def test_where_the_disk_hangs_finals_go_out_after_a_while_and_the_next_ones_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    broker = world.connect()
    world.take("a")
    assert world.delivery.due_s() == DISK_S
    world.now_s += DISK_S / 2
    world.take("b")
    world.now_s += DISK_S / 2
    world.delivery.tick()
    assert broker.on("transcript") == ["a"]
    world.now_s += DISK_S / 2
    world.delivery.tick()
    world.take("c")
    assert broker.on("transcript") == ["a", "b", "c"]
    (told,) = world.reported
    assert "the disk has not answered" in told
    assert caplog.text.count(told) == 1
    world.work()
    assert not world.delivery.hangs
    world.answer()
    assert world.disk.rows == {}
    assert broker.on("transcript") == ["a", "b", "c"], "and not once more"
    assert world.delivery.settled


def test_a_final_that_went_ahead_is_not_read_and_sent_again() -> None:
    world = World(rows=100)
    world.take("a")
    world.now_s += DISK_S
    world.delivery.tick()
    broker = world.connect()
    world.answer()
    assert broker.on("transcript").count("a") == 1
    assert sorted(broker.on("transcript")) == sorted([*names(*range(-99, 1)), "a"])


# ---------------------------------------------------------------------------------- the outbox


def test_what_gave_way_to_the_outboxs_bounds_is_not_sent_any_more() -> None:
    world = World(rows=3)
    world.delivery.dropped_by_outbox([-2, -1])
    broker = world.connect()
    assert broker.on("transcript") == names(0)


def test_a_new_file_gets_what_is_under_way() -> None:
    world = World(rows=10)
    world.connect()
    world.disk.rows.clear()
    world.delivery.renewed()
    world.work()
    assert sorted(world.disk.rows) == list(range(-9, 1))
    world.answer()
    assert world.disk.rows == {}


# --------------------------------------------------------------------------------- any course


STEPS = st.lists(
    st.sampled_from(["take", "disk", "connect", "answer", "answer all", "disconnect", "restart"]),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_in_any_course_each_final_arrives_and_first_arrivals_are_in_order(steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "BLAMED_MOST", 10**6)
        run_through(steps)


def run_through(steps: list[str]) -> None:
    world, arrived, taken = World(), list[str](), 0

    def gather() -> None:
        arrived.extend(world.broker.on("transcript"))

    for step in steps:
        match step:
            case "take":
                taken += 1
                world.take(f"{taken}")
            case "disk":
                world.work()
            case "connect":
                gather()
                world.broker = Broker()
                world.delivery.connected(world.broker)
            case "answer" if world.broker.unanswered:
                mid, _ = world.broker.unanswered.pop(0)
                world.delivery.answered(mid, 0)
            case "answer all":
                world.answer()
            case "disconnect":
                gather()
                world.broker = Broker()
                world.delivery.disconnected()
            case "restart":
                gather()
                world.work()
                rows = [world.disk.rows[number] for number in sorted(world.disk.rows)]
                world = World()
                world.disk.rows = {
                    number: Kept(number, each.final, each.kept_ns)
                    for number, each in enumerate(rows, 1 - len(rows))
                }
                world.delivery._unread = True
    gather()
    world.work()
    world.connect()
    world.answer()
    gather()
    assert list(dict.fromkeys(arrived)) == [f"{number}" for number in range(1, taken + 1)]
    assert world.disk.rows == {}
    assert world.delivery.settled
