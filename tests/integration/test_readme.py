"""What the README says is true: its commands exist, and what can be pasted works."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from certificates import Certificates
from harkd.settings import LEAVES
from servers import Mosquitto, Subscriber, program

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def harkd(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harkd", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_two_commands_are_there() -> None:
    """CI runs the second; `scripts/fresh-root` runs either on a new machine."""
    commands = [block.strip() for block in blocks("sh")]
    for command in ("scripts/quickstart", "scripts/test"):
        assert command in commands
        assert os.access(ROOT / command, os.X_OK)
    assert "exec scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_each_command_of_the_table_exists() -> None:
    rows = re.findall(r"^\| `(?:… \\\| )?harkd ([^`]*)`", README, re.MULTILINE)
    assert len(rows) >= 7
    for row in rows:
        name, _, rest = row.partition(" ")
        subcommands = rest.split("\\|") if "\\|" in rest else [""]
        for subcommand in subcommands:
            done = harkd(*f"{name} {subcommand}".split(), "--help")
            assert done.returncode == 0, row
        for option in re.findall(r"--[a-z]+", row):
            assert option in done.stdout, row


def test_the_settings_to_copy_are_without_fault(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    (text,) = (block for block in blocks("yaml") if block.startswith("device_id"))
    file = tmp_path / "harkd.yaml"
    file.write_text(text.replace("/etc/harkd/mqtt-password", str(password)))
    done = harkd("config", "check", str(file))
    assert done.returncode == 0, done.stderr


def test_the_settings_for_tls_are_without_fault_and_need_only_the_file(
    tmp_path: Path, certificates: Certificates
) -> None:
    (text,) = (block for block in blocks("yaml") if "tls_ca_file" in block)
    file = tmp_path / "harkd.yaml"
    file.write_text(text)
    missing = "mqtt.tls_ca_file: /etc/harkd/ca.crt: there is no such file"
    assert missing in harkd("config", "check", str(file)).stderr
    file.write_text(text.replace("/etc/harkd/ca.crt", str(certificates.ca)))
    done = harkd("config", "check", str(file))
    assert done.returncode == 0, done.stderr
    assert "tls" not in done.stderr


def test_the_options_in_the_table_have_these_defaults() -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `([^`]+)` \|", README, re.MULTILINE)
    assert len(rows) >= 5
    for name, default in rows:
        assert str(LEAVES[tuple(name.split("."))].default) == default, name


def test_the_topics_in_the_table_are_those_of_the_interface() -> None:
    interface = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")

    def table(text: str) -> set[str]:
        return set(
            re.findall(
                r"^\| `(command/<intent>"
                r"|(?:transcript|state|availability|microphone|health|error)[a-z/]*)` \|",
                text,
                re.M,
            )
        )

    assert table(README) == table(interface)
    assert len(table(README)) == 12


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_home_assistant_automation_is_yaml_on_a_topic_that_exists() -> None:
    texts = [block for block in blocks("yaml") if block.startswith("automation")]
    command, transcript = (yaml.safe_load(text)["automation"][0]["triggers"][0] for text in texts)
    assert command["entity_id"] == "event.harkd_kitchen_command"
    assert transcript["topic"] == "harkd/kitchen/transcript"


def test_the_phrases_to_copy_mean_what_the_readme_says(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("phrases:"))
    file = tmp_path / "harkd.yaml"
    file.write_text(text)
    (said,) = re.findall(r'"test_final","phrase":"(.*?)"', README)
    done = harkd("phrases", "match", said, "--config", str(file))
    found = json.loads(done.stdout)
    assert (found["intent"], found["slots"]) == ("light_on", {"lamp": "light.bed"})


def test_the_node_red_flow_is_wired() -> None:
    (text,) = blocks("json")
    nodes = {node["id"]: node for node in json.loads(text)}
    for node in nodes.values():
        assert all(target in nodes for wire in node["wires"] for target in wire)


def test_the_shell_script_hears_a_transcript(broker: Mosquitto, tmp_path: Path) -> None:
    (script,) = (block for block in blocks("sh") if "while read" in block)
    shim = tmp_path / "mosquitto_sub"  # the script as it stands, on this test's port
    shim.write_text(f'#!/bin/sh\nexec {program("mosquitto_sub")} -p {broker.port} -C 2 "$@"\n')
    shim.chmod(0o755)
    with (
        Subscriber(broker) as publisher,
        subprocess.Popen(
            ["sh", "-c", script],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        ) as shell,
    ):
        time.sleep(0.5)  # it subscribes
        publisher.publish("harkd/kitchen/transcript/text", "Lights out, please.")
        publisher.publish("harkd/kitchen/transcript/text", "What time is it?")
        said, _ = shell.communicate(timeout=10)
    assert said.splitlines() == ["good night", "heard: What time is it?"]
