"""The lean Moonshine's decoder: greedy, with a draft that is verified instead of decoded again.

In: the encoder's keys and values, and what was recognized before. Out: tokens with their
log-probabilities. One call gives the best token after each of its inputs, so a draft of any length
costs one call where it is right; where it is wrong, decoding goes on token by token until it meets
the draft again. The cache is written in place. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.moonshine_tokens import TOKEN_END, TOKEN_START, Decoded
from harkd.recognizer.onnx import dtype_of, open_session, shared_memory

REJOIN_TOKENS = 6
"""A token is looked for so far ahead in what is left of the draft."""
REJOIN_LEAST = 2
"""A call for fewer drafted tokens than this costs more than it saves."""


class LeanDecoder:
    """The loaded graph.

    Args:
        path: The decoder's file.
        threads: Threads for each pass.
        capacity: The most tokens of one hypothesis.

    Raises:
        ModelDamagedError: onnxruntime cannot load the file.
        KeyError, ValueError: The graph is not what its file should hold.
    """

    def __init__(self, path: Path, threads: int, capacity: int) -> None:
        self.session = open_session(path, threads, arena=True)
        properties = self.session.get_modelmeta().custom_metadata_map
        self.layers = int(properties["decoder_layers"])
        self.capacity = min(capacity, int(properties["most_tokens"]))
        self.real = dtype_of(self.session, "key_0")
        cache = next(i.shape for i in self.session.get_inputs() if i.name == "key_0")
        self.cache_shape = (1, int(cache[1]), self.capacity, int(cache[3]))


class DecoderState:
    """The cache of one hypothesis, and the buffers that the graph reads and writes.

    Args:
        decoder: The graph.
    """

    def __init__(self, decoder: LeanDecoder) -> None:
        self._session = decoder.session
        self._capacity = decoder.capacity
        self._binding = decoder.session.io_binding()
        for i in range(decoder.layers):
            for kind in ("key", "value"):
                cache = shared_memory(np.zeros(decoder.cache_shape, decoder.real))
                self._binding.bind_ortvalue_input(f"{kind}_{i}", cache)
                self._binding.bind_ortvalue_output(f"new_{kind}_{i}", cache)
        self._last = np.zeros(1, np.int32)
        self._total = np.zeros(1, np.int32)
        self._binding.bind_cpu_input("last", self._last)
        self._binding.bind_cpu_input("total", self._total)
        self._ids = np.zeros((1, 0), np.int64)
        self._token = np.zeros((1, 0), np.int64)
        self._log_prob = np.zeros((1, 0), np.float32)
        self._cross: list[NDArray[Any]] = []

    def attend_to(self, cross: list[NDArray[Any]]) -> None:
        """Decode for these keys and values from now on: each (1, heads, frames, head), in turn."""
        self._cross = cross  # bound by address, so they must live as long
        for j, array in enumerate(cross):
            self._binding.bind_cpu_input(f"cross_{('key', 'value')[j % 2]}_{j // 2}", array)

    def decode(
        self,
        draft: Decoded,
        most: int,
        *,
        trusted: int = 0,
        closing: frozenset[int] = frozenset(),
    ) -> Decoded:
        """Decode greedily.

        Args:
            draft: What was recognized last, in this state; may be empty.
            most: The most tokens.
            trusted: So many of the draft's tokens are taken over unseen; their cache stays.
            closing: A new token of these is taken for the last one, unseen.
        """
        most = min(most, self._capacity - 1)
        trusted = min(trusted, len(draft.tokens), most)
        result = Decoded(draft.tokens[:trusted], draft.log_probs[:trusted])
        rest = draft.tokens[trusted:]
        current = result.tokens[-1] if result.tokens else TOKEN_START
        proposed = rest
        while len(result.tokens) < most:
            place = len(result.tokens)
            proposed = proposed[: most - place - 1]
            best, log_probs = self._run(current, proposed, place)
            result.passes += 1
            result.rows += 1 + len(proposed)
            for i, (token, log_prob) in enumerate(zip(best, log_probs, strict=True)):
                result.log_probs.append(log_prob)
                if token == TOKEN_END:
                    result.ended = True
                    return result
                result.tokens.append(token)
                current = token
                if i < len(proposed) and token != proposed[i]:
                    rest = proposed[i:]
                    break
            else:
                rest = rest[len(proposed) :] if proposed else rest
            rest, proposed = rejoined(rest, current)
            if current in closing and not proposed:
                result.ended = True
                return result
        return result

    def _run(self, current: int, proposed: list[int], place: int) -> tuple[list[int], list[float]]:
        """Return the best token after `current`, whose place is given, and after each proposal."""
        count = 1 + len(proposed)
        if self._ids.shape[1] != count:
            self._resize(count)
        self._ids[0, 0] = current
        self._ids[0, 1:] = proposed
        self._last[0] = place + count - 1
        self._total[0] = place + count
        self._session.run_with_iobinding(self._binding)
        return self._token[0].tolist(), self._log_prob[0].tolist()

    def _resize(self, count: int) -> None:
        self._ids = np.empty((1, count), np.int64)
        self._token = np.empty((1, count), np.int64)
        self._log_prob = np.empty((1, count), np.float32)
        self._binding.bind_cpu_input("ids", self._ids)
        for name, array in (("token", self._token), ("log_prob", self._log_prob)):
            self._binding.bind_output(
                name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )


def rejoined(rest: list[int], current: int) -> tuple[list[int], list[int]]:
    """Return what is left of a draft after `current`, and what of it is worth proposing."""
    if current in rest[:REJOIN_TOKENS]:
        rest = rest[rest.index(current) + 1 :]
        return rest, rest if len(rest) >= REJOIN_LEAST else []
    return rest, []
