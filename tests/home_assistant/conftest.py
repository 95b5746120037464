"""A real broker, and a daemon that hears what a test says to it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from daemon_process import Daemon
from home_assistant.core import PYTHON, Core
from mouth import Mouth
from servers import Mosquitto


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not PYTHON:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(
                    pytest.mark.skip(reason="needs Home Assistant: scripts/test-home-assistant")
                )


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with Mosquitto(folder) as server:
        yield server


@pytest.fixture
def core(tmp_path: Path, broker: Mosquitto) -> Core:
    """Home Assistant, not started yet."""
    return Core(tmp_path / "home-assistant", broker)


Running = Callable[..., AbstractContextManager[tuple[Daemon, Mouth]]]


@pytest.fixture
def running(model_dir: Path, broker: Mosquitto, tmp_path: Path) -> Running:
    """Called with settings as variables: a daemon of the device `kitchen`, and its user's mouth."""

    @contextmanager
    def run(**settings: str) -> Iterator[tuple[Daemon, Mouth]]:
        env = {
            "HARKD_MODELS": str(model_dir.parent),
            "HARKD_RECOGNIZER__MODEL": model_dir.name,
            "HARKD_MQTT__HOST": broker.host,
            "HARKD_MQTT__PORT": str(broker.port),
            "HARKD_DEVICE_ID": "kitchen",
            **{f"HARKD_{name}": value for name, value in settings.items()},
        }
        with (
            Mouth(model_dir / "samples" / "beckett.wav") as mouth,
            Daemon("--source", "-", env=env, folder=tmp_path, stdin=mouth.ear) as daemon,
        ):
            yield daemon, mouth

    return run
