"""Which phrases are in force: those of the settings, and what was sent in their place."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harkd import phrase_book
from harkd.errors import PhrasesError
from harkd.events import PhraseMatch
from harkd.phrase_book import MOST_FAULTS, InForce, PhraseBook
from harkd.phrases.sent import Sent, read_sent
from harkd.settings import PhrasesSettings
from servers import wait_until

LAMPS = "intents: {on: ['turn on {lamp}'], off: ['turn off {lamp}']}\nlists: {lamp: [lamp]}\n"
GO = b'{"intents":{"go":["go [now]"]}}'


class Rig:
    """A book and what it told; a second one in the same folder is a restart."""

    def __init__(self, folder: Path, options: PhrasesSettings | None = None) -> None:
        self.folder = folder
        self.options = options or PhrasesSettings(file="lamps.yaml")
        self.reported: list[str] = []
        self.told: list[str] = []
        self.changes: list[InForce] = []
        self.book = PhraseBook(
            self.options, folder / "harkd.yaml", folder / "state", report=self.reported.append
        )
        self.book.on_change.append(lambda book: self.changes.append(book.in_force))

    def send(self, payload: object, *, retained: bool = False) -> str:
        """Send it and return what it was answered; empty where it is in force."""
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        answers = len(self.told)
        self.book.replace(raw, self.told.append, retained=retained)
        self.rest(answers + 1)
        return self.told[-1]

    def reload(self, options: PhrasesSettings) -> str:
        answers = len(self.told)
        self.book.reload(options, self.told.append)
        self.rest(answers + 1)
        return self.told[-1]

    def rest(self, answers: int) -> None:
        wait_until(lambda: len(self.told) == answers, f"{answers} answers", 20)

    @property
    def phrases(self) -> set[str]:
        current = self.book.current
        return {match.phrase for match in current.graph.sentences()} if current else set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lamps.yaml").write_text(LAMPS)
    return tmp_path


@pytest.fixture
def rig(folder: Path) -> Iterator[Rig]:
    rig = Rig(folder)
    rig.book.load()
    rig.book.start()
    yield rig
    rig.book.stop()


def again(folder: Path, options: PhrasesSettings | None = None) -> Rig:
    rig = Rig(folder, options)
    rig.book.load()
    return rig


# ------------------------------------------------------------------------ what is in force


def test_at_the_start_it_is_what_the_settings_say(rig: Rig) -> None:
    assert rig.phrases == {"turn on lamp", "turn off lamp"}
    assert rig.book.loaded.is_set()
    assert (rig.book.mode, rig.book.in_force.source) == ("prefer", "settings")
    assert rig.book.in_force.intents == rig.book.in_force.commands == ("on", "off")
    assert rig.book.in_force.templates == 2
    assert rig.changes == [rig.book.in_force]


def test_without_phrases_that_is_told_too(tmp_path: Path) -> None:
    rig = again(tmp_path, PhrasesSettings())
    assert rig.book.current is None
    assert rig.changes == [InForce(None, "prefer", "settings")]


def test_in_open_mode_nothing_is_a_command(folder: Path) -> None:
    rig = again(folder, PhrasesSettings(file="lamps.yaml", mode="open"))
    assert rig.book.in_force.intents == ("on", "off")
    assert rig.book.in_force.commands == ()
    assert rig.book.match("turn on lamp") is None


def test_intents_take_the_place_of_all_and_an_empty_object_goes_back(rig: Rig) -> None:
    assert rig.send({"intents": {"go": ["go"]}, "mode": "only"}) == ""
    assert rig.phrases == {"go"}
    assert (rig.book.mode, rig.book.in_force.source) == ("only", "mqtt")
    assert rig.send({}) == ""
    assert rig.phrases == {"turn on lamp", "turn off lamp"}
    assert (rig.book.mode, rig.book.in_force.source) == ("prefer", "settings")
    assert [change.intents for change in rig.changes] == [("on", "off"), ("go",), ("on", "off")]


def test_lists_take_the_place_of_lists(rig: Rig) -> None:
    assert rig.send({"lists": {"lamp": ["sun"]}}) == ""
    assert rig.phrases == {"turn on sun", "turn off sun"}
    assert rig.book.in_force.source == "settings+mqtt"


def test_what_changes_nothing_is_answered_but_no_change(rig: Rig) -> None:
    assert rig.send(GO) == ""
    assert rig.send(GO) == ""
    assert len(rig.changes) == 2


def test_a_match_is_what_a_text_means(rig: Rig) -> None:
    assert rig.book.match("Turn on, LAMP!") == PhraseMatch(
        "turn on lamp", "on", {"lamp": "lamp"}, 1.0, 0.0
    )
    assert rig.book.match("turn on the sun") is None


# ------------------------------------------------------------------------ faults


def test_a_fault_is_told_once_and_the_old_set_stays(rig: Rig) -> None:
    rig.send(GO)
    told = rig.send({"intents": {"a": ["go [", "{x}"]}})
    first, second = told.splitlines()
    assert first.startswith("phrases/set:1:24: ")
    assert second.startswith('phrases/set:1:29: there is no list "x"')
    assert rig.phrases == {"go", "go now"}
    assert rig.reported == []


def test_very_many_faults_are_not_all_told(rig: Rig) -> None:
    told = rig.send({"intents": {"a": [f"go {{x{n}}}" for n in range(MOST_FAULTS + 5)]}})
    assert len(told.splitlines()) == MOST_FAULTS + 1
    assert told.endswith("\n… and 5 more")


def test_faults_of_the_settings_are_raised_at_the_start(folder: Path) -> None:
    (folder / "lamps.yaml").write_text("intents: {on: ['{x}']}")
    with pytest.raises(PhrasesError, match=r"lamps\.yaml:1:17"):
        again(folder)


def test_what_goes_wrong_in_an_unexpected_way_is_told_and_the_thread_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_payload: bytes) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(phrase_book, "read_sent", fails)
        rig.book.replace(GO, rig.told.append)
        wait_until(lambda: bool(rig.reported), "a report", 20)
    assert "RuntimeError: a bug" in caplog.text
    assert rig.send(GO) == ""


# ------------------------------------------------------------------------ several at once


class Gate:
    """Lets the thread go on with each payload only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Semaphore(0), threading.Semaphore(0)
        monkeypatch.setattr(phrase_book, "read_sent", self.read)

    def read(self, payload: bytes) -> Sent | None:
        self.reached.release()
        assert self.open.acquire(timeout=20)
        return read_sent(payload)


def intents(name: str) -> bytes:
    return json.dumps({"intents": {name: [name]}}).encode()


def test_of_several_that_wait_the_newest_counts_and_the_others_are_not_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    rig.book.replace(intents("one"), rig.told.append)
    gate.reached.acquire()
    for name in ("two", "three", "four"):
        rig.book.replace(intents(name), rig.told.append)
    gate.open.release(2)
    rig.rest(2)
    assert rig.phrases == {"four"}
    assert rig.told == ["", ""]
    assert gate.reached.acquire(blocking=False), "the newest"
    assert not gate.reached.acquire(blocking=False), "and no other"


def test_where_the_newest_has_faults_the_one_before_counts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    rig.book.replace(intents("one"), rig.told.append)
    gate.reached.acquire()
    for payload in (intents("two"), b"{"):
        rig.book.replace(payload, rig.told.append)
    gate.open.release(3)
    rig.rest(3)
    assert rig.phrases == {"two"}
    assert rig.told[0] == rig.told[2] == ""
    assert rig.told[1].startswith("phrases/set:1:2: ")


# ------------------------------------------------------------------------ restarts


def test_what_was_set_survives_a_restart(rig: Rig, folder: Path) -> None:
    rig.send({"intents": {"go": ["go"]}, "mode": "only"})
    restarted = again(folder)
    assert restarted.phrases == {"go"}
    assert (restarted.book.mode, restarted.book.in_force.source) == ("only", "mqtt")
    assert restarted.reported == []


def test_what_was_taken_back_does_not_come_again(rig: Rig, folder: Path) -> None:
    rig.send(GO)
    rig.send({})
    assert again(folder).phrases == {"turn on lamp", "turn off lamp"}


def test_what_has_faults_is_not_kept(rig: Rig, folder: Path) -> None:
    rig.send(GO)
    rig.send(b"{")
    assert again(folder).phrases == {"go", "go now"}


def test_what_the_settings_contradict_at_the_start_is_told_and_not_in_force(
    rig: Rig, folder: Path
) -> None:
    rig.send({"lists": {"lamp": ["sun"]}})
    (folder / "lamps.yaml").write_text("intents: {stop: [stop]}")
    restarted = again(folder)
    assert restarted.phrases == {"stop"}
    (report,) = restarted.reported
    assert report.startswith("phrases that were set over MQTT are not in force: phrases/set:1:12: ")


def test_a_damaged_file_is_renamed_and_told(rig: Rig, folder: Path) -> None:
    rig.send(GO)
    file = folder / "state" / "phrases.json"
    file.write_bytes(file.read_bytes()[:-3])
    restarted = again(folder)
    assert restarted.phrases == {"turn on lamp", "turn off lamp"}
    assert "the file is now phrases.json.damaged" in restarted.reported[0]
    assert not file.exists()


def test_a_folder_that_takes_nothing_is_told_once_and_the_set_holds(
    folder: Path,
) -> None:
    (folder / "state").write_text("a file where the folder should be")
    rig = again(folder)
    assert "cannot be read" in rig.reported.pop()
    rig.book.start()
    try:
        assert rig.send(GO) == ""
        assert rig.send(intents("one")) == ""
    finally:
        rig.book.stop()
    assert rig.phrases == {"one"}
    (report,) = rig.reported
    assert "cannot be kept" in report
    assert "hold until the restart" in report


# ------------------------------------------------------------------------ retained messages


def test_a_retained_message_is_taken_once_over_restarts_too(rig: Rig, folder: Path) -> None:
    assert rig.send(GO, retained=True) == ""
    assert rig.send(intents("one")) == ""
    for book in (rig, again(folder)):
        if book is not rig:
            book.book.start()
        book.book.replace(GO, book.told.append, retained=True)
        book.send({"mode": "loud"})  # … which is behind it, and has a fault
        assert book.phrases == {"one"}
        book.book.stop()
    assert rig.told[:2] == ["", ""]
    assert rig.told[2].startswith('phrases/set:1:2: "mode"')
    assert len(rig.told) == 3


def test_a_retained_message_that_has_faults_is_told_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert rig.send(b"{", retained=True)
    rig.book.replace(b"{", rig.told.append, retained=True)
    assert rig.send(GO) == ""
    assert len(rig.told) == 2


# ------------------------------------------------------------------------ the settings change


def test_a_reload_reads_the_files_again_under_what_was_set(rig: Rig, folder: Path) -> None:
    rig.send({"lists": {"lamp": ["sun"]}})
    (folder / "lamps.yaml").write_text("intents: {dim: ['dim {lamp}']}\nlists: {lamp: [lamp]}\n")
    assert rig.reload(PhrasesSettings(file="lamps.yaml", mode="only")) == ""
    assert rig.phrases == {"dim sun"}
    assert rig.book.mode == "only"


def test_a_reload_with_faults_changes_nothing(rig: Rig, folder: Path) -> None:
    (folder / "lamps.yaml").write_text("intents: {dim: ['dim {lamp}']}\n")
    assert "lamps.yaml:1:22: there is no list" in rig.reload(PhrasesSettings(file="lamps.yaml"))
    assert rig.phrases == {"turn on lamp", "turn off lamp"}
    assert rig.send({"mode": "only"}).startswith(str(folder / "lamps.yaml"))
    assert rig.book.mode == "prefer"


def test_several_books_share_what_is_the_same(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    books = [
        PhraseBook(PhrasesSettings(file="lamps.yaml"), folder / "harkd.yaml", each, report=print)
        for each in (folder / "state", other)
    ]
    for book in books:
        book.load()
    first, second = (book.current for book in books)
    assert first
    assert second
    assert first.graph is second.graph
