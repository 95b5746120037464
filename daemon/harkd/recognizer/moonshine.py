"""Moonshine (v1): an encoder that sees the whole segment, a decoder that goes token by token.

In: a model package of the family ``moonshine`` (encoder, merged decoder, tokenizer). Out:
`Hypothesis`. A partial encodes all audio so far again; see docs/architecture.md for the cost.
The model: https://arxiv.org/abs/2410.15608. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import ModelDamagedError
from harkd.hotword_list import Hotwords
from harkd.model_package import Manifest
from harkd.recognizer.hotword_rescoring import (
    Replacement,
    Variants,
    variants_of,
    winners,
    with_winners,
)
from harkd.recognizer.moonshine_continuations import MoonshineHeard, MoonshineSilence
from harkd.recognizer.moonshine_tokens import (
    STEM_SAMPLES,
    TOKEN_END,
    TOKEN_START,
    Decoded,
    Silence,
    Tokenizer,
    hypothesis_of,
)
from harkd.recognizer.onnx import (
    failed,
    fetch_anew,
    give_back_after,
    give_back_memory,
)
from harkd.recognizer.phrase_scorer import OpenText, PhraseScorer, PhraseScores
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.placement import Placement
from harkd.recognizer.protocol import EVERYTHING, NEVER_UNSURE, Effort, Hypothesis, Work
from harkd.recognizer.search import log_prob as log_prob_of
from harkd.recognizer.search import log_softmax

UNWRITTEN_MOST = 1024
"""Base's tokenizer leaves out 768 special tokens at the end of the vocabulary."""

MOST_TOKENS = 1024
"""A hotword is looked for among so many tokens; an utterance has 100 or 200."""

Float32 = NDArray[np.float32]


class Moonshine:
    """A loaded Moonshine model.

    Args:
        folder: The package's directory.
        manifest: Its manifest.
        threads: Threads for each pass.
        effort: What it may leave out; these graphs have no way to encode incrementally.
        device: Where it is tried: ``cpu`` or ``cuda``.

    Raises:
        ModelDamagedError: A file is not what the family needs.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int,
        effort: Effort = EVERYTHING,
        device: str = "cpu",
    ) -> None:
        paths = {role: folder / manifest.files[role].path for role in manifest.files}
        for role in ("encoder", "decoder", "tokenizer"):
            if role not in paths:
                raise ModelDamagedError(
                    f"{folder / 'model.yaml'} names no {role} file, which the family moonshine "
                    "needs",
                    fetch_anew(folder / "model.yaml"),
                )
        self.name = manifest.name
        self.language = manifest.languages[0]
        self.max_segment_s = manifest.limits.max_segment_s
        self.work = Work()
        self.effort = effort
        self.tokenizer = Tokenizer(paths["tokenizer"])
        self._variants: tuple[Hotwords, Variants] | None = None
        self._tokens_per_s = manifest.limits.max_tokens_per_s
        self.placement = Placement(device)
        """Where its sessions are"""
        self._encoder = self.placement.open("encoder", paths["encoder"], threads, arena=False)
        self._decoder = self.placement.open("decoder", paths["decoder"], threads, arena=True)
        self.provider = self.placement.provider
        self._read_shapes(paths)
        self.silence = Silence(MoonshineSilence(self).log_prob)

    def stream(self, hotwords: Hotwords = ()) -> MoonshineStream:
        """Begin a segment."""
        if not hotwords:
            return MoonshineStream(self)
        kept = self._variants
        if not kept or kept[0] != hotwords:
            kept = self._variants = (hotwords, variants_of(hotwords, self.tokenizer))
        return MoonshineStream(self, kept[1])

    def rest(self) -> None:
        """Give back what the passes over a growing segment have left behind."""
        give_back_memory()

    def _read_shapes(self, paths: dict[str, Path]) -> None:
        """Learn the inputs and outputs, which differ between the published sizes."""
        encoder_inputs = {i.name for i in self._encoder.get_inputs()}
        if "input_values" not in encoder_inputs:
            raise ModelDamagedError(
                f"{paths['encoder']} is no Moonshine encoder: its inputs are "
                f"{', '.join(sorted(encoder_inputs)[:4])} …",
                "check that model.yaml names the right files",
            )
        self._encoder_masked = "attention_mask" in encoder_inputs
        inputs = {i.name: i for i in self._decoder.get_inputs()}
        outputs = [o.name for o in self._decoder.get_outputs()]
        self._decoder_masked = "encoder_attention_mask" in inputs
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        self._present = [name.replace("past_key_values", "present") for name in self._past]
        self._own = [i for i, name in enumerate(self._past) if ".decoder." in name]
        self.own_caches = [self._past[i] for i in self._own]
        needed = {"input_ids", "encoder_hidden_states", "use_cache_branch"}
        if not self._past or not needed <= set(inputs) or not set(self._present) <= set(outputs):
            raise ModelDamagedError(
                f"{paths['decoder']} is no merged Moonshine decoder: its inputs are "
                f"{', '.join(list(inputs)[:4])} …",
                "check that model.yaml names the right files",
            )
        vocabulary = self._decoder.get_outputs()[0].shape[-1]
        known = len(self.tokenizer)
        if isinstance(vocabulary, int) and not 0 <= vocabulary - known <= UNWRITTEN_MOST:
            raise ModelDamagedError(
                f"{paths['tokenizer']} has {known} tokens, but the decoder "
                f"{vocabulary}: they are not from one model",
                fetch_anew(paths["tokenizer"]),
            )
        self._empty = {
            name: np.zeros((1, inputs[name].shape[1], 0, inputs[name].shape[3]), np.float32)
            for name in self._past
        }  # (batch, heads, 0 tokens, head size)

    def encode(self, audio: Float32) -> Float32:
        """Encode audio.

        Args:
            audio: float32, shape (n,), 16 kHz mono, -1…1, n ≥ `STEM_SAMPLES`.

        Returns:
            float32, shape (1, frames, width).
        """
        feed: dict[str, Any] = {"input_values": audio[None]}  # (1, n)
        if self._encoder_masked:
            feed["attention_mask"] = np.ones((1, len(audio)), np.int64)
        hidden: Float32 = self._encoder.run(None, feed)[0]
        return hidden

    def decode(
        self,
        hidden: Float32,
        samples: int,
        draft: list[int] | None = None,
        unsure: float = NEVER_UNSURE,
        watch: NDArray[np.int64] | None = None,
        caches: dict[str, Float32] | None = None,
    ) -> Decoded:
        """Decode greedily, for at most `max_tokens_per_s` times the audio's length.

        Args:
            hidden: float32, shape (1, frames, width), from `encode`.
            samples: Length of the audio in samples.
            draft: Tokens that are likely: verified in the first pass, which goes over all of them.
            unsure: A new token, but for the first of all, whose log-probability is below this ends
                the hypothesis, and is left out.
            watch: Tokens whose log-probability in each place is wanted.
            caches: Where the caches are put, for `ask`; each (1, heads, length, head).
        """
        most = int(samples / RATE_HZ * self._tokens_per_s) + 2
        feed: dict[str, Any] = dict(self._empty)
        feed["encoder_hidden_states"] = hidden
        if self._decoder_masked:
            feed["encoder_attention_mask"] = np.ones((1, samples), np.int64)
        feed["use_cache_branch"] = np.array([False])
        given = [TOKEN_START, *(draft or [])[: most - 1]]
        wanted, names = ["logits", *self._present], self._past
        result = Decoded()
        while len(result.tokens) < most:
            feed["input_ids"] = np.array([given], np.int64)
            logits, *present = self._decoder.run(wanted, feed)
            result.passes += 1
            result.rows += len(given)
            written = logits[0, :, : len(self.tokenizer)]  # (rows, tokens)
            agreed = self._take(written, given[1:], result, unsure)
            if watch is not None:
                seen = log_softmax(written)[:, watch]
                result.watched.extend(seen[: len(result.log_probs) - len(result.watched)])
            if caches is not None:
                caches.update(zip(names, present, strict=True))
            if result.ended:
                break
            feed.update(zip(names, present, strict=True))
            if names is self._past:
                self._cut(feed, 1 + agreed, len(given))
                # The encoder's keys and values stay what the first pass made of them.
                feed["use_cache_branch"] = np.array([True])
                names = [self._past[i] for i in self._own]
                wanted = ["logits", *(self._present[i] for i in self._own)]
            given = result.tokens[-1:]
        return result

    def vocabulary(self) -> Vocabulary:
        """Return the tokens by their letters, for a `PhraseScorer`."""
        return Vocabulary(self.tokenizer.texts(), self.tokenizer.spelled, TOKEN_END)

    def run_decoder(
        self, ids: NDArray[np.int64], heard: tuple[Float32, int], past: dict[str, Float32] | None
    ) -> tuple[Float32, dict[str, Float32]]:
        """Run the decoder for several hypotheses of the same audio.

        Args:
            ids: What each goes on with: int64, shape (n, tokens); n is 1 where there is no past.
            heard: float32, shape (1, frames, width), from `encode`; and the audio's samples.
            past: The caches, each (n, heads, length, head); None at the beginning.

        Returns:
            Logits, float32, shape (n, tokens, those that can be written), and caches: all of them
            at the beginning, then `own_caches` alone.
        """
        count = len(ids)
        names = self._past if past is None else self.own_caches
        wanted = ["logits", *(name.replace("past_key_values", "present") for name in names)]
        feed: dict[str, Any] = dict(self._empty if past is None else past)
        feed["input_ids"] = ids
        feed["encoder_hidden_states"] = np.repeat(heard[0], count, axis=0)
        if self._decoder_masked:
            feed["encoder_attention_mask"] = np.ones((count, heard[1]), np.int64)
        feed["use_cache_branch"] = np.array([past is not None])
        logits, *caches = self._decoder.run(wanted, feed)
        return logits[:, :, : len(self.tokenizer)], dict(zip(names, caches, strict=True))

    def ask(
        self,
        heard: tuple[Float32, int],
        caches: dict[str, Float32],
        before: Sequence[int],
        others: Sequence[int],
    ) -> Float32:
        """Return the log-probabilities after some of the tokens heard, and after each of others.

        Args:
            heard: As for `run_decoder`.
            caches: What `decode` has put there.
            before: The first of what it found.
            others: What comes after them instead.

        Returns:
            float32, shape (1 + others, tokens).
        """
        ids = np.array([[before[-1] if before else TOKEN_START, *others]], np.int64)
        past = dict(caches)
        for name in self.own_caches:
            past[name] = caches[name][:, :, : len(before)]
        logits, _ = self.run_decoder(ids, heard, past)
        return log_softmax(logits[0])

    def _take(self, logits: Float32, proposed: list[int], result: Decoded, unsure: float) -> int:
        """Add the tokens up to the first that is not as proposed; return how many were.

        Args:
            logits: float32, shape (1 + proposed, tokens that can be written).
            proposed: The tokens that the rows after the first were computed for.
            result: Where they are added.
            unsure: As in `decode`.
        """
        for agreed, row in enumerate(logits):
            token = int(row.argmax())
            drafted = agreed < len(proposed) and token == proposed[agreed]
            log_prob = log_prob_of(row, token)
            if log_prob < unsure and result.tokens and not drafted:
                result.ended = result.cut_short = True
                return agreed
            result.log_probs.append(log_prob)
            if token == TOKEN_END:
                result.ended = True
                return agreed
            result.tokens.append(token)
            if not drafted:
                return agreed
        return len(proposed)

    def _cut(self, feed: dict[str, Any], kept: int, held: int) -> None:
        """Forget what the decoder's own cache holds beyond the first `kept` of `held` tokens."""
        if kept < held:
            for i in self._own:
                feed[self._past[i]] = feed[self._past[i]][:, :, :kept]


Encoded = tuple[Float32, int, Decoded]
"""The encoder's output, for how many samples, and what was decoded of it."""


class MoonshineStream:
    """One segment for a model with full context: gathers audio, recognizes on demand."""

    def __init__(self, model: Moonshine, variants: Variants | None = None) -> None:
        self._model = model
        self._variants = variants
        self._won: list[Replacement] = []
        self._chunks: list[NDArray[np.int16]] = []
        self._rough: Hypothesis | None = None
        self._exact: Hypothesis | None = None
        self._draft: list[int] = []
        self._encoded: Encoded | None = None  # of the last two

    def accept(self, samples: NDArray[np.int16]) -> None:
        """Take the next audio: int16, shape (n,), 16 kHz mono."""
        if len(samples):
            self._chunks.append(samples)
            self._rough = self._exact = None

    def hypothesis(self) -> Hypothesis:
        """Recognize all audio so far, up to a new token that is unlikely."""
        if self._rough is None:
            decoded, self._rough = self._recognize(self._model.effort.unsure)
            if not decoded.cut_short:
                self._exact = self._rough
        return self._rough

    def prepare(self) -> Hypothesis:
        """Recognize all audio so far."""
        if self._exact is None:
            _, self._exact = self._recognize(NEVER_UNSURE)
            self._rough = self._exact
        return self._exact

    def finish(self) -> Hypothesis:
        """Return the same as `prepare`: this family needs no padding."""
        return self.prepare()

    def phrases(self, scorer: PhraseScorer) -> PhraseScores:
        """Return which phrases explain the audio so far; before or after `finish`.

        Raises:
            RecognitionError: The model failed on this audio.
        """
        self.prepare()
        if self._encoded is None:
            return PhraseScores(OpenText("", (), 0.0))
        hidden, samples, decoded = self._encoded
        open_text = decoded.open_text(self._model.tokenizer)
        try:
            scores = scorer.score(open_text, MoonshineHeard(self._model, hidden, samples))
        except Exception as error:
            raise failed(self._model.name, samples, error) from error
        self._model.work.add(Work(decoder_passes=scores.passes, decoder_rows=scores.rows))
        return scores

    def restart(self) -> None:
        """Forget all audio; the draft stays."""
        self._chunks.clear()
        self._rough = self._exact = self._encoded = None

    def _recognize(self, unsure: float) -> tuple[Decoded, Hypothesis]:
        if not self._chunks:
            return Decoded(), Hypothesis("", 0.0)
        audio = np.concatenate(self._chunks)
        self._chunks = [audio]
        samples: Float32 = audio.astype(np.float32) / np.float32(32768)
        if len(samples) < STEM_SAMPLES:
            samples = np.pad(samples, (0, STEM_SAMPLES - len(samples)))
        try:
            hidden = self._model.encode(samples)
            exact = self._variants is not None and unsure == NEVER_UNSURE
            watch = self._variants.tokens if self._variants and exact else None
            caches: dict[str, Float32] | None = {} if exact else None
            decoded = self._model.decode(hidden, len(samples), self._draft, unsure, watch, caches)
            heard = decoded
            if self._variants:
                if caches is not None:
                    self._won = self._winners(
                        decoded, self._variants, (hidden, len(samples)), caches
                    )
                heard = with_winners(decoded, self._won)
            hypothesis = hypothesis_of(heard, self._model.tokenizer)
        except Exception as error:
            raise failed(self._model.name, len(samples), error) from error
        self._encoded = (hidden, len(samples), heard)
        self._draft = decoded.tokens if self._model.effort.draft else []
        seconds = len(samples) / RATE_HZ
        give_back_after(seconds)
        self._model.work.add(decoded.work(seconds))
        return decoded, hypothesis

    def _winners(
        self,
        plain: Decoded,
        variants: Variants,
        heard: tuple[Float32, int],
        caches: dict[str, Float32],
    ) -> list[Replacement]:
        """Return the hotwords that are likelier than what was heard."""
        if not plain.ended:
            return []
        model = self._model

        def ask(place: int, others: Sequence[int]) -> Float32:
            model.work.add(Work(decoder_passes=1, decoder_rows=1 + len(others)))
            return model.ask(heard, caches, plain.tokens[:place], others)

        begins = [*map(model.tokenizer.begins, plain.tokens), True]
        return winners(plain, variants, begins, ask, MOST_TOKENS)
