"""Several microphones in one daemon: what the section ``inputs`` may hold. Pure.

In: its entries, and the options of ``audio``. Out: the values by input and option, or words of a
`Fault`. Runs where `settings` does.

::

    inputs:
      kitchen:            # the second level of its topics
        device: Jabra     # any option of audio; what is left out is as there
      bath: {}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from harkd.settings_file import INPUTS, Entry, Keys, Shape, quoted
from harkd.settings_leaf import Leaf, judge, unknown

AUDIO: Final = "audio"
NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


class Heard(Protocol):
    """What of an input tells whether two are the same."""

    @property
    def device(self) -> str:
        """Name, part of a name, or index of the input."""

    @property
    def channel(self) -> str | int:
        """The mean of all channels, or one."""


def is_of_inputs(keys: Keys) -> bool:
    """Whether an entry of the file stands in this section, or is the section."""
    return keys[0] == INPUTS


def judged(keys: Keys, entry: Entry, leaves: Mapping[Keys, Leaf]) -> tuple[Any, str]:
    """Returns the value of an entry of this section and, where it has a fault, words for it.

    The value is None where the entry is the section, or an input's name.
    """
    empty = entry.value is None or entry.value is Shape.SECTION
    match keys:
        case (_,):
            if empty:
                return None, ""
            return None, (
                "is a section; write each input's name on a line below it, indented by two spaces, "
                'as in "kitchen:", and its options below that'
            )
        case (_, name):
            if not NAME.fullmatch(name):
                return None, (
                    f"{quoted(name)} cannot be in a topic; an input's name has letters, digits, "
                    '"-" and "_" only'
                )
            if empty:
                return None, ""
            if (AUDIO, name) in leaves:
                return None, (
                    'stands where an input\'s name belongs; write it below one, as in "kitchen:"'
                )
            return None, 'is an input\'s name; write its options below it, as in "device: Jabra"'
        case (_, _, name) if (AUDIO, name) in leaves:
            return judge(leaves[AUDIO, name], entry)
    audio = {leaf_keys: leaf for leaf_keys, leaf in leaves.items() if leaf_keys[0] == AUDIO}
    return None, unknown((AUDIO, keys[2]), entry, audio)


def twice(inputs: Mapping[str, Heard]) -> Iterator[tuple[str, str]]:
    """Yields each input that hears the same as one before it, and words for that."""
    known: dict[tuple[str, str], str] = {}
    for name, audio in inputs.items():
        what = (audio.device.lower(), str(audio.channel))
        if first := known.get(what):
            words = f'hears the same as {INPUTS}.{first} (device "{audio.device}"'
            words += f", channel {audio.channel}); give it another device or channel"
            yield name, words
        known.setdefault(what, name)
