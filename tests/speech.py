"""What the recordings that come with the model say, and how to compare a transcript with it."""

import re

import jiwer

# Charles Dickens, A Tale of Two Cities (1859), the first sentence: what two_cities.wav reads.
TWO_CITIES = """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of
Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair, we
had everything before us, we had nothing before us, we were all going direct to Heaven, we were all
going direct the other way - in short, the period was so far like the present period, that some of
its noisiest authorities insisted on its being received, for good or for evil, in the superlative
degree of comparison only.
"""


def plain(text: str) -> str:
    """Returns lower-case words, without punctuation."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Returns substitutions, deletions and insertions over the reference's words."""
    return float(jiwer.wer(plain(reference), plain(hypothesis)))
