"""Several hypotheses of the lean Moonshine at once: a token more for each in one call.

In: the encoder's keys and values, and how the hypotheses grow. Out: the log-probabilities of what
comes next. The hypotheses listen to the same keys and values, and each has a cache of its own, so
six cost half as much again as one. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.recognizer.chunk_buffers import Buffers
from harkd.recognizer.lean_decoder import SCORES, LeanDecoder, caches_of
from harkd.recognizer.moonshine_tokens import TOKEN_END, TOKEN_START, Silence
from harkd.recognizer.onnx import bind_input, bind_output

MOST_TOKENS = 64
"""Of one hypothesis; phrases are short, and a cache is taken for all."""

Float32 = NDArray[np.float32]


class LeanContinuations:
    """The hypotheses, their caches, and the bindings to them.

    Args:
        decoder: The graph; it must take several.
        paths: The most hypotheses.
    """

    def __init__(self, decoder: LeanDecoder, paths: int) -> None:
        self._decoder, self._session = decoder, decoder.session
        self.paths = paths
        self.most_tokens = min(MOST_TOKENS, decoder.capacity)
        # onnxruntime keeps the addresses alone: what is bound must live as long as the bindings.
        self._names = [f"{kind}_{i}" for i in range(decoder.layers) for kind in ("key", "value")]
        self._far = decoder.on_gpu
        self._caches = caches_of(decoder, paths, self.most_tokens)
        self._alone: Buffers | None = None
        self._ids = np.zeros((paths, 1), np.int64)
        self._last = np.zeros(paths, np.int32)
        self._total = np.zeros(1, np.int32)
        self._log_probs: Float32 = np.zeros((paths, 1, decoder.tokens), np.float32)
        self._cross: list[NDArray[Any]] = []
        # The GPU's caches cannot be cut: there, all hypotheses run each time, which costs the same.
        counts = [paths] * paths if self._far else range(1, paths + 1)
        self._bindings = [self._bound(count) for count in counts]

    def attend_to(self, cross: list[NDArray[Any]]) -> None:
        """Listen to these keys and values from now on: each (1, heads, frames, head), in turn."""
        self._cross = list(map(np.ascontiguousarray, cross))
        for binding in self._bindings:
            for name, array in zip(self._names, self._cross, strict=True):
                bind_input(binding, f"cross_{name}", array)

    def let_go(self) -> None:
        """Give back the keys and values; the next call must be `attend_to`."""
        self.attend_to([np.empty_like(each[:, :, :0]) for each in self._cross])

    def begin(self) -> Float32:
        """Return the log-probabilities of the first token: (1, tokens)."""
        self._last[:] = 0
        self._ids[0] = TOKEN_START
        return self._run(1)

    def advance(self, parents: list[int], tokens: list[int]) -> Float32:
        """Go on with some hypotheses, a token more for each; return (hypotheses, tokens)."""
        count, held = len(parents), int(self._last[0]) + 1
        if parents != list(range(count)):
            caches = self._caches.values()
            for cache in caches:
                cache[:count, :, :held] = cache[parents, :, :held]
            if self._far:
                self._caches.put(caches)
        self._ids[:count, 0] = tokens
        self._last[:] = held
        return self._run(count)

    def rows(self, tokens: tuple[int, ...]) -> Float32:
        """Return the log-probabilities at each of some tokens and after them; ends all hypotheses.

        float32, shape (tokens + 1, all tokens), in one call. More tokens than a hypothesis may have
        are not looked at: all are impossible then.
        """
        count = len(tokens) + 1
        if count > self.most_tokens:
            return np.full((count, self._log_probs.shape[2]), -np.inf, np.float32)
        ids = np.array([[TOKEN_START, *tokens]], np.int64)
        last, total = np.array([count - 1], np.int32), np.array([count], np.int32)
        log_probs = np.zeros((1, count, self._log_probs.shape[2]), np.float32)
        binding = self._session.io_binding()
        if self._far:
            self._alone = self._alone or caches_of(self._decoder, 1, self.most_tokens)
            self._alone.bind(binding, binding)
        else:
            self._bind_caches(binding, 1)
        for name, cross in zip(self._names, self._cross, strict=True):
            bind_input(binding, f"cross_{name}", cross)
        for name, array in (("ids", ids), ("last", last), ("total", total)):
            bind_input(binding, name, array)
        bind_output(binding, SCORES, log_probs)
        self._session.run_with_iobinding(binding)
        if self._far:
            binding.synchronize_outputs()
        found: Float32 = log_probs[0]
        return found

    def log_prob_of(self, tokens: tuple[int, ...], end: int) -> float:
        """Return the log-probability of tokens and the end, in one call; ends all hypotheses."""
        return float(self.rows(tokens)[range(len(tokens) + 1), [*tokens, end]].sum())

    def _run(self, count: int) -> Float32:
        self._total[0] = self._last[0] + 1
        binding = self._bindings[count - 1]
        if self._far:
            # What lies here is copied to the GPU when it is bound, and not again.
            self._bind_inputs(binding, self.paths)
            self._caches.bind_read(binding)
        self._session.run_with_iobinding(binding)
        if self._far:
            binding.synchronize_outputs()
        return self._log_probs[:count, 0]

    def _bound(self, count: int) -> Any:
        """Return a binding for so many hypotheses, but for what they listen to."""
        binding = self._session.io_binding()
        if self._far:
            self._caches.bind(binding, binding)
        else:
            self._bind_caches(binding, count)
        self._bind_inputs(binding, count)
        bind_output(binding, SCORES, self._log_probs[:count])
        return binding

    def _bind_caches(self, binding: Any, count: int) -> None:
        for name, cache in zip(self._names, self._caches.values(), strict=True):
            bind_input(binding, name, cache[:count])
            bind_output(binding, f"new_{name}", cache[:count])

    def _bind_inputs(self, binding: Any, count: int) -> None:
        bind_input(binding, "ids", self._ids[:count])
        bind_input(binding, "last", self._last[:count])
        bind_input(binding, "total", self._total)


class SpareContinuations:
    """The hypotheses that no stream uses now, and those that hear nothing.

    Args:
        decoder: The graph.
        silence: Makes the keys and values of silence.
    """

    def __init__(self, decoder: LeanDecoder, silence: Callable[[], list[NDArray[Any]]]) -> None:
        self._decoder = decoder
        self._spare: list[LeanContinuations] = []
        self._make_silence = silence
        self._silent: LeanContinuations | None = None
        self.silence = Silence(self._log_prob_in_silence)

    def take(self, paths: int) -> LeanContinuations:
        """Return one for so many hypotheses or more. Any thread."""
        try:
            kept = self._spare.pop()
        except IndexError:
            return LeanContinuations(self._decoder, paths)
        return kept if kept.paths >= paths else LeanContinuations(self._decoder, paths)

    def give_back(self, used: LeanContinuations) -> None:
        """Let other streams have one."""
        used.let_go()
        self._spare.append(used)

    def _log_prob_in_silence(self, tokens: tuple[int, ...]) -> float:
        if self._silent is None:
            silent = LeanContinuations(self._decoder, 1)
            silent.attend_to(self._make_silence())
            self._silent = silent
        return self._silent.log_prob_of(tokens, TOKEN_END)


class LeanHeard:
    """What a stream has heard, for a `PhraseScorer`.

    Args:
        spare: The model's.
        cross: The decoder's keys and values.
    """

    def __init__(self, spare: SpareContinuations, cross: list[NDArray[Any]]) -> None:
        self._spare = spare
        self._cross = cross
        self._used: list[LeanContinuations] = []

    def continuations(self, paths: int) -> LeanContinuations:
        """Return a decoder for so many hypotheses."""
        self._used.append(self._spare.take(paths))
        self._used[-1].attend_to(self._cross)
        return self._used[-1]

    def rows(self, tokens: tuple[int, ...]) -> Float32:
        """Return the log-probabilities at each of some tokens, by themselves, and after them."""
        used = self._used[-1] if self._used else self.continuations(1)
        return used.rows(tokens)

    def silence(self, tokens: tuple[int, ...]) -> float:
        """Return the log-probability of tokens and the end where nothing is heard."""
        return self._spare.silence.log_prob(tokens)

    def let_go(self) -> None:
        """Let other streams have the caches."""
        while self._used:
            self._spare.give_back(self._used.pop())
