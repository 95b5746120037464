"""What can be said, as sentence templates, and the graph of words that they become. Pure.

In: templates in the syntax of Home Assistant's intents. Out: a `PhraseGraph`, which a search over
the recognizer's tokens walks, and which says of a walk what was meant. Nothing here knows of audio.
"""

from __future__ import annotations

from harkd.phrases.builder import SlotValue
from harkd.phrases.graph import Arc, PhraseGraph
from harkd.phrases.tables import Match

__all__ = ["Arc", "Match", "PhraseGraph", "SlotValue"]
