"""What is sent to the daemon's own topics → a command, or why it is none. Pure.

In: the name of the topic under the daemon's root, and any bytes. Out: a command, None for nothing
at all, or `CommandError`, whose words say how to mend it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from harkd import hotword_list
from harkd.errors import CommandError
from harkd.live_settings import with_value
from harkd.settings import HOTWORDS, LEAVES, Settings, silence_fault
from harkd.settings_file import ENVIRONMENT, Entry, Keys
from harkd.settings_leaf import judge

SHOWN: Final = 40
"""So many characters of a wrong payload are repeated in the words for it."""
MOST_BYTES: Final = 1024
"""No command is longer, but for hotwords and phrases."""
LISTEN: Final = "listen/set"
COMMAND: Final = "command"
HOTWORDS_TOPIC: Final = "hotwords/set"
PHRASES: Final = "phrases/set"
OPTIONS: Final[dict[str, Keys]] = {
    "vad/aggressiveness/set": ("vad", "aggressiveness"),
    "endpoint/silence_ms/set": ("endpoint", "silence_ms"),
    HOTWORDS_TOPIC: HOTWORDS,
}
"""Topics that set an option of the settings."""
TOPICS: Final = (LISTEN, *OPTIONS, PHRASES, COMMAND)
"""All topics under the root to which something can be sent."""


class Deed(StrEnum):
    """What can be asked for on `command`."""

    RELOAD = "reload"
    """Read the settings again."""
    REANNOUNCE = "reannounce"
    """Send everything that is kept again."""
    TEST_FINAL = "test_final"
    """Publish a final that nobody said."""
    LISTEN = "listen"
    """Recognize the next utterance without a wake word."""
    SAVE_AUDIO = "save_audio"
    """Write the audio of the last utterances to the disk."""


OPERANDS: Final[dict[str, str]] = {Deed.SAVE_AUDIO: "count", Deed.TEST_FINAL: "phrase"}
"""What may stand beside a command."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Open the microphone or close it."""

    on: bool
    """False to mute."""


@dataclass(frozen=True, slots=True)
class SetOption:
    """Set an option of the settings."""

    keys: Keys
    """Its path."""
    value: int | str
    """Within its bounds, and no contradiction of the other settings."""


@dataclass(frozen=True, slots=True)
class SetPhrases:
    """Let other phrases be in force."""

    payload: bytes
    """As it came; what is wrong with it is told by who reads it, which takes a while."""


@dataclass(frozen=True, slots=True)
class Do:
    """Do something once."""

    deed: Deed
    """What."""
    count: int | None = None
    """To how many utterances, from 1 on, for `SAVE_AUDIO`; None for all."""
    phrase: str = ""
    """What somebody would have said, for `TEST_FINAL`; empty for no phrase."""


Command = Listen | SetOption | SetPhrases | Do


def read_command(
    name: str, payload: bytes, settings: Settings, *, retained: bool = False
) -> Command | None:
    """Return what a message asks for; None for an empty one, which clears a retained message.

    Args:
        name: One of `TOPICS`.
        payload: What was sent.
        settings: What is in force now, for contradictions.
        retained: Whether the message lay at the broker.

    Raises:
        CommandError: It asks for nothing that there is.
    """
    if not payload:
        return None
    if name == PHRASES:
        return SetPhrases(payload)
    if len(payload) > (hotword_list.MOST_BYTES if name == HOTWORDS_TOPIC else MOST_BYTES):
        raise CommandError(f"{len(payload)} bytes are no command", "send one value alone")
    if name == COMMAND:
        if retained:
            raise CommandError(
                "a retained command would run at each connection and is not obeyed",
                "clear it with an empty retained message, and send commands without retain",
            )
        return _deed(payload)
    if name == HOTWORDS_TOPIC:
        return _hotwords(payload)
    text = payload.decode("utf-8", "replace").strip(" \t\r\n")
    if name == LISTEN:
        return _listen(text)
    if keys := OPTIONS.get(name):
        return _option(keys, text, settings)
    raise CommandError(f"nothing is known to set on {shown(name)}")


def shown(text: str) -> str:
    """Return a text for a person: in quotes, on one line, and cut."""
    cut = text[:SHOWN] + ("…" if len(text) > SHOWN else "")
    return '"' + "".join(c if c.isprintable() else "�" for c in cut) + '"'


def _listen(text: str) -> Listen:
    word = text.upper()
    if word not in ("ON", "OFF"):
        raise CommandError(f"{shown(text)} is neither ON nor OFF", "send one of the two")
    return Listen(word == "ON")


def _option(keys: Keys, text: str, settings: Settings) -> SetOption:
    leaf = LEAVES[keys]
    path = ".".join(keys)
    if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
        raise CommandError(
            f"{shown(text)} is not a whole number for {path}", f"send one of {leaf.allowed}"
        )
    # The bounds of the settings, in the same words.
    entry = Entry(place=ENVIRONMENT, name=path, value=int(text), raw=text)
    value, words = judge(leaf, entry)
    if words:
        raise CommandError(f"{path}: {words}")
    if fault := silence_fault(with_value(settings, keys, value).endpoint):
        raise CommandError(f"{path}: {fault}")
    return SetOption(keys, value)


def _hotwords(payload: bytes) -> SetOption:
    try:
        return SetOption(HOTWORDS, hotword_list.to_text(hotword_list.from_json(payload)))
    except ValueError as error:
        raise CommandError(f"hotwords: {error}") from None


def told(keys: Keys, value: object) -> str:
    """Return what `…/state` says of an option."""
    if keys == HOTWORDS:
        return hotword_list.to_json(hotword_list.from_text(str(value)))
    return str(value)


def _deed(payload: bytes) -> Do:
    known = ", ".join(f'{{"command":"{deed}"}}' for deed in Deed)
    mend = f"send one of {known}"
    try:
        body = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CommandError("this is not JSON", mend) from None
    word = body.get("command") if isinstance(body, dict) else None
    if not isinstance(word, str):
        raise CommandError('this is no object with a "command"', mend)
    if set(body) - {"command", OPERANDS.get(word)}:
        raise CommandError('there is more than "command" in it', mend)
    if word not in list(Deed):
        near = difflib.get_close_matches(word[:SHOWN], list(Deed), 1)
        meant = f'perhaps {{"command":"{near[0]}"}} was meant' if near else mend
        raise CommandError(f"{shown(word)} is no command", meant)
    count = body.get("count")
    if count is not None and (type(count) is not int or count < 1):
        raise CommandError('"count" is no whole number from 1 on', "send one, or leave it out")
    phrase = body.get("phrase", "")
    if not isinstance(phrase, str):
        raise CommandError('"phrase" is no text', "send what somebody would say, or leave it out")
    return Do(Deed(word), count, phrase)
