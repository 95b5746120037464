"""Which finals answer which Hermes session. Pure: time is given, nothing is sent.

In: requests, events, and the time. Out: the messages to be sent. Any thread, one at a time.

::

    startListening ─► open ─ a final ──────────────────────────► textCaptured (stopOnSilence)
                       │  ▲    └─ else it is kept ┐
                       │  └───────────────────────┘
                       ├─ stopListening, when nobody speaks ───► textCaptured: all that was kept
                       └─ nobody spoke for 30 s ───────────────► textCaptured: all that was kept

Without a session nothing is said: nobody would know what it answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from harkd import hermes
from harkd.events import Event, Rejected, State, StateChanged, Woken
from harkd.events import Final as FinalEvent
from harkd.hermes import Heard, Start, Stop, ToggleOff, ToggleOn
from harkd.messages import Message

QUIET_MOST_S: Final = 30.0
"""A session in which nobody speaks for so long is answered. Rhasspy's own limit is as long."""
STOP_MOST_S: Final = 10.0
"""So long after `stopListening` what is being said may still end, then it is left out."""
LONGEST_S: Final = 600.0
"""However much is said, a session is answered after so long."""
NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Session:
    """The session that is open."""

    start: Start
    """What opened it."""
    opened_ns: int
    """Monotonic time, in nanoseconds."""
    quiet_ns: int
    """Monotonic time since which nobody spoke in it, in nanoseconds."""
    stopped_ns: int | None = None
    """Monotonic time of its `stopListening`, in nanoseconds."""
    heard: list[Heard] = field(default_factory=list)
    """What was said in it so far."""


class Sessions:
    """The sessions of one site, one after the other.

    Args:
        site_id: Our site.
    """

    def __init__(self, site_id: str) -> None:
        self._site_id = site_id
        self._session: _Session | None = None
        self._reasons: set[str] = set()
        self._off_ns: int | None = None
        self._on_ns = 0
        self._speaking = False
        self._undecided = False

    def take(self, topic: str, payload: bytes, now_ns: int) -> list[Message]:
        """Take a request as it came; return what to send."""
        asked = hermes.request(self._site_id, topic, payload)
        match asked:
            case Message():
                return [asked]
            case ToggleOn() | ToggleOff():
                self._toggle(asked, now_ns)
            case Start():
                # Its answer may be awaited; Rhasspy's recognizers end it in the same way.
                messages = self._answer()
                self._session = _Session(asked, now_ns, now_ns)
                return messages
            case Stop() if self._session and _same(asked, self._session.start):
                self._session.stopped_ns = now_ns
                return self.check(now_ns)
        return []

    def hear(self, event: Event, now_ns: int) -> list[Message]:
        """Take an event; return what to send."""
        match event:
            case Woken():
                return [hermes.detected(self._site_id, event.word)]
            case StateChanged():
                self._speaking = event.state is State.SPEECH
                self._undecided = self._undecided or self._speaking
            case FinalEvent():
                self._undecided = self._speaking
                if self._session and self._belongs(event, self._session):
                    took_s = (now_ns - event.endpoint_ns) / NS
                    self._session.heard.append(Heard(event, took_s))
                    self._session.quiet_ns = now_ns
                    if self._session.start.stop_on_silence:
                        return self._answer()
            case Rejected():
                self._undecided = self._speaking
        return self.check(now_ns)

    @property
    def heard(self) -> bool:
        """Whether a session is open, and sessions are heard."""
        return self._session is not None and self._off_ns is None

    def check(self, now_ns: int) -> list[Message]:
        """Return what to send because of the time alone; `due_ns` says when to ask."""
        due_ns = self.due_ns
        return self._answer() if due_ns is not None and now_ns >= due_ns else []

    @property
    def due_ns(self) -> int | None:
        """Monotonic time at which the open session is over by itself; None without one."""
        session = self._session
        if not session:
            return None
        last_ns = session.opened_ns + int(LONGEST_S * NS)
        if session.stopped_ns is not None:
            wait_s = STOP_MOST_S if self._undecided else 0.0
            return min(last_ns, session.stopped_ns + int(wait_s * NS))
        if self._undecided:
            return last_ns
        return min(last_ns, session.quiet_ns + int(QUIET_MOST_S * NS))

    def _toggle(self, asked: ToggleOn | ToggleOff, now_ns: int) -> None:
        reason = asked.reason or ""
        if isinstance(asked, ToggleOff):
            if not self._reasons:
                self._off_ns = now_ns
            self._reasons.add(reason)
            return
        if reason:
            self._reasons.discard(reason)
        else:
            self._reasons.clear()
        if self._off_ns is not None and not self._reasons:
            self._off_ns, self._on_ns = None, now_ns

    def _belongs(self, final: FinalEvent, session: _Session) -> bool:
        """Whether it was said in the session, and while sessions were heard.

        What was being said when a session opened is its own: who says the wake word and the command
        in one breath is heard. What began while sessions were not heard is not, since that is when
        the house itself speaks.
        """
        if self._off_ns is not None and final.speech_end_ns > self._off_ns:
            return False
        return final.speech_end_ns > session.opened_ns and hermes.begin_ns(final) >= self._on_ns

    def _answer(self) -> list[Message]:
        session, self._session = self._session, None
        if not session:
            return []
        return [hermes.captured(self._site_id, session.start, session.heard)]


def _same(one: Start | Stop, other: Start | Stop) -> bool:
    """Whether they name the same session; an empty name is none."""
    return (one.session_id or "") == (other.session_id or "")
