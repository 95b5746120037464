"""The lean Moonshine's decoder: greedy, with a draft that is verified instead of decoded again.

In: the encoder's keys and values, and what was recognized before. Out: tokens with their
log-probabilities. One call gives the best token after each of its inputs, so a draft of any length
costs one call where it is right; where it is wrong, decoding goes on token by token until it meets
the draft again. The cache is written in place. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.chunk_buffers import Buffers, buffers_for
from harkd.recognizer.chunk_layout import State
from harkd.recognizer.device_faults import FLOAT32_DECODER
from harkd.recognizer.extra_output import result_of, with_output
from harkd.recognizer.moonshine_tokens import TOKEN_END, TOKEN_START, Decoded, repeated_at_end
from harkd.recognizer.onnx import bind_input, bind_output, dtype_of, open_session
from harkd.recognizer.placement import Placement
from harkd.recognizer.protocol import NEVER_UNSURE

PROPOSED_MOST = 15
"""A pass over more tokens gains little, and its logits take 400 kB for each."""
REJOIN_TOKENS = 6
"""A token is looked for so far ahead in what is left of the draft."""
SCORES = "log_probs"
"""The output that tells how likely every token is."""
SCORES_OP = "LogSoftmax"
"""Graphs of before that output have one node that makes it, and take the best token from it."""
REJOIN_LEAST = 2
"""A call for fewer drafted tokens than this costs more than it saves."""


class LeanDecoder:
    """The loaded graph.

    Args:
        path: The decoder's file.
        threads: Threads for each pass.
        capacity: The most tokens of one hypothesis.
        scored: Whether it can tell how likely each token is, not the best alone.
        placement: Where it may run; the CPU if omitted.

    Raises:
        ModelDamagedError: onnxruntime cannot load the file.
        KeyError, ValueError: The graph is not what its file should hold.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        capacity: int,
        *,
        scored: bool = False,
        placement: Placement | None = None,
    ) -> None:
        content = path.read_bytes() if scored else None
        self.scores = result_of(memoryview(content), SCORES_OP) if content else ""
        """Name of the output that tells it; empty for none."""
        if content:
            content = with_output(content, self.scores)
        placement = placement or Placement()
        self.session = placement.open("decoder", path, threads, arena=True, content=content)
        properties = self.session.get_modelmeta().custom_metadata_map
        self.layers = int(properties["decoder_layers"])
        self.tokens = int(properties["tokens"])
        """Those that can be written."""
        self.capacity = min(capacity, int(properties["most_tokens"]))
        self.real = dtype_of(self.session, "key_0")
        if placement.on_gpu("decoder") and self.real is not np.float16:
            placement.keep_off_gpu("decoder", FLOAT32_DECODER)
            self.session = open_session(path, threads, arena=True, content=content)
        self.on_gpu = placement.on_gpu("decoder")
        """Whether its caches are kept in the GPU's memory"""
        self.takes_several = SCORES in {each.name for each in self.session.get_outputs()}
        """Whether it takes several hypotheses at once; older graphs take one"""
        if self.takes_several:
            self.scores = SCORES
        cache = {each.name: each.shape for each in self.session.get_inputs()}["key_0"]
        self.cache_shape = (1, int(cache[1]), self.capacity, int(cache[3]))


def caches_of(decoder: LeanDecoder, paths: int, tokens: int) -> Buffers:
    """Return a decoder's caches, all zero, for so many hypotheses of so many tokens each."""
    _, heads, _, head = decoder.cache_shape
    names = [f"{kind}_{i}" for i in range(decoder.layers) for kind in ("key", "value")]
    shape = (paths, heads, tokens, head)
    states = [State(name, f"new_{name}", shape, decoder.real) for name in names]
    return buffers_for(states, on_gpu=decoder.on_gpu)


class DecoderState:
    """The cache of one hypothesis, and the buffers that the graph reads and writes.

    Args:
        decoder: The graph.
    """

    def __init__(self, decoder: LeanDecoder) -> None:
        self._session = decoder.session
        self._capacity = decoder.capacity
        self._binding = decoder.session.io_binding()
        # onnxruntime keeps the addresses alone (up to 1.23 at least, even of an OrtValue), so all
        # that is bound must live as long as the binding, where it is.
        self._caches = caches_of(decoder, 1, decoder.capacity)
        self._caches.bind(self._binding, self._binding)
        self._far = decoder.on_gpu
        self._last = np.zeros(1, np.int32)
        self._total = np.zeros(1, np.int32)
        self._bind_places()
        self._ids = np.zeros(decoder.capacity, np.int64)
        self._token = np.zeros(decoder.capacity, np.int64)
        self._log_prob = np.zeros(decoder.capacity, np.float32)
        self._scores_name = decoder.scores
        self._scores = np.zeros((1, decoder.tokens), np.float32)
        self._count = 0  # so many of the last four are bound
        self.intact = decoder.capacity
        """So many leading tokens of the last hypothesis are still in the cache."""
        self._cross: list[NDArray[Any]] = []

    def attend_to(self, cross: list[NDArray[Any]]) -> None:
        """Decode for these keys and values from now on: each (1, heads, frames, head), in turn."""
        before, self._cross = self._cross, list(map(np.ascontiguousarray, cross))
        for j, array in enumerate(self._cross):
            bind_input(self._binding, f"cross_{('key', 'value')[j % 2]}_{j // 2}", array)
        del before  # bound until now

    def let_go(self) -> None:
        """Give back the keys and values; the next call must be `attend_to`."""
        self.attend_to([np.empty_like(each[:, :, :0]) for each in self._cross])

    def decode(
        self,
        draft: Decoded,
        most: int,
        *,
        trusted: int = 0,
        closing: frozenset[int] = frozenset(),
        unsure: float = NEVER_UNSURE,
        most_new: int | None = None,
        watch: NDArray[np.int64] | None = None,
    ) -> Decoded:
        """Decode greedily.

        Args:
            draft: What was recognized last, in this state; may be empty.
            most: The most tokens.
            trusted: So many of the draft's tokens are taken over unseen; their cache stays.
            closing: One of these that is new, or ends the draft, is taken for the end, unseen.
            unsure: A new token, but for the first of all, whose log-probability is below this ends
                the hypothesis, and is left out.
            most_new: After so many tokens that the draft did not have, the hypothesis ends; those
                of them at its end are left out that only repeat what was before them.
            watch: Tokens whose log-probability in each place is wanted; only where the decoder is
                scored.
        """
        most = min(most, self._capacity - 1)
        trusted = min(trusted, len(draft.tokens), most, self.intact)
        self.intact = self._capacity
        result = Decoded(draft.tokens[:trusted], draft.log_probs[:trusted])
        rest = draft.tokens[trusted:]
        unexpected = 0  # tokens that the draft did not have
        current = result.tokens[-1] if result.tokens else TOKEN_START
        proposed = rest
        while len(result.tokens) < most:
            place = len(result.tokens)
            proposed = proposed[: min(PROPOSED_MOST, most - place - 1)]
            best, log_probs = self._run(current, proposed, place)
            result.passes += 1
            result.rows += 1 + len(proposed)
            watched = self._scores[: 1 + len(proposed), watch] if watch is not None else None
            for i, (token, log_prob) in enumerate(zip(best, log_probs, strict=True)):
                drafted = i < len(rest) and token == rest[i]
                if log_prob < unsure and result.tokens and not drafted:
                    result.ended = result.cut_short = True
                    return result
                result.log_probs.append(log_prob)
                if watched is not None:
                    result.watched.append(watched[i])
                if token == TOKEN_END:
                    result.ended = True
                    return result
                result.tokens.append(token)
                current = token
                unexpected += not drafted
                if unexpected == most_new:
                    return _cut(result, most_new)
                if i < len(proposed) and not drafted:
                    rest = rest[i:]
                    break
            else:
                rest = rest[len(proposed) :]
            before = len(rest)
            rest, proposed = rejoined(rest, current)
            new = len(rest) == before
            if current in closing and (new or not rest):
                result.ended = True
                return result
        return result

    def ask(self, heard: Sequence[int], others: Sequence[int]) -> NDArray[np.float32]:
        """Return how likely tokens are after some of the last hypothesis'.

        Args:
            heard: Those of the hypothesis.
            others: Others that follow them.

        Returns:
            Log-probabilities of all tokens before the first of the others and after each: float32,
            shape (1 + others, tokens); until the next call.
        """
        self.intact = min(self.intact, len(heard))
        self._run(heard[-1] if heard else TOKEN_START, others, len(heard))
        return self._scores[: 1 + len(others)]

    def _run(
        self, current: int, proposed: Sequence[int], place: int
    ) -> tuple[list[int], list[float]]:
        """Return the best token after `current`, whose place is given, and after each proposal."""
        count = 1 + len(proposed)
        if self._count != count:
            self._resize(count)
        self._ids[0] = current
        self._ids[1:count] = proposed
        self._last[0] = place + count - 1
        self._total[0] = place + count
        if self._far:
            # What lies here is copied to the GPU when it is bound, and not again.
            self._bind_places()
            bind_input(self._binding, "ids", self._ids[None, :count])
            self._caches.bind_read(self._binding)
        self._session.run_with_iobinding(self._binding)
        if self._far:
            self._binding.synchronize_outputs()
        return self._token[:count].tolist(), self._log_prob[:count].tolist()

    def _bind_places(self) -> None:
        bind_input(self._binding, "last", self._last)
        bind_input(self._binding, "total", self._total)

    def _resize(self, count: int) -> None:
        self._count = 0
        bind_input(self._binding, "ids", self._ids[None, :count])
        bind_output(self._binding, "token", self._token[None, :count])
        bind_output(self._binding, "log_prob", self._log_prob[None, :count])
        if self._scores_name:
            if count > len(self._scores):
                self._scores = np.zeros((count, self._scores.shape[1]), np.float32)
            bind_output(self._binding, self._scores_name, self._scores[None, :count])
        self._count = count


def _cut(result: Decoded, most: int) -> Decoded:
    """End a hypothesis with too many new tokens; most likely it runs into a loop."""
    surplus = min(repeated_at_end(result.tokens), most)
    kept = len(result.tokens) - surplus
    del result.tokens[kept:], result.log_probs[kept:]
    result.ended = result.cut_short = True
    return result


def rejoined(rest: list[int], current: int) -> tuple[list[int], list[int]]:
    """Return what is left of a draft after `current`, and what of it is worth proposing."""
    if current in rest[:REJOIN_TOKENS]:
        rest = rest[rest.index(current) + 1 :]
        return rest, rest if len(rest) >= REJOIN_LEAST else []
    return rest, []
