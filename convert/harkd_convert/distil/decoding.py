"""Moonshine's decoder for a batch: the likeliest tokens, and the distributions after given tokens.

In: hidden states. Out: tokens or logits. Runs on the caller's thread, on the hidden states' device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harkd_convert.moonshine import TOKEN_END, TOKEN_START, Decoder

TOKENS_PER_S = 6.5
"""What the published models take as the most; faster is a loop."""
FRAMES_PER_S = 16_000 / 384


def most_tokens(frames: int) -> int:
    """Return how many tokens so many frames can hold."""
    return int(frames / FRAMES_PER_S * TOKENS_PER_S) + 2


@torch.no_grad()
def greedy(decoder: Decoder, hidden: Tensor, heard: Tensor) -> list[list[int]]:
    """Return the likeliest token after each other, for each utterance, without the end's.

    Args:
        decoder: The weights.
        hidden: float32, (batch, frames, width).
        heard: bool, (batch, frames): the frames that an utterance has.
    """
    memories = decoder.memories(hidden, heard[:, None, None, :])
    most = [most_tokens(int(count)) for count in heard.sum(1)]
    tokens: list[list[int]] = [[] for _ in most]
    ids = torch.full((len(most), 1), TOKEN_START, device=hidden.device)
    going = set(range(len(most)))
    for position in range(max(most)):
        best = decoder(ids, memories, position)[:, -1].argmax(-1)
        for row, token in enumerate(best.tolist()):
            if row in going:
                if token != TOKEN_END:
                    tokens[row].append(token)
                if token == TOKEN_END or len(tokens[row]) >= most[row]:
                    going.discard(row)
        if not going:
            break
        ids = best[:, None]
    return tokens


def forced(texts: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return texts as a decoder reads them.

    Returns:
        int64, (batch, tokens + 1): the start and the tokens; bool, (batch, tokens + 1): what comes
        after this token is a token of the text, or its end.
    """
    most = max(len(each) for each in texts) + 1
    ids = torch.full((len(texts), most), TOKEN_END, device=device)
    known = torch.zeros((len(texts), most), dtype=torch.bool, device=device)
    for row, each in enumerate(texts):
        ids[row, : len(each) + 1] = torch.tensor([TOKEN_START, *each])
        known[row, : len(each) + 1] = True
    return ids, known


def logits_after(decoder: Decoder, hidden: Tensor, heard: Tensor, ids: Tensor) -> Tensor:
    """Return float32, (batch, tokens, vocabulary): what the decoder expects after each token."""
    memories = decoder.memories(hidden, heard[:, None, None, :])
    logits: Tensor = decoder(ids, memories)
    return logits
