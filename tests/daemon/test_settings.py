"""The settings: defaults, ranges, sources, and what is said of each fault."""

import os
import socket
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harkd import settings_file
from harkd.errors import SettingsError
from harkd.settings import (
    LEAVES,
    MASK,
    AudioSettings,
    MqttSettings,
    Settings,
    describe,
    each_input,
    example_text,
    find_file,
    load,
    load_traced,
    models_dir,
    read_password,
    state_dir,
)
from harkd.settings_file import Keys
from harkd.settings_leaf import Leaf

Write = Callable[[str | bytes], Path]

WORD = "hunter2"
"""A password."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a settings file and returns its path."""

    def write_file(content: str | bytes) -> Path:
        path = tmp_path / "harkd.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The user's and the system's settings file, both absent and both in a temporary folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(settings_file, "SYSTEM_FILE", tmp_path / "etc" / "harkd.yaml")
    found = {"user": tmp_path / "home/harkd/harkd.yaml", "system": tmp_path / "etc/harkd.yaml"}
    for path in found.values():
        path.parent.mkdir(parents=True)
    return found


def faults(path: Path | None, environ: dict[str, str] | None = None) -> list[str]:
    """Returns the lines of the faults, without the folder of the file."""
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    return str(caught.value).replace(f"{path.parent}/" if path else "\0", "").split("\n")


def nested(keys: Keys, value: object) -> dict[str, Any]:
    return {keys[0]: {keys[1]: value}} if len(keys) > 1 else {keys[0]: value}


def value_of(loaded: Settings, keys: Keys) -> object:
    value: object = loaded
    for key in keys:
        value = getattr(value, key)
    return value


each_leaf = pytest.mark.parametrize("leaf", LEAVES.values(), ids=[".".join(k) for k in LEAVES])


# What is set, and what is not


@pytest.mark.parametrize("content", ["", "# a comment\n", "~\n", "{}\n", "---\n", "\ufeff"])
def test_an_empty_file_means_the_defaults(write: Write, content: str) -> None:
    assert load(write(content), {}) == Settings()


def test_no_file_means_the_defaults() -> None:
    assert load(None, {}) == Settings()


def test_an_empty_section_means_its_defaults(write: Write) -> None:
    assert load(write("mqtt:\nvad: {}\naudio: ~\n"), {}) == Settings()


def test_what_is_set_wins_over_the_default_and_nothing_else_changes(write: Write) -> None:
    loaded = load(write("vad:\n  aggressiveness: 3\ndevice_id: kitchen\n"), {})
    expected = asdict(Settings())
    expected["vad"]["aggressiveness"] = 3
    expected["device_id"] = "kitchen"
    assert asdict(loaded) == expected


def test_a_whole_number_is_good_where_a_number_is_wanted(write: Write) -> None:
    stall_s = load(write("audio: {stall_s: 3}\n"), {}).audio.stall_s
    assert stall_s == 3.0
    assert isinstance(stall_s, float)


@pytest.mark.parametrize(("written", "meant"), [("2", "2"), ("USB", "USB"), ("'2'", "2")])
def test_a_device_may_be_an_index(write: Write, written: str, meant: str) -> None:
    assert load(write(f"audio: {{device: {written}}}\n"), {}).audio.device == meant


@pytest.mark.parametrize(("written", "meant"), [("5", "5"), ("3.1.1", "3.1.1"), ("auto", "auto")])
def test_the_mqtt_version_needs_no_quotes(write: Write, written: str, meant: str) -> None:
    assert load(write(f"mqtt: {{protocol: {written}}}\n"), {}).mqtt.protocol == meant


@pytest.mark.parametrize("written", ["off", '"off"', "'off'"])
def test_off_needs_no_quotes_though_yaml_reads_it_as_false(write: Write, written: str) -> None:
    assert load(write(f"mqtt:\n  discovery: {written}"), {}).mqtt.discovery == "off"
    assert load(None, {"HARKD_MQTT__DISCOVERY": "off"}).mqtt.discovery == "off"


@pytest.mark.parametrize("written", ["false", "no", "on", "true"])
def test_other_words_for_false_are_no_choice(write: Write, written: str) -> None:
    with pytest.raises(SettingsError, match="not allowed"):
        load(write(f"mqtt:\n  discovery: {written}"), {})


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        ("device_id: attic", "attic"),
        ("device_id: attic\nhermes:\n  site_id: loft", "loft"),
    ],
)
def test_the_site_of_hermes_is_the_device_unless_it_has_a_name(
    write: Write, content: str, meant: str
) -> None:
    assert load(write(content), {}).effective_site_id == meant


@pytest.mark.parametrize(("written", "meant"), [("mix", "mix"), ("1", 1), ("64", 64)])
def test_a_channel_is_mix_or_a_number(write: Write, written: str, meant: object) -> None:
    assert load(write(f"audio: {{channel: {written}}}\n"), {}).audio.channel == meant


def test_text_that_yaml_would_read_as_a_date_stays_text(write: Write) -> None:
    assert load(write("audio: {device: 2026-11-22}\n"), {}).audio.device == "2026-11-22"


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().device_id = "x"  # type: ignore[misc]


# The device's name


def test_the_device_id_is_used_as_it_is(write: Write) -> None:
    assert load(write("device_id: Kitchen_1\n"), {}).effective_device_id == "Kitchen_1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("raspberrypi", "raspberrypi"),
        ("pi.kitchen.lan", "pi-kitchen-lan"),
        ("küche", "k-che"),
        ("a/+#b", "a-b"),
        ("...", "harkd"),
        ("", "harkd"),
    ],
)
def test_without_a_device_id_the_host_name_is_used_as_far_as_a_topic_can_hold_it(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert Settings().effective_device_id == expected
    assert Settings().effective_client_id == f"harkd-{expected}"


def test_a_client_id_is_used_as_it_is(write: Write) -> None:
    assert load(write("mqtt: {client_id: me}\n"), {}).effective_client_id == "me"


# Which file


def test_the_named_file_comes_before_all_others(places: dict[str, Path], tmp_path: Path) -> None:
    files = [tmp_path / "named.yaml", tmp_path / "variable.yaml", *places.values()]
    for file in files:
        file.touch()
    environ = {"HARKD_CONFIG": str(files[1])}
    assert find_file(files[0], environ) == files[0]
    assert find_file(None, environ) == files[1]
    assert find_file(None, {}) == places["user"]
    places["user"].unlink()
    assert find_file(None, {}) == places["system"]
    places["system"].unlink()
    assert find_file(None, {}) is None


def test_an_empty_variable_names_no_file(places: dict[str, Path]) -> None:
    places["system"].touch()
    assert find_file(None, {"HARKD_CONFIG": ""}) == places["system"]


def test_a_named_file_that_does_not_exist_is_a_fault_even_if_others_do(
    places: dict[str, Path],
) -> None:
    places["system"].touch()
    with pytest.raises(SettingsError, match="there is no such file") as caught:
        find_file(Path("/nowhere/harkd.yaml"), {})
    assert "--config" in caught.value.mend
    with pytest.raises(SettingsError, match="there is no such file") as caught:
        find_file(None, {"HARKD_CONFIG": "/nowhere/harkd.yaml"})
    assert "$HARKD_CONFIG" in caught.value.mend


@pytest.mark.usefixtures("places")
def test_a_home_in_the_variable_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").touch()
    assert find_file(None, {"HARKD_CONFIG": "~/my.yaml"}) == tmp_path / "my.yaml"


# The environment


def test_a_variable_wins_over_the_file(write: Write) -> None:
    path = write("mqtt: {host: a, port: 1}\ndevice_id: a\n")
    environ = {"HARKD_MQTT__HOST": "b", "HARKD_DEVICE_ID": "b", "PATH": "/bin"}
    loaded = load(path, environ)
    assert (loaded.mqtt.host, loaded.mqtt.port, loaded.device_id) == ("b", 1, "b")


@each_leaf
def test_each_option_has_a_variable(leaf: Leaf) -> None:
    name = "HARKD_" + "__".join(leaf.keys).upper()
    on_off = {"True": "on", "False": "off"}
    raw = on_off.get(str(leaf.default), str(leaf.default))
    assert load(None, {name: raw}) == Settings()


@pytest.mark.parametrize("text", ["1234", "yes", "~", "a: b", "#1", "'x'", "*x", " x "])
def test_a_variable_for_text_is_taken_as_it_is(text: str) -> None:
    environ = {"HARKD_MQTT__HOST": "h", "HARKD_MQTT__USERNAME": text, "HARKD_MQTT__PASSWORD": text}
    mqtt = load(None, environ).mqtt
    assert (mqtt.username, mqtt.password) == (text, text)


def test_a_variable_for_anything_else_is_read_as_yaml() -> None:
    environ = {
        "HARKD_MQTT__PORT": " 8883 ",
        "HARKD_RECOGNIZER__PARTIALS": "off",
        "HARKD_AUDIO__CHANNEL": "2",
        "HARKD_AUDIO__DEVICE": "2",
        "HARKD_MQTT__PROTOCOL": "5",
    }
    loaded = load(None, environ)
    assert (loaded.mqtt.port, loaded.recognizer.partials) == (8883, False)
    assert (loaded.audio.channel, loaded.audio.device, loaded.mqtt.protocol) == (2, "2", "5")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HARKD_MQTT_HOST", "HARKD_MQTT__HOST"),
        ("HARKD_MQTT__HOTS", "HARKD_MQTT__HOST"),
        ("HARKD_MQTT_PORT", "HARKD_MQTT__PORT"),
        ("HARKD_DEVICEID", "HARKD_DEVICE_ID"),
        ("HARKD_mqtt__host", "HARKD_MQTT__HOST"),
        ("HARKD_CONFIG_FILE", "HARKD_CONFIG"),
    ],
)
def test_an_unknown_variable_is_a_fault_with_the_nearest_name(name: str, meant: str) -> None:
    assert faults(None, {name: "1"}) == [
        f"environment: {name}: unknown variable; did you mean {meant}?"
    ]


def test_reserved_and_foreign_variables_are_no_faults() -> None:
    environ = {"HARKD_CONFIG": "x", "HARKD_MODELS": "y", "HARKDX": "1", "MQTT__HOST": "z"}
    assert load(None, environ) == Settings()


def test_what_kubernetes_and_docker_set_beside_a_service_called_harkd_is_no_fault() -> None:
    environ = {
        "HARKD_SERVICE_HOST": "10.0.0.11",
        "HARKD_SERVICE_PORT": "9090",
        "HARKD_SERVICE_PORT_METRICS": "9090",
        "HARKD_PORT": "tcp://10.0.0.11:9090",
        "HARKD_PORT_9090_TCP": "tcp://10.0.0.11:9090",
        "HARKD_PORT_9090_TCP_ADDR": "10.0.0.11",
        "HARKD_PORT_9090_TCP_PORT": "9090",
        "HARKD_MQTT_SERVICE_HOST": "10.0.0.12",
        "HARKD_MQTT_PORT": "tcp://10.0.0.12:1883",
        "HARKD_MQTT_PORT_1883_TCP_PROTO": "tcp",
    }
    assert load(None, environ) == Settings()


# Faults of values


def test_all_faults_of_the_file_and_the_environment_are_reported_together(write: Write) -> None:
    path = write(
        "vad:\n"
        "  agressiveness: 2\n"
        "  start_ms: 1000\n"
        "mqtt:\n"
        "  port: eighteen\n"
        "  retain_last: 'on'\n"
        "  retain_last: on\n"
        "  password_file: /x\n"
        "log: 3\n"
    )
    assert faults(path, {"HARKD_MQTT__KEEPALIVE_S": "1", "HARKD_MQTT_HOST": "x"}) == [
        'harkd.yaml:2: vad.agressiveness: unknown key; did you mean "aggressiveness"?',
        "harkd.yaml:3: vad.start_ms: 1000 is out of range (20…500)",
        'harkd.yaml:5: mqtt.port: "eighteen" is not a whole number (1…65535)',
        'harkd.yaml:6: mqtt.retain_last: "on" is neither true nor false; write on without quotes',
        "harkd.yaml:7: mqtt.retain_last: is set twice, first in line 6; delete one of them",
        "harkd.yaml:8: mqtt.password_file: is set, but no broker is; name the broker in mqtt.host,"
        " or delete this",
        "harkd.yaml:8: mqtt.password_file: is set, but mqtt.username is not; set mqtt.username"
        " too, or delete this",
        "harkd.yaml:9: log: is a section, not a value; write its options on the lines below it, "
        "indented by two spaces",
        "environment: HARKD_MQTT_HOST: unknown variable; did you mean HARKD_MQTT__HOST?",
        "environment: HARKD_MQTT__KEEPALIVE_S: 1 is out of range (5…1200)",
    ]


WRONG: dict[str, list[Any]] = {
    "text": [1, 1.5, True, None, [], ["a"], {}, {"a": 1}, "two\nlines", "nul\0"],
    "choice": [0, 1.5, True, None, [], {"a": 1}, "something else", ""],
    "whole number": ["1", "one", "", 1.5, 1.0, True, False, None, [1], {"a": 1}, -1, 10**30],
    "number": ["1", "1,5", "", True, None, [1.0], {}, -1.0, float("nan"), float("inf"), -(10**400)],
    "true or false": ["true", "on", "", 0, 1, 1.0, None, [True], {"a": True}],
}


@each_leaf
def test_each_option_refuses_each_wrong_value_in_one_line_with_what_is_allowed(
    leaf: Leaf, write: Write
) -> None:
    for wrong in WRONG[leaf.kind]:
        if leaf.number_as_text and leaf.kind == "text" and type(wrong) in (int, float):
            continue
        path = write(yaml.safe_dump(nested(leaf.keys, wrong)))
        lines = faults(path)
        assert len(lines) == 1, (wrong, lines)
        assert lines[0].startswith("harkd.yaml:"), lines
        assert f": {'.'.join(leaf.keys)}: " in lines[0]
        assert "Expected" not in lines[0], "msgspec's words are not a user's"
        assert leaf.allowed in lines[0] or leaf.kind in ("text", "true or false"), lines


@each_leaf
def test_each_option_takes_the_ends_of_its_range_and_nothing_beyond(
    leaf: Leaf, write: Write
) -> None:
    if leaf.kind not in ("whole number", "number"):
        return
    low, high = (float(end) for end in leaf.allowed.split("…"))
    step = 1 if leaf.kind == "whole number" else 0.001
    kind = int if leaf.kind == "whole number" else float
    for good in (low, high):
        # An utterance may not pause for longer than it may be silent.
        beside: dict[Keys, Any] = {
            ("endpoint", "pause_ms"): 60,
            ("endpoint", "silence_ms"): 5000,
        }
        document = asdict(Settings())
        for keys, value in {**beside, leaf.keys: kind(good)}.items():
            document[keys[0]][keys[1]] = value
        assert value_of(load(write(yaml.safe_dump(document)), {}), leaf.keys) == good
    for bad in (low - step, high + step):
        path = write(yaml.safe_dump(nested(leaf.keys, kind(bad))))
        assert "is out of range" in faults(path)[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("mqtt: {port: '1883'}", '"1883" is not a whole number (1…65535); write 1883 without quo'),
        ("mqtt: {port: true}", "true is not a whole number (1…65535)"),
        ("mqtt: {port: 70000}", "70000 is out of range (1…65535)"),
        ("vad: {start_ms: 80 ms}", '"80 ms" is not a whole number (20…500); write 80 without'),
        ("audio: {stall_s: '2,5'}", '"2,5" is not a number (0.5…30); write 2.5'),
        ("audio: {stall_s: .nan}", ".nan is out of range (0.5…30)"),
        ("audio: {channel: 0}", "0 is not allowed (mix or 1…64)"),
        ("audio: {channel: '2'}", '"2" is not allowed (mix or 1…64); write 2 without quotes'),
        ("audio: {channel: [1]}", "a list stands where one plain value belongs (mix or 1…64)"),
        ("log: {level: WARN}", '(debug, info, warning or error); did you mean "warning"?'),
        ("mqtt: {protocol: 3.0}", "3.0 is not allowed (auto, 5, 3.1.1 or 3.1)"),
        ("mqtt: {username: 1234}", "1234 is a number to YAML, not text; put it in quotes"),
        ("audio: {device: no}", "no is false to YAML, not text; put it in quotes"),
        ("mqtt: {host: 'mqtt://pi'}", "(a host name or an IP address, without mqtt:// or port)"),
        (
            "mqtt: {host: 'pi.local:1883'}",
            "(a host name or an IP address, without mqtt:// or port)",
        ),
        ("mqtt: {host: '[::1]'}", "(a host name or an IP address, without mqtt:// or port)"),
        ("mqtt: {websocket_path: mqtt}", '"mqtt" is not allowed (a path that begins with "/"'),
        ("mqtt: {base_topic: a/b}", '"a/b" is not allowed (letters, digits, "-" and "_")'),
        ("mqtt:\n  password: #1234", 'text that begins with "#" needs quotes'),
        ("mqtt: {password: !secret x}", 'put text that begins with "!" in quotes'),
        ("device_id: {a: 1}", "a section stands where one plain value belongs"),
        ("device_id: küche", '"küche" is not allowed (letters, digits, "-" and "_")'),
    ],
)
def test_a_fault_says_what_is_wrong_what_is_allowed_and_how_to_mend_it(
    write: Write, content: str, said: str
) -> None:
    (line,) = faults(write(content))
    assert said in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("vda: {}", 'vda: unknown key; did you mean "vad"?'),
        ("vad: {silence_ms: 1}", '"silence_ms" belongs under "endpoint:"'),
        ("username: a", '"username" belongs under "mqtt:"'),
        ("host: a", '"host" belongs under "mqtt:" or "http:"'),
        ("mqtt.host: a", '"host" belongs under "mqtt:"'),
        ("mqtt: {device_id: a}", '"device_id" belongs at the left margin'),
        ("vad: {zzz: 1}", "(known: aggressiveness, min_speech_ms, min_voice, pre_roll_ms, "),
        ("zzz: {a: {b: 1}}", "zzz: unknown key (known: audio, debug, device_id, "),
        ("1883: x", "1883: unknown key"),
        ("on: x", "on: unknown key"),
        ('"a\\nb": x', '"a\\nb": unknown key'),
        ("[1, 2]: x", "a list or a section stands where a name belongs"),
        ("vad: [1]", "vad: is a section, not a value"),
        ("vad: 2", "vad: is a section, not a value"),
    ],
)
def test_a_key_that_does_not_exist_is_a_fault_with_what_was_probably_meant(
    write: Write, content: str, said: str
) -> None:
    (line,) = faults(write(content))
    assert line.startswith("harkd.yaml:1: ")
    assert said in line


def test_a_secret_is_never_repeated_in_a_fault(write: Write) -> None:
    for content in (
        "mqtt: {password: 48151623}",
        "mqtt: {password: !48151623 x}",
        "mqtt: {password: *48151623}",
        "mqtt: {password: !a48151623!b x}",
        'mqtt: {password: "48151623\\n"}',
        "mqtt: {password: '48151623}",
        "mqtt: {password: a: 48151623}",
        "mqtt: 48151623",
        "mqtt: [48151623]",
        "mqtt: {password: [48151623]}",
        "mqtt: {password: 48151623, password: 48151623}",
        "mqtt: {password: '48151623'}",
    ):
        assert "48151623" not in "\n".join(faults(write(content))), content
    assert "48151623" not in "\n".join(faults(None, {"HARKD_MQTT__PASSWORD": "48151623"}))


def test_bytes_in_a_variable_that_are_not_utf_8_are_a_fault() -> None:
    raw = os.fsdecode(b"caf\xe9")
    assert "no text" in faults(None, {"HARKD_RECOGNIZER__MODEL": raw})[0]
    assert "not allowed" in faults(None, {"HARKD_DEVICE_ID": raw})[0]


# Faults between values


def test_a_pause_longer_than_the_silence_is_a_fault_at_the_pause(write: Write) -> None:
    assert faults(write("endpoint:\n  silence_ms: 500\n  pause_ms: 501\n")) == [
        "harkd.yaml:3: endpoint.pause_ms: 501 is longer than endpoint.silence_ms (500); lower it"
    ]


def test_a_silence_shorter_than_the_default_pause_is_a_fault_at_the_silence(write: Write) -> None:
    assert faults(write("endpoint: {silence_ms: 150}\n")) == [
        "harkd.yaml:1: endpoint.silence_ms: 150 is shorter than endpoint.pause_ms (300); lower "
        "that too"
    ]


def test_to_require_a_device_while_any_will_do_is_a_fault(write: Write) -> None:
    words = (
        "recognizer.require_device: requires no device while recognizer.device is auto, which "
        "takes any; set that to cuda, or delete this one"
    )
    assert faults(write("recognizer: {require_device: true}\n")) == [f"harkd.yaml:1: {words}"]
    written = "recognizer:\n  device: auto\n  require_device: true\n"
    assert faults(write(written)) == [f"harkd.yaml:3: {words}"]
    for device in ("cuda", "cpu"):
        load(write(f"recognizer: {{device: {device}, require_device: true}}\n"), {})


def test_a_pause_as_long_as_the_silence_is_no_fault(write: Write) -> None:
    load(write("endpoint: {silence_ms: 150, pause_ms: 150}\n"), {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "{adaptive: true, min_silence_ms: 601}",
            "endpoint.min_silence_ms: 601 is longer than endpoint.silence_ms (600); lower it",
        ),
        (
            "{adaptive: true, silence_ms: 399}",
            "endpoint.silence_ms: 399 is shorter than endpoint.min_silence_ms (400); lower that "
            "too",
        ),
        (
            "{adaptive: true, max_silence_ms: 599}",
            "endpoint.max_silence_ms: 599 is shorter than endpoint.silence_ms (600); raise it",
        ),
        (
            "{adaptive: true, silence_ms: 1001}",
            "endpoint.silence_ms: 1001 is longer than endpoint.max_silence_ms (1000); raise that "
            "too",
        ),
    ],
)
def test_an_adaptive_endpoint_needs_its_silences_in_order(
    content: str, said: str, write: Write
) -> None:
    assert faults(write(f"endpoint: {content}\n")) == [f"harkd.yaml:1: {said}"]
    load(write(f"endpoint: {content.replace('true', 'false')}\n"), {})


def test_an_adaptive_endpoint_may_have_equal_silences(write: Write) -> None:
    same = "min_silence_ms: 500, silence_ms: 500, max_silence_ms: 500"
    load(write(f"endpoint: {{adaptive: true, {same}}}\n"), {})


def test_a_bad_value_is_not_compared_with_others(write: Write) -> None:
    lines = faults(write("endpoint: {silence_ms: x, pause_ms: 700}\n"))
    assert [line for line in lines if "longer" in line] == []
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{username: u}", "mqtt.username: is set, but no broker is; name the broker in mqtt.host"),
        ("{host: h, password: p}", "mqtt.password: is set, but mqtt.username is not"),
        ("{host: h, password_file: p}", "mqtt.password_file: is set, but mqtt.username is not"),
        (
            "{host: h, username: u, password: p, password_file: p}",
            "mqtt.password_file: mqtt.password is set too; delete one of the two",
        ),
        ("{tls: true}", "mqtt.tls: is set, but no broker is; name the broker in mqtt.host"),
        ("{transport: websocket}", "mqtt.transport: is set, but no broker is"),
        (
            "{host: h, tls_ca_file: c}",
            "mqtt.tls_ca_file: is set, but mqtt.tls is not true; set mqtt.tls: true too, or delete",
        ),
        ("{host: h, tls_verify: false}", "mqtt.tls_verify: is set, but mqtt.tls is not true"),
        (
            "{host: h, tls: true, tls_key_file: k}",
            "mqtt.tls_key_file: is set, but mqtt.tls_cert_file is not; name the key's certificate",
        ),
        (
            "{host: h, websocket_path: /ws}",
            "mqtt.websocket_path: is set, but mqtt.transport is tcp; set mqtt.transport: websocket",
        ),
    ],
)
def test_a_way_to_the_broker_that_cannot_work_is_a_fault(
    write: Write, content: str, said: str
) -> None:
    (line,) = faults(write(f"mqtt: {content}"))
    assert said in line


def test_a_login_may_come_half_from_the_file_and_half_from_the_environment(write: Write) -> None:
    path = write("mqtt: {host: h, username: u}")
    assert load(path, {"HARKD_MQTT__PASSWORD": WORD}).mqtt.password == WORD


# Files that cannot be read


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        ("vad:\n\tstart_ms: 60\n", "2:1", "a tab; indent with spaces"),
        ("vad:\n  start_ms: 60\n pre_roll_ms: 1\n", "3:2", "does not fit those above"),
        ("mqtt:\n  password: a: b\n", "2:14", 'a second ":"'),
        ("mqtt:\n  password: 'abc\n", "3:1", "never closed"),
        ("mqtt: {host: a\n", "2:1", "a bracket is never closed"),
        ("mqtt:\n  password: *x\n", "2:13", 'begins with "*" or "&"'),
        ("mqtt:\n  password: @x\n", "2:13", "begins with @"),
        ("vad: {}\n---\nmqtt: {}\n", "2:1", "a second document"),
        ('mqtt: {host: "\\q"}\n', "1:16", "a wrong escape"),
        ('mqtt: {host: "\\UFFFFFFFF"}\n', "1", "a wrong escape"),
        ("vad: {}\nmqtt: \x01\n", "2", "character U+0001 is not allowed"),
        ("- a\n", "1", '"name: value"'),
        ("harkd\n", "1", '"name: value"'),
    ],
)
def test_a_file_that_is_no_yaml_is_a_fault_with_its_line_in_plain_words(
    write: Write, content: str, place: str, said: str
) -> None:
    (line,) = faults(write(content))
    assert line.startswith(f"harkd.yaml:{place}: ")
    assert said in line


@pytest.mark.parametrize("content", ["[" * 5000, "a: " + "{b: " * 5000, "- " * 5000])
def test_a_file_nested_without_end_is_a_fault(write: Write, content: str) -> None:
    assert "nested too deeply" in faults(write(content))[0]


def test_a_section_that_holds_itself_is_a_fault(write: Write) -> None:
    assert "unknown key" in faults(write("a: &a {b: *a}\nvad: &v {x: *v}\n"))[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfev\0", "harkd.yaml:1: is not UTF-8 text (byte 0xff); save the file as UTF-8"),
        (b"vad: {}\n# caf\xe9\n", "harkd.yaml:2: is not UTF-8 text (byte 0xe9); save the file as"),
        (b"#" * (settings_file.MAX_FILE_BYTES + 1), "harkd.yaml: is larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_text_is_a_fault(write: Write, content: bytes, said: str) -> None:
    assert faults(write(content))[0].startswith(said)


def test_a_folder_in_place_of_the_file_is_a_fault(tmp_path: Path) -> None:
    assert "is a folder, not a file" in faults(tmp_path)[0]


def test_a_file_that_must_not_be_read_is_a_fault(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("vad: {}\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "must not be read by this user" in faults(path)[0]


def test_an_unreadable_file_does_not_hide_faults_of_the_environment(tmp_path: Path) -> None:
    lines = faults(tmp_path / "absent.yaml", {"HARKD_MQTT__PORT": "x"})
    assert len(lines) == 2
    assert lines[0].startswith("absent.yaml: there is no such file")
    assert lines[1].startswith("environment: HARKD_MQTT__PORT: ")


# Whatever is written

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.binary(max_size=8)
    | st.sampled_from(["on", "1883", "mix", "warning", "~", "a/b", "\ud800", "\0", "=", "<<"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(sorted(LEAVES)) | st.lists(
    st.sampled_from(["mqtt", "vad", "device_id", "port"]) | st.text(max_size=8),
    min_size=1,
    max_size=3,
).map(tuple)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(paths, values), max_size=4))
def test_whatever_value_stands_wherever_it_is_good_or_a_settings_error(
    write: Write, placed: list[tuple[Keys, object]]
) -> None:
    document: dict[Any, Any] = {}
    for keys, value in placed:
        section = document
        for key in keys[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                break
        else:
            section[keys[-1]] = value
    only_good_or_a_settings_error(write(yaml.safe_dump(document)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=60) | st.text("ab1:-?[]{}#&*!|>'\"%@\\ \t\n", max_size=40).map(str.encode)
)
@example(b'"\\UFFFFFFFF"')
@example(b"%YAML " + b"9" * 5000 + b".1\n--- a")
@example(b"a: \x01")
@example(b"vad: {start_ms: 0x_}")
@example(b"vad: {start_ms: " + b"1" * 5000 + b"}")
def test_whatever_bytes_the_file_holds_they_are_good_or_a_settings_error(
    write: Write, content: bytes
) -> None:
    only_good_or_a_settings_error(write(content))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(LEAVES)).map(lambda keys: "HARKD_" + "__".join(keys).upper())
        | st.text("ABHMQT_", max_size=8).map("HARKD_".__add__),
        st.text(max_size=12) | st.sampled_from(["1", "on", "0x_", ".nan", "1:30", "\ud800"]),
        max_size=4,
    )
)
@example({"HARKD_AUDIO__BLOCK_MS": "0\r"})
def test_whatever_the_environment_holds_it_is_good_or_a_settings_error(
    environ: dict[str, str],
) -> None:
    only_good_or_a_settings_error(None, environ)


def only_good_or_a_settings_error(path: Path | None, environ: dict[str, str] | None = None) -> None:
    said = ""
    try:
        loaded = load(path, environ or {})
        yaml.safe_dump(describe(loaded)).encode()
    except SettingsError as exc:
        said = str(exc)
    lines = said.split("\n") if said else []
    assert said.splitlines() == lines
    assert all(line.startswith((str(path), "environment")) for line in lines)


# Shown and derived


def test_where_each_value_comes_from_is_known(write: Write) -> None:
    path = write("vad:\n  start_ms: 80\n  pre_roll_ms: 0\n")
    _, origins = load_traced(path, {"HARKD_VAD__START_MS": "90"})
    assert {keys: str(entry.place) for keys, entry in origins.items()} == {
        ("vad", "start_ms"): "environment",
        ("vad", "pre_roll_ms"): f"{path}:3",
    }


def test_secrets_are_masked_where_settings_are_shown() -> None:
    mqtt = MqttSettings(host="h", username="u", password=WORD)
    shown = describe(Settings(mqtt=mqtt))
    assert shown["mqtt"]["password"] == MASK
    assert shown["mqtt"]["username"] == "u"
    assert describe(Settings())["mqtt"]["password"] == ""
    assert WORD not in repr(Settings(mqtt=mqtt))


def test_the_password_is_the_option_or_the_only_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" s3cret \n")
    assert read_password(MqttSettings()) == ""
    assert read_password(MqttSettings(password=WORD)) == WORD
    assert read_password(MqttSettings(password_file=str(file))) == "s3cret"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"\n", "is empty; write the password into it"),
        (b"s3cret\nmore\n", "holds more than one line"),
        (b"s3cret\xff", "is not UTF-8 text"),
    ],
)
def test_a_password_file_that_is_of_no_use_is_an_error_with_its_mend(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_password(MqttSettings(password_file=str(file)))
    assert str(caught.value).startswith(f"mqtt.password_file: {file}")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_models_are_where_the_option_the_variable_or_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    models = Settings().models
    assert models_dir(models, {}) == tmp_path / "harkd" / "models"
    assert models_dir(models, {"HARKD_MODELS": "/m"}) == Path("/m")
    assert models_dir(type(models)(dir="/d"), {"HARKD_MODELS": "/m"}) == Path("/d")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert models_dir(models, {}) == Path("/var/lib/harkd/models")


def test_state_is_where_the_option_systemd_or_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    state = Settings().state
    by_systemd = {"STATE_DIRECTORY": "/var/lib/harkd-kitchen:/var/lib/other"}
    assert state_dir(state, {}) == tmp_path / "harkd"
    assert state_dir(state, by_systemd) == Path("/var/lib/harkd-kitchen")
    assert state_dir(type(state)(dir="/s"), by_systemd) == Path("/s")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_dir(state, {}) == Path("/var/lib/harkd")


# The reference


def test_the_reference_names_every_option_with_its_default_and_no_other() -> None:
    assert yaml.safe_load(example_text()) == asdict(Settings())


def test_the_reference_is_a_settings_file_that_changes_nothing(write: Write) -> None:
    assert load(write(example_text()), {}) == Settings()


@each_leaf
def test_the_reference_explains_each_option_with_its_range(leaf: Leaf) -> None:
    lines = example_text().splitlines()
    indent = "  " * (len(leaf.keys) - 1)
    start = lines.index(f"{leaf.keys[0]}:") if indent else 0
    at = next(
        i for i in range(start, len(lines)) if lines[i].startswith(f"{indent}{leaf.keys[-1]}:")
    )
    comment: list[str] = []
    while lines[at - 1].startswith(f"{indent}# "):
        at -= 1
        comment.insert(0, lines[at].strip(" #"))
    words = " ".join(comment)
    assert words, "no comment"
    if leaf.kind not in ("text",):
        assert leaf.allowed in words
    for suffix, unit in (("_ms", "Milliseconds"), ("_s", "Seconds")):
        if leaf.keys[-1].endswith(suffix):
            assert words.startswith(unit)


def test_the_reference_fits_a_screen() -> None:
    assert max(map(len, example_text().splitlines())) <= 100


# Several microphones


def test_inputs_have_the_options_of_audio_and_what_is_left_out_is_as_there(write: Write) -> None:
    path = write("""
audio: {stall_s: 3, device: Jabra}
inputs:
  kitchen: {device: USB, channel: 2}
  bath:
mqtt: {client_id: me}
""")
    loaded = load(path, {"HARKD_AUDIO__BLOCK_MS": "20", "HARKD_STATE__DIR": "/s"})
    assert loaded.inputs == {
        "kitchen": AudioSettings(device="USB", channel=2, stall_s=3.0, block_ms=20),
        "bath": AudioSettings(device="Jabra", stall_s=3.0, block_ms=20),
    }
    kitchen, bath = each_input(loaded, {})
    assert (kitchen.effective_device_id, kitchen.audio) == ("kitchen", loaded.inputs["kitchen"])
    assert (kitchen.effective_client_id, bath.effective_client_id) == ("me-kitchen", "me-bath")
    assert (kitchen.effective_site_id, bath.effective_site_id) == ("kitchen", "bath")
    assert state_dir(bath.state, {}) == Path("/s/inputs/bath")
    assert kitchen.vad == loaded.vad


def test_without_inputs_there_is_one_and_it_is_the_whole(write: Write) -> None:
    loaded = load(write("device_id: hall\n"), {})
    assert each_input(loaded, {}) == [loaded]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("inputs: [kitchen, bath]", ["1: inputs: is a section; write each input's name"]),
        ("inputs: {kitchen: mic}", ["1: inputs.kitchen: is an input's name; write its options"]),
        ("inputs: {device: mic}", ["1: inputs.device: stands where an input's name belongs"]),
        ("inputs: {a/b: {}}", ['1: inputs.a/b: "a/b" cannot be in a topic']),
        (
            "inputs:\n  a: {devise: x, channel: 0}",
            [
                '2: inputs.a.devise: unknown key; did you mean "device"?',
                "2: inputs.a.channel: 0 is not allowed (mix or 1…64)",
            ],
        ),
        ("inputs: {a: , b: {channel: 2}, c: }", ["1: inputs.c: hears the same as inputs.a"]),
        ("inputs: {a: {channel: 65}, b: }", ["1: inputs.a.channel: 65 is not allowed"]),
        ("device_id: x\ninputs: {a: }", ["1: device_id: each of the inputs has a name of its own"]),
        (
            "hermes: {site_id: x}\ninputs: {a: }",
            ["1: hermes.site_id: each of the inputs is a site"],
        ),
        ("inputs: {a: {}, a: {}}", ["1: inputs.a: is set twice, first in line 1"]),
    ],
)
def test_a_fault_of_the_inputs_is_told_with_its_mend(
    write: Write, text: str, faults: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write(text + "\n"), {})
    lines = caught.value.message.splitlines()
    assert len(lines) == len(faults)
    for line, fault in zip(lines, faults, strict=True):
        assert fault in line


def test_inputs_are_not_read_from_the_environment() -> None:
    with pytest.raises(SettingsError, match="can be set in the settings file only"):
        load(None, {"HARKD_INPUTS__KITCHEN__DEVICE": "x"})
