"""The log of a run: a line of JSON for each figure, which a resumed run goes on with.

Runs on the caller's thread.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harkd.errors import ModelDamagedError

LOSSES, HELD, WORDS = "losses", "held out", "words"
"""Kinds of lines: of some steps of training; of a plan, on what was held out; of a plan, on the
evaluated list. All have `step` and `seconds`."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; none where there is no log.

    Raises:
        ModelDamagedError: It cannot be read.
    """
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ModelDamagedError(
            f"{path} is no log of a distillation ({error})", "move it away"
        ) from error


class RunLog:
    """Adds lines.

    Args:
        path: The file.
        step: Lines of later steps were written after the checkpoint, and are taken out.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= step] if step else []
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def add(self, kind: str, **figures: Any) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **figures}) + "\n")
