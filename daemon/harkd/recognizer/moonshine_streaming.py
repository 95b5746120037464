"""Moonshine as it listens: a chunk of audio is encoded once, when it is there.

In: a model package of the family ``moonshine-streaming``: the graphs of ``moonshine-lean`` with
weights that were taught to hear no more than a chunk and what lies just behind it, and in the
manifest's section ``streaming`` how long these are. Out: `Hypothesis`. A partial costs the chunks
that are new and the tokens that changed; a final costs the last chunk, which is not full, and one
look at each token. Where nobody asked for partials, as for a recorded file, it is heard all at once
instead, which costs half as much. A final that is in doubt is heard once more, the other way, and
the likelier of the two texts counts. Runs on the thread that uses the stream.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ
from harkd.errors import ModelDamagedError
from harkd.model_package import Manifest, Streaming
from harkd.recognizer.encoding import Encoded, Encoding
from harkd.recognizer.lean_encoder import FRAME_SAMPLES, LeanEncoder
from harkd.recognizer.moonshine_lean import MoonshineLean
from harkd.recognizer.protocol import EVERYTHING, Effort, as_log_prob
from harkd.recognizer.streaming_encoder import StreamingEncoderState


class MoonshineStreaming(MoonshineLean):
    """A loaded model.

    Args:
        folder: The package's directory.
        manifest: Its manifest.
        threads: Threads for each pass.
        effort: What it may leave out; it never encodes anything anew.
        device: Where it is tried: ``cpu`` or ``cuda``.

    Raises:
        ModelDamagedError: A file is not what the family needs, or the manifest does not say how it
            listens.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int,
        effort: Effort = EVERYTHING,
        device: str = "cpu",
    ) -> None:
        if manifest.streaming is None:
            raise ModelDamagedError(
                f"{folder / 'model.yaml'} has no section streaming, which the family "
                f"{manifest.family} needs",
                "make the package again: harkd-convert moonshine … --streaming CHUNK:LOOK_AHEAD",
            )
        self.plan = manifest.streaming
        super().__init__(folder, manifest, threads, effort, device)
        self.doubted = as_log_prob(self.plan.doubt_below)

    def begin(self, capacity_s: float) -> Encoding:
        """Begin to encode a segment, with room for so many seconds."""
        return StreamingEncoding(self.encoder, self.plan, capacity_s)


class StreamingEncoding:
    """An `Encoding` in passes over chunks.

    Args:
        encoder: The graphs.
        plan: How it listens; at once, too, if a final may be in doubt.
        capacity_s: Room for so many seconds at first.
    """

    def __init__(self, encoder: LeanEncoder, plan: Streaming, capacity_s: float) -> None:
        self._state = StreamingEncoderState(encoder, plan, capacity_s)
        self._both_ways = plan.doubt_below > 0
        self._live = False
        """Whether a partial has led to a chunk"""
        self._passes = 0
        self._tail: NDArray[Any] | None = None
        """All that followed the kept frames, where a final was prepared since the last pass."""
        self._whole: NDArray[Any] | None = None
        """All frames, where they were encoded at once since audio came last; `cross` is of that."""
        self._aside: NDArray[Any] | None = None
        """The same, where they were encoded in passes after that."""

    @property
    def samples(self) -> int:
        """Samples taken so far."""
        return self._state.samples

    @property
    def frames(self) -> int:
        """So many have been encoded, those included that are not for good."""
        if self._whole is not None:
            return int(self._whole.shape[2])
        if self._tail is None:
            return self._state.frames
        return self._state.kept + int(self._tail.shape[2])

    def accept(self, audio: NDArray[np.float32]) -> None:
        """Take the next audio: float32, shape (n,)."""
        self._state.accept(audio)
        self._whole = self._aside = None

    def encode(self, *, exact: bool, incremental: bool) -> Encoded:  # noqa: ARG002
        """Do the passes that are due and, if `exact`, one over what is left.

        For a partial before the first chunk is complete, that is all there is. If `exact` before a
        partial has led to a chunk, encode everything at once, if the plan allows it.
        """
        if exact and self._both_ways and not self._live:
            return self._encode_whole()
        encoded = self._encode_passes(exact=exact)
        self._live = self._state.kept > 0
        return encoded

    def listen_again(self) -> Encoded | None:
        """Encode for a final the other way: `cross` is of that until audio comes, or `listen_on`.

        At once what `encode` heard in passes, and in passes what it heard at once; None where both
        are the same, since it is all one pass.
        """
        if self._whole is None:
            return self._encode_whole()
        if not self._state.kept and not self._state.due:
            return None
        return self._encode_passes(exact=True)

    def listen_on(self) -> None:
        """Let `cross` be again that of what `encode` did."""
        self._whole, self._aside = self._aside, None

    def cross(self) -> list[NDArray[Any]]:
        """Return the decoder's keys and values of all frames: each (1, heads, frames, head)."""
        if self._whole is not None:
            return [each[None] for each in self._whole]
        return self._state.cross(self._tail)

    def _encode_whole(self) -> Encoded:
        self._whole = self._state.whole()
        heard = self._heard_after(self._passes + self._state.due)  # what all passes would hear
        return Encoded(1, self.frames * FRAME_SAMPLES / RATE_HZ, heard, anew=True)

    def _encode_passes(self, *, exact: bool) -> Encoded:
        self._whole, self._aside = None, self._whole
        passes, frames = self._state.advance()
        self._passes += passes
        heard = self._heard_after(self._passes)
        if passes:
            self._tail = None  # a pass hears more than what was left before it
        if exact or not self._state.kept:
            self._tail, left = self._state.rest()
            passes, frames = passes + min(1, left), frames + left
        return Encoded(passes, frames * FRAME_SAMPLES / RATE_HZ, heard)

    def _heard_after(self, passes: int) -> int:
        """Tell by so many passes what was heard; before the first, each frame is more to hear."""
        return passes or -self._state.complete
