"""How a plan of passes is written: `16:16`, chunk and look-ahead in frames. Pure, and light."""

from __future__ import annotations


def chunk_and_look_ahead(text: str) -> tuple[int, int]:
    """Return both, the chunk 1 at least; raises ValueError where that is not what the text says."""
    chunk, _, look_ahead = text.partition(":")
    if not (chunk.isdecimal() and look_ahead.isdecimal() and int(chunk)):
        raise ValueError(text)
    return int(chunk), int(look_ahead)
