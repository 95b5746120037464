"""What the families with a streaming encoder share when they are loaded.

In: a model package. Out: its encoder and its symbols. Loading runs on the caller's thread.
"""

from __future__ import annotations

from pathlib import Path

from harkd.errors import ModelDamagedError
from harkd.hotword_list import Hotwords
from harkd.model_package import Manifest
from harkd.recognizer.chunk_encoder import ChunkEncoder, EncoderState
from harkd.recognizer.chunk_layout import UnknownLayoutError
from harkd.recognizer.hotwords import Hotwords as Phrases
from harkd.recognizer.onnx import fetch_anew, give_back_memory, paths_of
from harkd.recognizer.phrase_scorer import OpenText, PhraseScorer, PhraseScores
from harkd.recognizer.phrase_tokens import Vocabulary
from harkd.recognizer.placement import Placement
from harkd.recognizer.protocol import Effort, Work
from harkd.recognizer.search import Search
from harkd.recognizer.symbols import Symbols

WRONG_FILES = "check that model.yaml names the right files"


class ChunkModel:
    """A loaded model.

    Args:
        folder: The package's directory.
        manifest: Its manifest.
        threads: Threads for each pass.
        effort: Nothing can be left out: each chunk is encoded once.
        roles: Its files: the encoder first, the symbols last.
        device: Where the encoder is tried: ``cpu`` or ``cuda``; the rest is too small for a GPU.

    Raises:
        ModelDamagedError: A file is not what the family needs.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int,
        effort: Effort,
        roles: tuple[str, ...],
        device: str,
    ) -> None:
        self.paths = paths_of(folder, manifest, roles)
        self.name = manifest.name
        self.language = manifest.languages[0]
        self.max_segment_s = manifest.limits.max_segment_s
        self.work = Work()
        self.effort = effort
        self.symbols = Symbols(self.paths[roles[-1]])
        self.placement = Placement(device)
        """Where its sessions are"""
        try:
            self.encoder = ChunkEncoder(self.paths[roles[0]], threads, self.placement, roles[0])
        except UnknownLayoutError as error:
            raise ModelDamagedError(f"{self.paths[roles[0]]} {error}", WRONG_FILES) from error
        self.provider = self.placement.provider
        self.spare: list[EncoderState] = []
        """States that no stream uses now."""
        self._phrases: tuple[Hotwords, Phrases] | None = None

    def phrases(self, hotwords: Hotwords) -> Phrases:
        """Return what a beam search needs of hotwords that it can write."""
        kept = self._phrases
        if not kept or kept[0] != hotwords:
            written = [
                (tokens, each.boost)
                for each in hotwords
                if each.boost
                for tokens in self.symbols.spelled(each.phrase)
            ]
            kept = self._phrases = (hotwords, Phrases(written))
        return kept[1]

    def vocabulary(self) -> Vocabulary:
        """Return the tokens by their letters, for a `PhraseScorer`."""
        return Vocabulary(self.symbols.texts(), self._spelled)

    def score(
        self,
        scorer: PhraseScorer,
        open_text: OpenText,
        search: Search,  # noqa: ARG002
    ) -> PhraseScores:
        """Return which phrase an open text is: a family may know more of what was heard."""
        return scorer.exact(open_text)

    def _spelled(self, phrase: str) -> list[int]:
        """Return the tokens that a phrase is most simply written with; none if it cannot be."""
        return next(iter(self.symbols.spelled(phrase)), [])

    def rest(self) -> None:
        """Give back what is no longer used."""
        give_back_memory()

    def require_symbols(self, tokens: int) -> None:
        """Raise ModelDamagedError if the symbols are more than the tokens of the graph."""
        if len(self.symbols) > tokens:
            path = self.paths["tokens"]
            raise ModelDamagedError(
                f"{path} has {len(self.symbols)} tokens, but the model {tokens}: "
                "they are not from one model",
                fetch_anew(path),
            )
