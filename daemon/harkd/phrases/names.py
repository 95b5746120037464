"""What the section of phrases in the settings file may have. Pure."""

from __future__ import annotations

from typing import Final

SECTION: Final = "phrases"
"""Its name."""
OPTIONS: Final = frozenset({"mode", "file"})
"""What `harkd.settings` reads of it."""
INLINE: Final = frozenset({"language", "intents", "lists", "expansion_rules", "skip_words"})
"""What `harkd.phrases.file` reads of it, and of a phrases file."""
