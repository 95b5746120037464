"""Streaming CTC: WeNet U2++, zipformer2 and NeMo's cache-aware FastConformer.

In: a model package of the family ``streaming-ctc`` (model, tokens). Out: `Hypothesis`. Runs on the
thread that uses the stream.
"""

from __future__ import annotations

from pathlib import Path

from harkd.errors import ModelDamagedError
from harkd.hotword_list import Hotwords
from harkd.model_package import Manifest
from harkd.recognizer.chunk_model import ChunkModel
from harkd.recognizer.chunk_stream import ChunkStream
from harkd.recognizer.ctc_beam import BeamCtc
from harkd.recognizer.ctc_phrases import CtcJudge, KeepingCtc
from harkd.recognizer.onnx import fetch_anew
from harkd.recognizer.phrase_scorer import OpenText, PhraseScorer, PhraseScores
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.protocol import EVERYTHING, Effort
from harkd.recognizer.search import GreedyCtc, Search
from harkd.recognizer.symbols import BLANKS


class StreamingCtc(ChunkModel):
    """A loaded model.

    Args:
        folder: The package's directory.
        manifest: Its manifest.
        threads: Threads for each pass.
        effort: Nothing can be left out.
        device: Where the encoder is tried.

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
        super().__init__(folder, manifest, threads, effort, ("model", "tokens"), device)
        self.require_symbols(self.encoder.output_shape[2])
        blank = self.symbols.blank
        if blank is None:
            raise ModelDamagedError(
                f"{self.paths['tokens']} names no blank: none of {', '.join(BLANKS)}",
                fetch_anew(self.paths["tokens"]),
            )
        self._blank = blank
        self._keeps = False

    def stream(self, hotwords: Hotwords = ()) -> ChunkStream:
        """Begin a segment; with hotwords, by beam search, which costs more."""
        if not hotwords:
            return ChunkStream(self, self.search)
        phrases = self.phrases(hotwords)
        return ChunkStream(self, lambda: self._keeping(BeamCtc(self._blank, phrases)))

    def search(self) -> Search:
        """Begin a search."""
        return self._keeping(GreedyCtc(self._blank))

    def vocabulary(self) -> Vocabulary:
        """Return the tokens by their letters; streams that begin from now on can be scored."""
        self._keeps = True
        return super().vocabulary()

    def score(self, scorer: PhraseScorer, open_text: OpenText, search: Search) -> PhraseScores:
        """Return which phrases near to an open text explain what was heard."""
        if not isinstance(search, KeepingCtc) or not search.outputs:
            return scorer.exact(open_text)
        return scorer.judged(open_text, CtcJudge(search.outputs, self._blank))

    def _keeping(self, search: Search) -> Search:
        return KeepingCtc(search) if self._keeps else search
