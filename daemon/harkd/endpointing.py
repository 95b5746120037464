"""How long a pause may be before it ends the utterance, by what has been said so far. Pure.

A sentence that is complete, and that the recognizer has settled on, needs less silence to be over
than one that breaks off in the middle. Decided once for each pause, from its prepared hypothesis.
"""

from __future__ import annotations

from harkd.recognizer.protocol import Hypothesis
from harkd.settings import EndpointSettings
from harkd.stability import has_words, same_words

CLOSING = "\"'”’“»›)]」』"
"""May follow the mark that ends a sentence. German closes its quotes with “."""
MARKS = (".", "?", "!", "。", "？", "！")
ELLIPSES = ("…", "..")


def ends_sentence(text: str) -> bool:
    """Tell whether a text ends as a sentence does; an ellipsis is no end."""
    bare = text.rstrip().rstrip(CLOSING)
    return bare.endswith(MARKS) and not bare.endswith(ELLIPSES)


def end_silence_ms(
    hypothesis: Hypothesis, previous: Hypothesis | None, endpoint: EndpointSettings
) -> int:
    """Return the milliseconds of silence that end the segment in this pause.

    Args:
        hypothesis: What was prepared in the pause.
        previous: The segment's hypothesis before it; None where it is the first.
        endpoint: The `endpoint` section.

    Returns:
        `min_silence_ms` after a sentence whose words stayed what they were, `max_silence_ms` after
        what is no whole sentence, `silence_ms` otherwise: a sentence in new words, no words at all,
        a decoder's loop, and wherever `adaptive` is off.
    """
    if not endpoint.adaptive or hypothesis.looped or not has_words(hypothesis.text):
        return endpoint.silence_ms
    if not ends_sentence(hypothesis.text):
        return endpoint.max_silence_ms
    if previous and same_words(previous.text, hypothesis.text):
        return endpoint.min_silence_ms
    return endpoint.silence_ms
