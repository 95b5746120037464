"""What inputs that are no more have left in the state folder, when ``inputs`` has changed.

In: the state folder and the inputs' folders in it. Out: what was announced of others is handed to
the first input, which takes it back; what was set over MQTT when there was one microphone holds for
each new input: who was not to be heard is not heard by another name. Runs once, on the main thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from harkd.announcing import Announced
from harkd.errors import StateError
from harkd.kept_options import Kept, OptionsFile
from harkd.kept_phrases import PhrasesFile
from harkd.settings import Settings, each_input, state_dir
from harkd.settings_file import INPUTS

log = logging.getLogger(__name__)


def take_over(settings: Settings, environ: Mapping[str, str]) -> None:
    """Let the inputs have what others have left. Never raises."""
    base = state_dir(settings.state, environ)
    folders = [state_dir(one.state, environ) for one in each_input(settings, environ)]
    first = Announced(folders[0])
    for folder in [base, *subfolders(base / INPUTS)]:
        if folder not in folders:
            first.adopt(Announced(folder))
    if not settings.inputs:
        return
    options, _ = OptionsFile(base).read()
    phrases, _ = PhrasesFile(base).read()
    for folder in folders:
        if options != Kept() and not (file := OptionsFile(folder)).exists:
            inherit(folder, partial(file.write, options))
        if phrases.sent and not (sent := PhrasesFile(folder)).exists:
            inherit(folder, partial(sent.write, phrases))


def inherit(folder: Path, write: Callable[[], None]) -> None:
    """Let what was set for the one microphone hold for a new input."""
    log.info("what was set over MQTT before there were inputs holds for %s, too", folder.name)
    try:
        write()
    except StateError as error:
        log.warning("%s", error)


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's folders; none where it cannot be read."""
    try:
        return sorted(Path(each.path) for each in os.scandir(folder) if each.is_dir())
    except OSError:
        return []
