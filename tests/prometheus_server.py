"""A real Prometheus with the settings of docker/monitoring, and what it says."""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from monitoring import FOLDER
from servers import Server, free_port


class Prometheus(Server):
    """Scrapes one harkd each second, and evaluates the rules as often.

    Args:
        folder: Where its files lie.
        target_port: Loopback port of the harkd.
    """

    def __init__(self, folder: Path, target_port: int) -> None:
        super().__init__("prometheus", folder)
        self._target_port = target_port
        self._port = free_port()

    def start(self) -> None:
        """Starts it and returns when it answers."""
        published = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
        (self.folder / "prometheus.yml").write_text(published.replace(": 15s", ": 1s"))
        (self.folder / "rules").symlink_to(FOLDER / "rules")
        (self.folder / "targets").mkdir()
        targets = [{"targets": [f"127.0.0.1:{self._target_port}"]}]
        (self.folder / "targets" / "harkd.yml").write_text(json.dumps(targets))
        self._launch(
            [
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=warn",
            ]
        )
        self._wait_for_answer(self._ready)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns what an expression is now; raises HTTPError where it is wrong."""
        asked = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = self._get(f"/api/v1/query?{asked}")["data"]["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Returns the alerts that are pending or fire."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["data"]["alerts"]
        return found

    def rule_errors(self) -> list[str]:
        """Returns why rules could not be evaluated."""
        groups = self._get("/api/v1/rules")["data"]["groups"]
        every = [rule for group in groups for rule in group["rules"]]
        assert every
        return [rule["lastError"] for rule in every if rule.get("lastError")]

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as answer:
            read: dict[str, Any] = json.load(answer)
        return read

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready"):
                return True
        except OSError:
            return False
