"""The log: for a person on a terminal, for a program otherwise, and never a secret in it."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pytest

import harkd
from harkd import messages
from harkd.errors import HarkdError
from harkd.events import Final, Rejected, RejectReason, State, StateChanged
from harkd.logs import set_up
from harkd.messages import About
from harkd.mqtt_connection import Address, Connection, Inbox
from harkd.publisher import Publisher
from harkd.sinks import log_event
from log_schema import held_to_schema, schema
from servers import free_port, wait_until

SECRET = "correct horse battery staple"  # noqa: S105 - looked for in the log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log() -> logging.Logger:
    return logging.getLogger("harkd.test")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """All lines, each held to docs/log-schema.json."""
    return [held_to_schema(line) for line in stream.getvalue().splitlines()]


# ------------------------------------------------------------------ JSON


def test_json_is_one_object_a_line_in_the_elastic_common_schema(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream, "kitchen")
    before = datetime.now(UTC)
    log.info("hello %s", "world")
    log.warning("two\nlines")
    first, second = lines(stream)
    assert list(first)[:3] == ["@timestamp", "log.level", "message"], "what a person looks for"
    assert (
        first.items()
        >= {
            "log.level": "info",
            "message": "hello world",
            "log.logger": "harkd.test",
            "process.pid": os.getpid(),
            "process.thread.name": "MainThread",
            "service.version": harkd.__version__,
            "harkd.device_id": "kitchen",
        }.items()
    )
    assert (second["log.level"], second["message"]) == ("warning", "two\nlines")
    moment = datetime.fromisoformat(first["@timestamp"])
    assert abs((moment - before).total_seconds()) < 5


def test_a_records_fields_become_keys_below_harkd(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream, "kitchen")
    fields = {"latency_ms": 412, "reason": Path("/x"), "text": "Küche 💡", "device_id": "bath"}
    log.info("said", extra={"fields": fields})
    (entry,) = lines(stream)
    assert entry["harkd.latency_ms"] == 412
    assert entry["harkd.reason"] == "/x", "what JSON does not know is written as text"
    assert entry["harkd.device_id"] == "bath", "one process may hear several microphones"
    assert "Küche 💡" in stream.getvalue()


def test_what_happened_is_told_to_programs_too() -> None:
    """Without a device: `harkd transcribe` is nobody's ear."""
    stream = io.StringIO()
    set_up("debug", "json", stream)
    now, ident = datetime.now(UTC), "01KAQ5T0G4Z3J6M8N9P1R2S3T4"
    lost = StateChanged(
        State.NO_MICROPHONE, now, "the microphone was unplugged", problem="unplugged"
    )
    log_event(lost)
    log_event(Final(ident, 3, "Lights on.", 0.91, now, now, 1.2, 0, 0, "en", "tiny"))
    log_event(Rejected(ident, RejectReason.TOO_SHORT, now, 0.1))
    state, final, rejected = lines(stream)
    assert (state["harkd.event"], state["harkd.state"]) == ("state", "no_microphone")
    assert state["harkd.reason"] == "the microphone was unplugged"
    assert state["harkd.problem"] == "unplugged"
    assert (final["harkd.event"], final["harkd.text"]) == ("final", "Lights on.")
    assert (final["harkd.id"], final["harkd.rev"], final["harkd.confidence"]) == (ident, 3, 0.91)
    assert (rejected["harkd.event"], rejected["harkd.reason"]) == ("rejected", "too_short")
    assert "harkd.device_id" not in final


def test_an_exception_stays_on_its_line(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    try:
        raise HarkdError("it is broken", "mend it")
    except HarkdError:
        log.exception("failed")
    (entry,) = lines(stream)
    assert (entry["message"], entry["error.type"]) == ("failed", "HarkdError")
    assert entry["error.message"] == "it is broken. Mend it."
    assert entry["error.stack_trace"].startswith("Traceback")
    assert "HarkdError: it is broken. Mend it." in entry["error.stack_trace"]


def test_the_schema_refuses_what_it_does_not_know(log: logging.Logger) -> None:
    stream = io.StringIO()
    set_up("info", "json", stream)
    log.info("hello", extra={"fields": {"colour": "red"}})
    with pytest.raises(AssertionError, match=r"harkd\.colour"):
        lines(stream)


def test_the_schema_holds_all_fields_that_any_module_adds() -> None:
    """Elasticsearch guesses a field's type from its first value, and keeps it."""
    known = {name.removeprefix("harkd.") for name in schema()["properties"]}
    added = set()
    for path in Path(harkd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.keyword(arg="extra", value=ast.Dict(values=[ast.Dict(keys=keys)])):
                    added |= {key.value for key in keys if isinstance(key, ast.Constant)}
    assert {"event", "id", "text", "reason"} <= added, "they are looked for in the right way"
    assert added <= known


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
    assert held_to_schema(line.removeprefix("<4>"))["log.level"] == "warning"


def test_a_line_end_of_unicode_ends_no_line_of_json(log: logging.Logger, journal: TextIO) -> None:
    set_up("info", "json", journal)
    log.info("one\u2028two\x85three")
    journal.seek(0)
    (line,) = journal.read().rstrip("\n").split("\n")
    assert held_to_schema(line.removeprefix("<6>"))["message"] == "one\u2028two\x85three"


def test_stderr_that_was_led_elsewhere_is_not_the_journal(
    log: logging.Logger, journal: TextIO, tmp_path: Path
) -> None:
    """$JOURNAL_STREAM is inherited, also by who redirects stderr to a file."""
    with (tmp_path / "file").open("w+") as stream:
        set_up("info", "auto", stream)
        log.info("hello")
        (line,) = read(stream)
    assert held_to_schema(line)["message"] == "hello"
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
    assert entry["log.level"] == "warning"
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
    levels = [entry["log.level"] for entry in lines(stream)]
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
