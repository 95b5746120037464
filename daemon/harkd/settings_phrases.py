"""Sentence templates beside options: what the section ``phrases`` may hold. Pure.

In: names of that section. Out: whether `harkd.settings` reads them, or `harkd.phrases.file`.
"""

from __future__ import annotations

from typing import Final

from harkd.settings_file import Keys

SECTION: Final = "phrases"
"""The section's name."""
OPTIONS: Final = frozenset({"mode", "file"})
"""What `harkd.settings` reads of it."""
INLINE: Final = frozenset({"language", "intents", "lists", "expansion_rules", "skip_words"})
"""What `harkd.phrases.file` reads of it, and of a phrases file."""


def is_inline(keys: Keys) -> bool:
    """Whether an entry of the settings file is read where phrases are loaded."""
    return len(keys) == 2 and keys[0] == SECTION and keys[1] in INLINE
