"""The phrases in force: those of the settings, and what was sent over MQTT in their place.

In: the settings, payloads of ``phrases/set``; from any thread, and none of it waits. Out: what can
be said now, and what is wrong, to those who asked; on the `phrases` thread, which reads files,
compiles and writes. A set that has faults leaves the old one in force.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol

from harkd.errors import PhrasesError, StateError
from harkd.events import PhraseMatch
from harkd.kept_phrases import KeptPhrases, PhrasesFile
from harkd.life import FOREIGN_S, LifeSign
from harkd.phrases.loading import PhraseSet, load
from harkd.phrases.sent import Mode, Sent, read_sent
from harkd.threads import Thread

log = logging.getLogger(__name__)

MOST_WAITING: Final = 4
"""Payloads that wait; older ones give way unread."""
MOST_FAULTS: Final = 100
"""So many faults are told at once."""
STOP_S: Final = 2.0

Told = Callable[[str], None]
"""Takes what is wrong, with all its places; an empty text where it is in force now."""


class Options(Protocol):
    """Of the settings, the section ``phrases``."""

    @property
    def mode(self) -> Mode:
        """What phrases are for."""

    @property
    def file(self) -> str:
        """Where they are."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What can be said, and what that is for."""

    phrases: PhraseSet | None
    """None where there are none."""
    mode: Mode
    """What they are for."""
    source: Literal["settings", "mqtt", "settings+mqtt"]
    """Where it comes from."""

    @property
    def intents(self) -> tuple[str, ...]:
        """Names of what can be meant, in the order of writing."""
        phrases = self.phrases.graph.phrases if self.phrases else ()
        return tuple(dict.fromkeys(each.intent for each in phrases))

    @property
    def commands(self) -> tuple[str, ...]:
        """The intents that finals can be."""
        return () if self.mode == "open" else self.intents

    @property
    def templates(self) -> int:
        """How many templates there are."""
        return len(self.phrases.graph.phrases) if self.phrases else 0

    def same(self, other: InForce) -> bool:
        """Whether both are the same to whoever recognizes."""
        mine, others = (each.phrases.graph if each.phrases else None for each in (self, other))
        return mine is others and (self.mode, self.source) == (other.mode, other.source)


@dataclass(frozen=True, slots=True)
class _Request:
    """A payload that waits."""

    payload: bytes
    told: Told
    retained: str
    """Its SHA-256, where it lay at the broker; else empty."""


class PhraseBook:
    """Owns the phrases in force.

    Args:
        options: The section ``phrases``.
        settings_file: Where that stands; templates may stand there, too.
        folder: The state folder, which keeps what was sent.
        report: Is told what answers no request, such as a disk that does not take it.
        keep_in: Where graphs that took long are kept; the folder ``phrases`` of `folder` unless
            given. Several books may share one.
    """

    def __init__(
        self,
        options: Options,
        settings_file: Path | None,
        folder: Path,
        *,
        report: Callable[[str], None],
        keep_in: Path | None = None,
    ) -> None:
        self._options = options
        self._settings_file = settings_file
        self._file = PhrasesFile(folder)
        self._keep_in = keep_in or folder / "phrases"
        self._report = report
        self._unwritable = False
        self._kept = KeptPhrases()
        self._asked = threading.Condition()
        self._payloads: deque[_Request] = deque(maxlen=MOST_WAITING)
        self._new_options: tuple[Options, Told] | None = None
        self._stopping = False
        self._told = False
        self.in_force = InForce(None, options.mode, "settings")
        """What can be said now; replaced as a whole."""
        self.loaded = threading.Event()
        """Set once that is known."""
        self.on_change: list[Callable[[PhraseBook], None]] = []
        """Called when something else is in force: first by `load`, then on the thread."""
        self.life = LifeSign("phrases", FOREIGN_S)
        """Whether the thread makes progress."""
        self._thread = Thread(target=self._run, name="phrases")

    @property
    def current(self) -> PhraseSet | None:
        """What can be said now."""
        return self.in_force.phrases

    @property
    def mode(self) -> Mode:
        """What phrases are for."""
        return self.in_force.mode

    def match(self, text: str) -> PhraseMatch | None:
        """Return what a text means; None where it is none of the phrases that finals can be."""
        in_force = self.in_force
        if not in_force.phrases or in_force.mode == "open":
            return None
        found = in_force.phrases.graph.match(text)
        if not found:
            return None
        return PhraseMatch(found.phrase, found.intent, found.slots, score=1.0, margin=0.0)

    def load(self) -> None:
        """Put in force what the settings say, and what was sent before; to be called once, first.

        Raises:
            PhrasesError: The phrases of the settings have faults.
        """
        self._kept, fault = self._file.read()
        if fault:
            self._report(fault)
        try:
            made = self._made(self._options, self._kept.sent)
        except PhrasesError as error:
            if self._kept.sent is None:
                raise
            made = self._made(self._options, None)
            self._report(f"phrases that were set over MQTT are not in force: {cut(error)}")
        self.loaded.set()
        self._put_in_force(made)

    def start(self) -> None:
        """Begin to take requests, once `load` was called."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests."""
        with self._asked:
            self._stopping = True
            self._asked.notify()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def replace(self, payload: bytes, told: Told, *, retained: bool = False) -> None:
        """Let these phrases be in force, soon. Of several the newest that has no faults will be.

        Args:
            payload: What came on ``phrases/set``.
            told: Called on the thread; not at all where a newer one took its place.
            retained: Whether it lay at the broker. The same one again is not taken.
        """
        digest = hashlib.sha256(payload).hexdigest() if retained else ""
        with self._asked:
            self._payloads.append(_Request(payload, told, digest))
            self._asked.notify()

    def reload(self, options: Options, told: Told) -> None:
        """Read the phrases of the settings again, soon."""
        with self._asked:
            self._new_options = options, told
            self._asked.notify()

    # --------------------------------------------------------------------- the thread

    def _run(self) -> None:
        self.life.begin()
        while True:
            self.life.rest()
            with self._asked:
                self._asked.wait_for(lambda: self._stopping or self._new_options or self._payloads)
                if self._stopping:
                    break
                options, self._new_options = self._new_options, None
                payloads = list(self._payloads)
                self._payloads.clear()
            self.life.beat()
            try:
                if options:
                    self._follow(*options)
                self._take(payloads)
            except Exception:
                log.exception("phrases could not be put in force")
                self._report("phrases could not be put in force; the log of harkd says why")
        self.life.end()

    def _follow(self, options: Options, told: Told) -> None:
        try:
            made = self._made(options, self._kept.sent)
        except PhrasesError as error:
            told(cut(error))
            return
        self._options = options
        self._put_in_force(made)
        told("")

    def _take(self, requests: list[_Request]) -> None:
        """Take the newest request that has no faults; tell the faults of newer ones."""
        # It comes again at each connection, and newer ones may have been set since.
        old = self._kept.retained
        requests = [each for each in requests if not each.retained or each.retained != old]
        retained = next((each.retained for each in reversed(requests) if each.retained), old)
        for request in reversed(requests):
            try:
                sent = read_sent(request.payload)
                made = self._made(self._options, sent)
            except PhrasesError as error:
                request.told(cut(error))
                continue
            self._keep(KeptPhrases(sent and replace(sent, root=None), retained))
            self._put_in_force(made)
            log.info(
                "phrases set over MQTT: %d templates of %d intents, mode %s (%.1f s)",
                *(made.templates, len(made.intents), made.mode),
                made.phrases.compiled_s if made.phrases else 0.0,
            )
            request.told("")
            return
        self._keep(replace(self._kept, retained=retained))

    def _made(self, options: Options, sent: Sent | None) -> InForce:
        """Return what would be in force. Raises PhrasesError."""
        phrases = load(options, self._settings_file, sent=sent, keep_in=self._keep_in)
        source: Literal["settings", "mqtt", "settings+mqtt"] = "settings"
        if sent:
            source = "mqtt" if sent.scope == "all" else "settings+mqtt"
        return InForce(phrases, (sent and sent.mode) or options.mode, source)

    def _put_in_force(self, made: InForce) -> None:
        if self._told and made.same(self.in_force):
            return
        self.in_force = made
        self._told = True
        for tell in self.on_change:
            tell(self)

    def _keep(self, kept: KeptPhrases) -> None:
        """Remember what was sent, also over a restart, where that is possible."""
        if kept == self._kept and not self._unwritable:
            return
        self._kept = kept
        try:
            self._file.write(kept)
            self._unwritable = False
        except StateError as error:
            if not self._unwritable:
                self._report(str(error))
            self._unwritable = True


def cut(error: PhrasesError) -> str:
    """Return the words of an error, of the first `MOST_FAULTS` faults."""
    lines = str(error).splitlines()
    more = len(lines) - MOST_FAULTS
    return "\n".join([*lines[:MOST_FAULTS], *([f"… and {more} more"] if more > 0 else [])])
