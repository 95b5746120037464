"""Word errors: what was heard against what was said.

Counted by jiwer over texts that Whisper's normalizer has made alike (case, punctuation, numbers,
contractions). Both come with ``harkd[bench]``; without them nothing is counted, and `MISSING` says
how to get them. Runs on the calling thread.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harkd.stability import same_words

MISSING = "word errors are not counted: pip install 'harkd[bench]' adds what counts them"

Normalizer = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors over some texts."""

    words: int
    """Words that were said."""
    errors: int
    """Substitutions, deletions and insertions together."""
    substitutions: int
    """Words heard as others."""
    deletions: int
    """Words not heard."""
    insertions: int
    """Words heard that were not said."""

    @property
    def rate(self) -> float | None:
        """Errors for each word; None for no words."""
        return self.errors / self.words if self.words else None

    @property
    def percent(self) -> str:
        """The rate for people."""
        return "–" if self.rate is None else f"{100 * self.rate:.2f}"


def load_normalizer(language: str) -> Normalizer | None:
    """Return Whisper's normalizer, if it and jiwer are installed: the English one for English."""
    try:
        importlib.import_module("jiwer")
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        return None
    english = language.partition("-")[0] == "en"
    normalizer: Normalizer = EnglishTextNormalizer() if english else BasicTextNormalizer()
    return normalizer


def count_errors(said: Sequence[str], heard: Sequence[str], normalizer: Normalizer) -> WordErrors:
    """Return the errors in what was heard; text by text, both of the same length."""
    import jiwer

    pairs = [(normalizer(a), normalizer(b)) for a, b in zip(said, heard, strict=True)]
    # jiwer knows no empty reference; all that is heard there is too much.
    invented = sum(len(b.split()) for a, b in pairs if not a.strip())
    pairs = [(a, b) for a, b in pairs if a.strip()]
    if not pairs:
        return WordErrors(0, invented, 0, 0, invented)
    found = jiwer.process_words([a for a, _ in pairs], [b for _, b in pairs])
    insertions = found.insertions + invented
    return WordErrors(
        words=found.hits + found.substitutions + found.deletions,
        errors=found.substitutions + found.deletions + insertions,
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=insertions,
    )


def differ(one: str, other: str, normalizer: Normalizer | None) -> bool:
    """Tell whether two texts have different words."""
    return normalizer(one) != normalizer(other) if normalizer else not same_words(one, other)
