"""``harkd status``: what the running daemon does, hears and says, live on a terminal.

Figures come from the daemon's `/status` page, texts from its topics at the broker; one of the two
is enough.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from harkd.cli_config import config_option
from harkd.errors import DaemonError, HarkdError
from harkd.settings import Settings, find_file, load

if TYPE_CHECKING:
    from harkd.status_feed import StatusFeed

EVERY_S: Final = 0.25
ASK_S: Final = 2.0
"""How long the daemon may take to answer."""
BROKER_S: Final = 4.0
"""How long a report waits for the broker."""
LOOPBACK: Final = "127.0.0.1"
SUFFIX: Final = "-status"
"""Makes a client id of our own: two with one id throw each other out."""


@click.command()
@config_option
@click.option("--once", is_flag=True, help="Print one report; so it does without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one report as JSON.")
def status(explicit: Path | None, once: bool, as_json: bool) -> None:
    """Show what the running daemon does, hears and says, until Ctrl-C."""
    settings = load(find_file(explicit, os.environ), os.environ)
    watched = Watched(settings)
    try:
        if once or as_json or not sys.stdout.isatty():
            print_once(watched, as_json=as_json)
        else:
            show_live(watched)
    except KeyboardInterrupt:
        pass
    finally:
        watched.close()


class Seen(NamedTuple):
    """What was found out."""

    status: dict[str, Any] | None
    """What the `/status` page says; None where it cannot be asked."""
    topics: dict[str, dict[str, Any]]
    """What came over MQTT, by device id."""
    problems: list[str]
    """Why something is missing, and how to mend that."""


class Watched:
    """The running daemon, as far as it can be asked and heard."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http_problem = ""
        told = self._ask()
        inputs = told["inputs"] if told else []
        ids = [each["device_id"] for each in inputs] or list(settings.inputs)
        ids = ids or [settings.effective_device_id]
        self._roots = {ident: f"{settings.mqtt.base_topic}/{ident}" for ident in ids}
        self._feed_problem = ""
        self._feed = self._start_feed()

    def look(self) -> Seen:
        """Return how it is now. Raises DaemonError where neither can tell."""
        told, feed = self._ask(), self._feed
        topics = {ident: self._topics(feed, root) for ident, root in self._roots.items() if feed}
        feed_problem = feed.problem if feed else self._feed_problem
        heard = any(value for each in topics.values() for value in each.values())
        if told is None and not heard:
            silent = "the broker has nothing of it"
            raise DaemonError(f"{self._http_problem} And {feed_problem or silent}")
        return Seen(told, topics, [each for each in (self._http_problem, feed_problem) if each])

    def wait(self, timeout_s: float) -> None:
        """Wait until the broker has told what it has."""
        if self._feed:
            self._feed.wait(timeout_s)

    def close(self) -> None:
        """Ask and hear no more."""
        if self._feed:
            self._feed.stop()

    def _ask(self) -> dict[str, Any] | None:
        from harkd.daemon_client import ask

        try:
            told = ask(self._settings.http, "/status", ASK_S)[1]
        except DaemonError as error:
            self._http_problem = str(error)
            return None
        self._http_problem = ""
        return told

    def _start_feed(self) -> StatusFeed | None:
        from harkd.mqtt_address import address_of
        from harkd.mqtt_tls import check_files
        from harkd.status_feed import StatusFeed

        settings = self._settings
        try:
            check_files(settings.mqtt)
        except HarkdError as error:
            self._feed_problem = str(error)
            return None
        client_id = settings.effective_client_id + SUFFIX
        address = address_of(settings.mqtt, LOOPBACK, client_id)
        # The embedded broker speaks 3.1.1 alone, and does not say so.
        version = settings.mqtt.protocol if settings.mqtt.host else "3.1.1"
        feed = StatusFeed(address, version, list(self._roots.values()))
        feed.start()
        return feed

    @staticmethod
    def _topics(feed: StatusFeed, root: str) -> dict[str, Any]:
        names = ("availability", "state", "health")
        told = {name: feed.newest(root, name) for name in names}
        return {**told, "last": feed.last(root), "speaking": feed.speaking(root)}


def print_once(watched: Watched, *, as_json: bool) -> None:
    """Print one report."""
    from harkd.status_report import lines, report_of

    watched.wait(BROKER_S)
    seen = watched.look()
    if as_json:
        click.echo(json.dumps(seen._asdict(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(report_of(*seen))))


def show_live(watched: Watched) -> None:
    """Draw reports until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from harkd.status_report import report_of
    from harkd.status_view import draw

    watched.wait(BROKER_S)
    with Live(Text(""), console=Console(), auto_refresh=False, screen=True) as live:
        while True:
            try:
                live.update(draw(report_of(*watched.look())), refresh=True)
            except DaemonError as error:
                live.update(Text(str(error), "red"), refresh=True)
            time.sleep(EVERY_S)
