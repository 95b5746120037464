"""The teacher's own text of each recording: made once, when it is first needed, and kept in a file.

In: clips, a model, a file. Out: tokens in the clips. Runs on the caller's thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from harkd.errors import ModelDamagedError
from harkd_convert.distil.batches import by_length, plain_batch
from harkd_convert.distil.corpus import Clip
from harkd_convert.distil.decoding import greedy, most_tokens
from harkd_convert.distil.objective import Teacher
from harkd_convert.distil.passes import Passes, Plan

BATCH_S = 40.0


class TeacherTexts:
    """Knows the teacher's text of each recording, or asks for it.

    Args:
        teacher: Hears each recording as it is.
        kept: A file of lines in JSON; read first, and appended to.

    Raises:
        ModelDamagedError: The file is something else.
    """

    def __init__(self, teacher: Teacher, kept: Path) -> None:
        self.teacher, self.kept = teacher, kept
        self._known = _read(kept)

    def add(self, clips: Iterable[Clip]) -> None:
        """Give clips their `tokens`: None where the teacher came to no end, which is a loop.

        Raises:
            AudioFileError: A recording cannot be read.
        """
        named = {each.name: each for each in clips}
        unknown = [each for name, each in named.items() if name not in self._known]
        for batch in by_length(unknown, BATCH_S):
            self._ask(batch)
        for name, clip in named.items():
            clip.tokens = self._known[name]

    def _ask(self, batch: list[Clip]) -> None:
        teacher = self.teacher
        plain = plain_batch(batch, Plan(0))
        stem = teacher.stem(plain.student, plain)
        heard = Passes(stem.frames, Plan(0), device=teacher.device).heard
        texts = greedy(teacher.model.decoder, teacher.encoder.at_once(stem), heard)
        with self.kept.open("a", encoding="utf-8") as file:
            for clip, tokens, frames in zip(batch, texts, stem.frames, strict=True):
                ended = len(tokens) < most_tokens(frames)
                self._known[clip.name] = tokens if ended else None
                line = {"name": clip.name, "tokens": self._known[clip.name]}
                file.write(json.dumps(line) + "\n")


def _read(path: Path) -> dict[str, list[int] | None]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # stopped within a line
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    known = dict[str, list[int] | None]()
    try:
        for line in lines:
            read = json.loads(line)
            tokens = read["tokens"]
            known[str(read["name"])] = tokens and [int(token) for token in tokens]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelDamagedError(
            f"{path} is no list of the teacher's texts ({error})", "remove it: it is made anew"
        ) from error
    return known
