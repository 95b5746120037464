"""The log: for a person on a terminal, for a program otherwise, and never a secret in it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import pytest

from harkd import messages
from harkd.errors import HarkdError
from harkd.logs import set_up
from harkd.messages import About
from harkd.mqtt_connection import Address, Connection, Inbox
from harkd.publisher import Publisher
from servers import free_port, wait_until

SECRET = "correct horse battery staple"  # noqa: S105 - looked for in the log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leaves logging as it was: `set_up` is for the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("harkd")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    logging.captureWarnings(False)


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("harkd.test")


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# ------------------------------------------------------------------ JSON


def test_json_is_one_object_a_line_with_time_level_logger_and_message(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    before = datetime.now(UTC)
    log.info("hello %s", "world")
    log.warning("two\nlines")
    first, second = lines(stream)
    assert set(first) == {"time", "level", "logger", "message"}
    assert (first["level"], first["logger"], first["message"]) == (
        "info",
        "harkd.test",
        "hello world",
    )
    assert (second["level"], second["message"]) == ("warning", "two\nlines")
    moment = str(first["time"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert abs((datetime.fromisoformat(moment) - before).total_seconds()) < 5


def test_a_records_fields_become_keys(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    fields = {"id": "01JDA7", "latency_ms": 412, "path": Path("/x"), "text": "Küche 💡"}
    log.info("said", extra={"fields": fields})
    (entry,) = lines(stream)
    assert entry["id"] == "01JDA7"
    assert entry["latency_ms"] == 412
    assert entry["path"] == "/x", "what JSON does not know is written as text"
    assert "Küche 💡" in stream.getvalue()


def test_fields_never_hide_the_time_the_level_or_the_message(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    log.error("broken", extra={"fields": {"message": "fine", "level": "info", "time": 0}})
    (entry,) = lines(stream)
    assert (entry["message"], entry["level"]) == ("broken", "error")
    assert entry["time"] != 0


def test_an_exception_stays_on_its_line(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    try:
        raise HarkdError("it is broken", "mend it")
    except HarkdError:
        log.exception("failed")
    (entry,) = lines(stream)
    assert str(entry["exception"]).startswith("Traceback")
    assert "HarkdError: it is broken. Mend it." in str(entry["exception"])


# ------------------------------------------------------------------ for a person


def test_a_persons_line_is_the_time_and_the_message(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("debug", "human", stream)
    log.info("listening")
    log.debug("a detail")
    log.warning("lost the broker")
    listening, detail, lost = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d listening", listening)
    assert re.fullmatch(r"\d\d:\d\d:\d\d debug: a detail", detail)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: lost the broker", lost)


def test_warnings_and_errors_are_coloured_on_a_terminal_only(log: logging.Logger) -> None:
    for stream, coloured in ((Terminal(), True), (io.StringIO(), False)):
        set_up("info", "human", stream)
        log.info("plain")
        log.error("red")
        plain, red = stream.getvalue().splitlines()
        assert "\x1b" not in plain
        assert ("\x1b[31m" in red and red.endswith("\x1b[0m")) == coloured


def test_an_exception_follows_its_line(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "human", stream)
    try:
        raise HarkdError("it is broken")
    except HarkdError:
        log.exception("failed")
    assert "error: failed\nTraceback" in stream.getvalue()


def test_auto_is_for_a_person_on_a_terminal_and_json_otherwise(log: logging.Logger) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    set_up("info", "auto", terminal)
    log.info("hello")
    set_up("info", "auto", pipe)
    log.info("hello")
    assert not terminal.getvalue().startswith("{")
    assert lines(pipe)[0]["message"] == "hello"


# ------------------------------------------------------------------ the journal


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A stream that systemd says is the journal's."""
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        yield stream


def read(stream: TextIO) -> list[str]:
    stream.flush()
    stream.seek(0)
    return stream.read().splitlines()


def test_in_the_journal_lines_are_for_a_person_with_levels_and_without_times(
    log: logging.Logger, journal: TextIO
) -> None:
    set_up("debug", "auto", journal)
    log.debug("a detail")
    log.info("listening to the desk")
    log.warning("lost the broker")
    log.error("broken")
    log.critical("the end")
    assert read(journal) == [
        "<7>debug: a detail",
        "<6>listening to the desk",
        "<4>warning: lost the broker",
        "<3>error: broken",
        "<2>critical: the end",
    ]


def test_in_the_journal_each_line_of_an_exception_has_the_level(
    log: logging.Logger, journal: TextIO
) -> None:
    set_up("info", "auto", journal)
    try:
        raise HarkdError("it is broken")
    except HarkdError:
        log.exception("failed")
    found = read(journal)
    assert found[0] == "<3>error: failed"
    assert len(found) > 2
    assert all(line.startswith("<3>") for line in found)


def test_json_in_the_journal_keeps_its_time_and_has_the_level(
    log: logging.Logger, journal: TextIO
) -> None:
    set_up("info", "json", journal)
    log.warning("lost")
    (line,) = read(journal)
    assert line.startswith("<4>{")
    assert set(json.loads(line[3:])) == {"time", "level", "logger", "message"}


def test_stderr_that_was_led_elsewhere_is_not_the_journal(
    log: logging.Logger, journal: TextIO, tmp_path: Path
) -> None:
    """$JOURNAL_STREAM is inherited, also by who redirects stderr to a file."""
    with (tmp_path / "file").open("w+") as stream:
        set_up("info", "auto", stream)
        log.info("hello")
        (line,) = read(stream)
    assert json.loads(line)["message"] == "hello"
    assert not read(journal)


# ------------------------------------------------------------------ how much


def test_the_level_is_harkds_own_and_libraries_speak_up_from_warning_on(
    log: logging.Logger,
) -> None:
    stream = io.StringIO()
    set_up("debug", "json", stream)
    log.debug("ours")
    logging.getLogger("paho").info("chatter")
    logging.getLogger("paho").warning("trouble")
    set_up("error", "json", stream)
    log.warning("not wanted")
    assert [entry["message"] for entry in lines(stream)] == ["ours", "trouble"]


def test_setting_up_again_does_not_double_the_lines(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    set_up("info", "json", stream)
    log.info("once")
    assert len(lines(stream)) == 1


def test_a_librarys_python_warning_is_a_log_line() -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (entry,) = lines(stream)
    assert entry["level"] == "warning"
    assert "old" in str(entry["message"])


# ------------------------------------------------------------------ secrets


def test_an_address_never_shows_its_password() -> None:
    address = Address("broker", 1883, "harkd-kitchen", "ha", SECRET)
    for shown in (repr(address), str(address), f"{address}", f"{[address]}"):
        assert SECRET not in shown
    assert "ha" in repr(address)
    assert address.password == SECRET


def test_a_password_is_in_no_line_of_a_publisher_that_cannot_connect() -> None:
    stream = io.StringIO()
    set_up("debug", "json", stream)
    about = About("harkd", "kitchen", "0", "m", "", True, 30)
    publisher = Publisher(
        Address("127.0.0.1", free_port(), "harkd-kitchen", "ha", SECRET),
        "auto",
        about,
        jitter=lambda: 0.01,
    )
    publisher.start()
    wait_until(lambda: stream.getvalue().count("nothing listens") >= 3, "attempts", 5)
    publisher.stop()
    assert SECRET not in stream.getvalue()
    levels = [entry["level"] for entry in lines(stream)]
    assert levels[0] == "warning"
    assert set(levels[1:]) == {"debug"}, "the first failure is news, the repeats are not"


def test_a_password_is_not_in_the_traceback_of_a_failed_connection() -> None:
    address = Address("127.0.0.1", free_port(), "harkd-kitchen", "ha", SECRET)
    will = messages.availability(About("harkd", "kitchen", "0", "m", "", True, 30), online=False)
    stream = io.StringIO()
    set_up("info", "json", stream)
    try:
        Connection(address, "5", will, Inbox()).open()
    except HarkdError:
        logging.getLogger("harkd").exception("no broker")
    assert "nothing listens" in stream.getvalue()
    assert SECRET not in stream.getvalue()
