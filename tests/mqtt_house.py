"""All of a daemon's MQTT side, with phrases, and without its audio and its model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harkd.inputs import about_this
from harkd.mqtt_connection import Address
from harkd.mqtt_side import MqttSide, WasSet
from harkd.phrase_book import PhraseBook
from harkd.settings import MqttSettings, PhrasesSettings, Settings, StateSettings
from servers import Mosquitto

LAMPS = """\
intents: {light_on: ["turn on [the] {lamp}"]}
lists: {lamp: [desk lamp, {in: bed light, out: light.bed}]}
"""


class MqttHouse:
    """The MQTT side of a daemon with phrases, without its audio."""

    def __init__(self, broker: Mosquitto, folder: Path, **mqtt: Any) -> None:
        (folder / "lamps.yaml").write_text(LAMPS)
        self.settings = Settings(
            device_id="kitchen",
            mqtt=MqttSettings(host="127.0.0.1", port=broker.port, **mqtt),
            phrases=PhrasesSettings(file="lamps.yaml"),
            state=StateSettings(dir=str(folder / "state")),
        )
        self.broker = broker
        self.folder = folder

    @contextlib.contextmanager
    def running(self) -> Iterator[MqttSide]:
        reports: list[str] = []
        book = PhraseBook(
            self.settings.phrases,
            self.folder / "harkd.yaml",
            self.folder / "state",
            report=reports.append,
        )
        sides: list[MqttSide] = []
        side = MqttSide(
            self.settings,
            WasSet.read(self.settings),
            Address("127.0.0.1", self.broker.port, "harkd-kitchen"),
            "5",
            replace(about_this(self.settings, "tiny"), provider="cpu"),
            mute=lambda _on: None,
            reread=lambda: self.settings,
            sink=lambda event: sides[0].hear(event),
            book=book,
        )
        sides.append(side)
        side.start()
        book.load()
        book.start()
        side.control.attach(lambda _settings: None, "en")
        side.control.start()
        try:
            yield side
        finally:
            side.stop()
        assert reports == []
