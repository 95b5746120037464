"""The real Home Assistant core as the tests see it: `core_process.py` behind methods."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servers import Mosquitto, free_port

PYTHON = os.environ.get("TEST_HOME_ASSISTANT", "")
"""The Python of an environment with Home Assistant; ``scripts/test-home-assistant`` makes one."""
START_S = 60.0
POLL_S = 0.05
QUIET = ("Skipping pip installation", "zlib_ng and isal")
"""What is in its log in any case: of the test's environment, and none of ours."""
NOTHING_THERE = "No device components to cleanup for harkd_kitchen"
"""What it says when a device is taken back that it does not know, or not any more."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an entity's state, as an automation would see it."""

    at_s: float
    """Seconds since 1970."""
    entity_id: str
    state: str
    attributes: dict[str, Any]


class Core:
    """Runs between `__enter__` and `__exit__`. What it was told stays in `folder` over restarts."""

    configuration = ""
    """What its user has written into `configuration.yaml`."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self._folder = folder
        self._broker = broker
        self._log: list[str] = []
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        (self._folder / "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {free_port()}\n{self.configuration}"
        )
        program = Path(__file__).with_name("core_process.py")
        self._process = subprocess.Popen(
            [PYTHON, program, self._folder, str(self._broker.port)],
            # Its own interpreter: nothing of ours.
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self._process
        try:
            process.communicate('{"do":"stop"}\n', timeout=START_S)
        except (subprocess.TimeoutExpired, OSError, ValueError):
            process.kill()
            process.wait()
        self._reader.join(5)

    @property
    def complaints(self) -> list[str]:
        """Warnings and errors in its log."""
        return [
            line
            for line in list(self._log)
            if (" WARNING " in line or " ERROR " in line) and not any(q in line for q in QUIET)
        ]

    @property
    def entities(self) -> dict[str, Any]:
        """Every entity of MQTT by its id, as `core_process.entities` gives it."""
        entities: dict[str, Any] = self._ask("states")["entities"]
        return entities

    @property
    def changes(self) -> list[Change]:
        """Every change of state so far."""
        return [Change(*change) for change in self._ask("states")["changes"]]

    @property
    def calls(self) -> list[str]:
        """Every action that was taken so far, such as ``light.turn_on``."""
        return [action for action, _ in self._ask("states")["calls"]]

    @property
    def targets(self) -> list[Any]:
        """What each of them was to act on."""
        return [target for _, target in self._ask("states")["calls"]]

    def state(self, entity_id: str) -> str | None:
        """An entity's state; None where there is no such entity."""
        state: str | None = self.entities.get(entity_id, {}).get("state")
        return state

    def call(self, domain: str, service: str, **data: Any) -> None:
        """Do what a click or an automation does."""
        self._ask("call", domain=domain, service=service, service_data=data)

    def rename(self, entity_id: str, name: str) -> None:
        """Give an entity a name of the user's own."""
        self._ask("rename", entity_id=entity_id, name=name)

    def wait(self, what: Mapping[str, str | None], timeout_s: float = 5.0) -> float:
        """Wait until these entities have these states; return how many seconds it took."""
        begin = time.monotonic()
        while True:
            are = {entity_id: self.state(entity_id) for entity_id in what}
            took_s = time.monotonic() - begin
            if are == what:
                return took_s
            if took_s > timeout_s:
                wrong = {one: state for one, state in are.items() if state != what[one]}
                log = "\n".join(self.complaints)
                raise AssertionError(f"after {timeout_s} s: {wrong}; its log:\n{log}")
            time.sleep(POLL_S)

    def _ask(self, do: str, **more: Any) -> Any:
        if not self._process.stdin:
            raise AssertionError("it has no stdin")
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise AssertionError("Home Assistant ended:\n" + "".join(self._log[-50:]))
        return json.loads(line)

    def _read_log(self) -> None:
        if self._process.stderr:
            self._log.extend(iter(self._process.stderr.readline, ""))
