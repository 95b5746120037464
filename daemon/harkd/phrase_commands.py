"""What is asked of the phrases over MQTT: other ones, and what a sentence means.

In: payloads of ``phrases/set``, new settings, sentences; on the `control` thread. Out:
`phrases/state` and `error` messages, mostly on the `phrases` thread, which does the work.
"""

from __future__ import annotations

import logging

from harkd import messages
from harkd.answers import Answers
from harkd.commands import shown
from harkd.errors import CommandError
from harkd.events import PhraseMatch
from harkd.mqtt_connection import Received
from harkd.phrase_book import Options, PhraseBook
from harkd.publisher import Publisher

log = logging.getLogger(__name__)


class PhraseCommands:
    """Hands on to the book, and answers for it.

    Args:
        book: The phrases in force.
        publisher: Sends `phrases/state`.
        answers: Tells what is wrong.
    """

    def __init__(self, book: PhraseBook, publisher: Publisher, answers: Answers) -> None:
        self._book = book
        self._publisher = publisher
        self._answers = answers
        self._announced = False
        book.on_change.append(self._begin)
        if book.loaded.is_set():
            self._announce()

    def set(self, payload: bytes, received: Received) -> None:
        """Let these phrases be in force, soon; one error tells all that is wrong with them."""

        def told(faults: str) -> None:
            if faults:
                self._answers.refuse(received, faults)
            else:
                self._announce()

        self._book.replace(payload, told, retained=received.retained)

    def reload(self, options: Options, received: Received) -> None:
        """Read the phrases of the settings again, soon: they may change where no option does."""

        def told(faults: str) -> None:
            if faults:
                text = f"the phrases stay as they are: {faults}"
                log.error("%s", text)
                self._answers.answer(received, text)
            else:
                self._announce()

        self._book.reload(options, told)

    def match(self, sentence: str) -> PhraseMatch:
        """Return what a sentence means. Raises CommandError."""
        if found := self._book.match(sentence):
            return found
        raise CommandError(
            f"{shown(sentence)} is none of the phrases that are listened for",
            "look at phrases/state",
        )

    def _begin(self, _book: PhraseBook) -> None:
        """Tell what `load` has found; all that comes later is told to who asked for it."""
        if not self._announced:
            self._announce()

    def _announce(self) -> None:
        self._announced = True
        about = self._publisher.about
        self._publisher.keep(messages.phrases_state(about, self._book.in_force))
