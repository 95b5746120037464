"""The settings: what can be set, its default and range, and how all faults are reported at once.

In: the settings file and the environment (`load`). Out: `Settings`, frozen; each part of the
daemon is given the one section that it needs. Runs once at start, on the main thread.

A leaf's type says what is allowed. ``config/harkd.yaml`` is the reference for users; a test holds
it to these classes.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import platformdirs
from msgspec import Meta

from harkd.errors import SettingsError
from harkd.hotword_list import resolved
from harkd.mqtt_settings import NUMBER_AS_TEXT, MqttSettings, contradictions, read_password
from harkd.settings_file import INPUTS, Entry, Fault, Keys, expand, find_file, read_file
from harkd.settings_inputs import is_of_inputs, judged, twice
from harkd.settings_leaf import Leaf, judge, leaves_of, read_environment, unknown
from harkd.settings_phrases import is_inline

__all__ = [
    "LEAVES",
    "AudioSettings",
    "DebugSettings",
    "EndpointSettings",
    "HermesSettings",
    "HttpSettings",
    "LogSettings",
    "ModelsSettings",
    "MqttSettings",
    "PhrasesSettings",
    "RecognizerSettings",
    "Settings",
    "StateSettings",
    "TextSettings",
    "VadSettings",
    "WakeSettings",
    "describe",
    "each_input",
    "example_text",
    "find_file",
    "load",
    "load_traced",
    "models_dir",
    "read_password",
    "silence_bounds_ms",
    "silence_fault",
    "state_dir",
]

SYSTEM_MODELS_DIR: Final = Path("/var/lib/harkd/models")
"""Where root keeps models."""
SYSTEM_STATE_DIR: Final = Path("/var/lib/harkd")
"""Where root keeps what must survive a restart."""
HOTWORDS: Final = ("recognizer", "hotwords")
MASK: Final = "********"
"""Shown in place of a secret that is set."""

OptionalTopicLevel = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]*$", description='letters, digits, "-" and "_"')
]
Host = Annotated[
    str, Meta(pattern=r"^[^\s/]+$", description="a host name or an IP address, without a port")
]
SiteId = Annotated[str, Meta(pattern=r"^[^\s/#+]*$", description='a word without "/", "#" and "+"')]


@dataclass(frozen=True, kw_only=True)
class AudioSettings:
    """Which microphone, and how it is read."""

    device: Annotated[str, NUMBER_AS_TEXT] = "default"
    """Name, part of a name, or index of the input."""
    channel: Literal["mix"] | Annotated[int, Meta(ge=1, le=64)] = "mix"
    """The mean of all channels, or one channel, 1…64."""
    stall_s: Annotated[float, Meta(ge=0.5, le=30)] = 2.0
    """Seconds without audio after which the input is opened anew, 0.5…30."""
    latency_ms: Annotated[int, Meta(ge=10, le=1000)] = 100
    """Milliseconds of buffer asked of the sound system, 10…1000."""
    block_ms: Annotated[int, Meta(ge=10, le=100)] = 30
    """Milliseconds of audio in one block, 10…100."""
    zeros_s: Annotated[float, Meta(ge=0, le=600)] = 5.0
    """Seconds of nothing but zeros after which it counts as muted or dead, 0…600; 0 for never."""
    follow: Literal["name", "server"] = "name"
    """Where the sound server moves us elsewhere: back to the named input, or along with it."""
    high_pass: bool = False
    """Whether what is below 100 Hz is taken out."""
    noise_suppression: Annotated[int, Meta(ge=0, le=4)] = 0
    """How much noise is taken out, 0…4; 0 for none."""
    auto_gain_db: Annotated[int, Meta(ge=0, le=50)] = 0
    """Decibels by which quiet speech is made louder at most, 0…50; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class VadSettings:
    """What counts as speech."""

    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 2
    """How readily sound is taken for noise, 0…3."""
    pre_roll_ms: Annotated[int, Meta(ge=0, le=2000)] = 300
    """Milliseconds kept from before the speech, 0…2000."""
    start_ms: Annotated[int, Meta(ge=20, le=500)] = 60
    """Milliseconds of speech that begin a segment, 20…500."""
    min_speech_ms: Annotated[int, Meta(ge=0, le=2000)] = 120
    """Milliseconds of speech below which a segment is rejected, 0…2000."""
    second_look: bool = True
    """Whether a segment is recognized only once Silero VAD has heard a voice in it."""
    min_voice: Annotated[float, Meta(ge=0, le=1)] = 0.7
    """How likely that voice must be, 0…1."""


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """When an utterance is over."""

    silence_ms: Annotated[int, Meta(ge=100, le=5000)] = 600
    """Milliseconds of silence that end it, 100…5000."""
    adaptive: bool = False
    """Whether what was said so far makes that less or more, of live audio."""
    min_silence_ms: Annotated[int, Meta(ge=100, le=5000)] = 400
    """Then the silence after a whole sentence, 100…5000, at most `silence_ms`."""
    max_silence_ms: Annotated[int, Meta(ge=100, le=5000)] = 1000
    """Then the silence within a sentence, 100…5000, at least `silence_ms`."""
    pause_ms: Annotated[int, Meta(ge=60, le=2000)] = 300
    """Milliseconds of silence at which the final is prepared, 60…2000, at most `silence_ms`."""
    max_utterance_s: Annotated[float, Meta(ge=2, le=60)] = 15.0
    """Seconds after which it is cut, 2…60."""


@dataclass(frozen=True, kw_only=True)
class RecognizerSettings:
    """How speech becomes text."""

    model: str = "moonshine-tiny-streaming-en"
    """Name of an installed model."""
    partials: bool = True
    """Whether text is published while it is still being spoken."""
    partial_interval_ms: Annotated[int, Meta(ge=100, le=10000)] = 500
    """Milliseconds between two partials at least, 100…10000."""
    partial_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """And as share of the utterance so far, 0…1; 0 for none."""
    partial_confidence: Annotated[float, Meta(ge=0, le=1)] = 0.4
    """A partial ends before the first new word that is less likely than this, 0…1."""
    draft: bool = True
    """Whether the last text is verified instead of recognized again."""
    incremental: bool = True
    """Whether a partial encodes only what is new, and what it changes."""
    threads: Annotated[int, Meta(ge=0, le=64)] = 0
    """Processor threads, 0…64; 0 chooses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto takes the GPU where the model and the machine can."""
    require_device: bool = False
    """Whether harkd ends where the model cannot run on that device; not with auto."""
    check_memory: bool = True
    """Whether a model that needs more memory than there is is refused before it is loaded."""
    min_confidence: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Confidence below which a text is rejected, 0…1."""
    hotwords: str = ""
    """Words that are likelier here, with commas; or @ and a file of them. See `hotword_list`."""


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How what was recognized is written."""

    numbers: Literal["as_is", "digits", "words"] = "as_is"
    """Numbers as the model writes them, all in digits, or all in words."""
    casing: Literal["as_is", "lower"] = "as_is"
    """Capitals as the model writes them, or none."""
    punctuation: bool = True
    """Whether there is any."""


@dataclass(frozen=True, kw_only=True)
class WakeSettings:
    """Words after which what is said is recognized."""

    word: str = ""
    """Names of models, or their files, with commas between them; empty to recognize all."""
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.7
    """How sure of a word the detector must be, 0…1; 0 for what its model says."""
    listen_s: Annotated[float, Meta(ge=1, le=60)] = 6.0
    """Seconds after a word within which an utterance must begin, 1…60."""


@dataclass(frozen=True, kw_only=True)
class ModelsSettings:
    """Where models are kept."""

    dir: str = ""
    """Folder; empty for the usual one, see `models_dir`."""


@dataclass(frozen=True, kw_only=True)
class StateSettings:
    """Where is kept what must survive a restart."""

    dir: str = ""
    """Folder; empty for the usual one, see `state_dir`."""


@dataclass(frozen=True, kw_only=True)
class PhrasesSettings:
    """Which sentences are known. The sentences themselves are read by `harkd.phrases.loading`."""

    mode: Literal["open", "prefer", "only"] = "prefer"
    """Whether they count for nothing, before free text, or alone."""
    file: str = ""
    """File, folder or pattern with the templates; several with commas."""


@dataclass(frozen=True, kw_only=True)
class HermesSettings:
    """The part of a speech recognizer in Rhasspy's Hermes protocol."""

    enabled: bool = False
    """Whether it is played."""
    site_id: SiteId = ""
    """Name of this site; empty for the device id, see `effective_site_id`."""


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """Where health, metrics and status can be read."""

    enabled: bool = True
    """Whether they can be."""
    host: Host = "127.0.0.1"
    """Address to listen at."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8475
    """TCP port, 0…65535; 0 takes any that is free."""


@dataclass(frozen=True, kw_only=True)
class DebugSettings:
    """What helps to find out why something was misheard."""

    utterances: Annotated[int, Meta(ge=0, le=100)] = 0
    """Utterances whose audio is kept in memory, to be saved on command, 0…100; 0 for none."""
    keep_files: Annotated[int, Meta(ge=1, le=1000)] = 50
    """Saved utterances on the disk at most, 1…1000."""
    keep_days: Annotated[int, Meta(ge=1, le=365)] = 7
    """Days after which they are removed, 1…365."""


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    format: Literal["auto", "human", "json"] = "auto"
    """Form of a log line; auto chooses by where the log goes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    device_id: OptionalTopicLevel = ""
    """Name of this device in topics; empty for the host name, see `effective_device_id`."""
    audio: AudioSettings = field(default_factory=AudioSettings)
    inputs: Mapping[str, AudioSettings] = field(default_factory=dict)
    """Several microphones, each by its device id; empty for one, see `each_input`."""
    vad: VadSettings = field(default_factory=VadSettings)
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    wake: WakeSettings = field(default_factory=WakeSettings)
    recognizer: RecognizerSettings = field(default_factory=RecognizerSettings)
    text: TextSettings = field(default_factory=TextSettings)
    models: ModelsSettings = field(default_factory=ModelsSettings)
    state: StateSettings = field(default_factory=StateSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    phrases: PhrasesSettings = field(default_factory=PhrasesSettings)
    hermes: HermesSettings = field(default_factory=HermesSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    debug: DebugSettings = field(default_factory=DebugSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def effective_device_id(self) -> str:
        """`device_id`, or the host name with "-" for whatever may not stand in a topic."""
        if self.device_id:
            return self.device_id
        return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-") or "harkd"

    @property
    def effective_client_id(self) -> str:
        """`mqtt.client_id`, or ``harkd-<device_id>``."""
        return self.mqtt.client_id or f"harkd-{self.effective_device_id}"

    @property
    def effective_site_id(self) -> str:
        """`hermes.site_id`, or the device id."""
        return self.hermes.site_id or self.effective_device_id


LEAVES: Final[Mapping[Keys, Leaf]] = leaves_of(Settings)
"""Every option by its path, in the order of the classes."""


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Returns the settings of the file (None: the defaults) with those of `environ` over them.

    Raises:
        SettingsError: `message` has all faults of the file and the environment, one a line.
    """
    return load_traced(path, environ)[0]


def load_traced(
    path: Path | None, environ: Mapping[str, str]
) -> tuple[Settings, dict[Keys, Entry]]:
    """As `load`, and also returns the entry behind each value that is not left to its default."""
    faults: list[Fault] = []
    in_file: dict[Keys, Entry] = {}
    unreadable = ""
    try:
        in_file = read_file(path, faults) if path else {}
    except SettingsError as exc:
        unreadable = exc.message
    in_environment, unknown_names = read_environment(environ, LEAVES)
    faults.extend(unknown_names)

    values: dict[Keys, Any] = {}
    origins: dict[Keys, Entry] = {}
    doubtful: set[Keys] = set()
    for keys, entry in [*in_file.items(), *in_environment.items()]:
        if is_of_inputs(keys):
            values[keys], words = judged(keys, entry, LEAVES)
            origins[keys] = entry
        elif is_inline(keys):
            words = ""  # its faults are told where phrases are loaded
        elif keys not in LEAVES:
            words = unknown(keys, entry, LEAVES)
        else:
            values[keys], words = judge(LEAVES[keys], entry)
            if keys == HOTWORDS and not words:
                values[keys], words = _hotwords(values[keys])
            origins[keys] = entry
        if words:
            doubtful.add(keys)
            faults.append(Fault(place=entry.place, name=entry.name, text=words))

    for keys in doubtful:
        values.pop(keys, None)
    settings = _assemble(values)
    faults.extend(_contradictions(settings, origins, doubtful))
    if unreadable or faults:
        lines = [str(fault) for fault in sorted(faults, key=lambda fault: fault.place)]
        raise SettingsError("\n".join([unreadable, *lines] if unreadable else lines))
    return settings, origins


def _hotwords(text: str) -> tuple[str, str]:
    """Returns them, those of a file in its place, and what is wrong with them, or ""."""
    try:
        return resolved(text), ""
    except ValueError as error:
        return "", str(error)


def _assemble(values: Mapping[Keys, Any]) -> Settings:
    def of(section: str) -> dict[str, Any]:
        return {keys[1]: value for keys, value in values.items() if keys[:-1] == (section,)}

    audio = of("audio")
    inputs: dict[str, dict[str, Any]] = {}
    for keys, value in values.items():
        if is_of_inputs(keys) and len(keys) > 1:
            inputs.setdefault(keys[1], {}).update({keys[2]: value} if len(keys) > 2 else {})
    return Settings(
        device_id=values.get(("device_id",), ""),
        audio=AudioSettings(**audio),
        inputs={name: AudioSettings(**{**audio, **own}) for name, own in inputs.items()},
        vad=VadSettings(**of("vad")),
        endpoint=EndpointSettings(**of("endpoint")),
        wake=WakeSettings(**of("wake")),
        recognizer=RecognizerSettings(**of("recognizer")),
        text=TextSettings(**of("text")),
        models=ModelsSettings(**of("models")),
        state=StateSettings(**of("state")),
        mqtt=MqttSettings(**of("mqtt")),
        phrases=PhrasesSettings(**of("phrases")),
        hermes=HermesSettings(**of("hermes")),
        http=HttpSettings(**of("http")),
        debug=DebugSettings(**of("debug")),
        log=LogSettings(**of("log")),
    )


def _contradictions(
    settings: Settings, origins: Mapping[Keys, Entry], doubtful: set[Keys]
) -> list[Fault]:
    """Returns the faults that no single value has. Values in `doubtful` are not what was meant."""
    found: list[Fault] = []

    def report(blamed: str, text: str, *involved: str) -> None:
        paths = [tuple(name.split(".")) for name in (blamed, *involved)]
        entry = origins.get(paths[0])
        if entry and doubtful.isdisjoint(paths):
            found.append(Fault(place=entry.place, name=entry.name, text=text))

    for blamed, text, other in _out_of_order(settings.endpoint, origins):
        report(blamed, text, other)

    for name, text, other in contradictions(settings.mqtt):
        report(f"mqtt.{name}", text, f"mqtt.{other}")

    if settings.recognizer.require_device and settings.recognizer.device == "auto":
        report(
            "recognizer.require_device",
            "requires no device while recognizer.device is auto, which takes any; set that to "
            "cuda, or delete this one",
            "recognizer.device",
        )

    if settings.inputs:
        report("device_id", f"each of the {INPUTS} has a name of its own; delete this one")
        report("hermes.site_id", f"each of the {INPUTS} is a site by its name; delete this one")
    sure = {
        name: audio
        for name, audio in settings.inputs.items()
        if not any(keys[:2] == (INPUTS, name) for keys in doubtful)
    }
    for name, text in twice(sure):
        report(f"{INPUTS}.{name}", text)
    return found


def _out_of_order(
    endpoint: EndpointSettings, origins: Mapping[Keys, Entry]
) -> Iterator[tuple[str, str, str]]:
    """Yields each silence that is too long or too short: which to blame, why, and its other."""
    limits = [("pause_ms", True)]
    if endpoint.adaptive:
        limits += [("min_silence_ms", True), ("max_silence_ms", False)]
    silence, silence_ms = "endpoint.silence_ms", endpoint.silence_ms
    for name, at_most in limits:
        path, value = f"endpoint.{name}", getattr(endpoint, name)
        if value == silence_ms or (value < silence_ms) == at_most:
            continue
        word, opposite, mend = (
            ("longer", "shorter", "lower") if at_most else ("shorter", "longer", "raise")
        )
        if ("endpoint", name) in origins:
            yield path, f"{value} is {word} than {silence} ({silence_ms}); {mend} it", silence
        else:
            text = f"{silence_ms} is {opposite} than {path} ({value}); {mend} that too"
            yield silence, text, path


def silence_fault(endpoint: EndpointSettings) -> str:
    """Returns why `silence_ms` does not fit the other silences, or "" where it does."""
    return next((text for _, text, _ in _out_of_order(endpoint, {})), "")


def silence_bounds_ms(endpoint: EndpointSettings) -> tuple[int, int]:
    """Returns the least and the most that `silence_ms` may be beside the other options."""
    low, high = map(int, LEAVES["endpoint", "silence_ms"].allowed.split("…"))
    if endpoint.adaptive:
        low, high = max(low, endpoint.min_silence_ms), min(high, endpoint.max_silence_ms)
    return max(low, endpoint.pause_ms), high


def each_input(settings: Settings, environ: Mapping[str, str]) -> list[Settings]:
    """Returns the settings of each microphone: those that were given, where there is one.

    Of several, each is as a daemon of its own: its name is the device id, and the end of the client
    id, and its state lies in a folder of its own.
    """
    if not settings.inputs:
        return [settings]
    folder = state_dir(settings.state, environ) / INPUTS
    mqtt = settings.mqtt
    return [
        replace(
            settings,
            device_id=name,
            audio=audio,
            state=StateSettings(dir=str(folder / name)),
            mqtt=replace(mqtt, client_id=mqtt.client_id and f"{mqtt.client_id}-{name}"),
        )
        for name, audio in settings.inputs.items()
    ]


def describe(settings: Settings) -> dict[str, Any]:
    """Returns the settings as nested plain values, with secrets masked."""
    described = asdict(settings)
    for keys, leaf in LEAVES.items():
        section = described[keys[0]] if len(keys) > 1 else described
        if leaf.secret and section[keys[-1]]:
            section[keys[-1]] = MASK
    return described


def models_dir(models: ModelsSettings, environ: Mapping[str, str]) -> Path:
    """Returns the folder of models: `dir`, else ``$HARKD_MODELS``, else the user's or root's."""
    named = models.dir or environ.get("HARKD_MODELS", "")
    if named:
        return expand(named)
    if os.geteuid() == 0:
        return SYSTEM_MODELS_DIR
    return platformdirs.user_data_path("harkd", appauthor=False) / "models"


def state_dir(state: StateSettings, environ: Mapping[str, str]) -> Path:
    """Returns the folder of what must survive: `dir`, else systemd's, else the user's or root's."""
    if state.dir:
        return expand(state.dir)
    # systemd.exec(5): several folders are set apart by colons; the first is ours.
    if by_systemd := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(by_systemd)
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    return platformdirs.user_state_path("harkd", appauthor=False)


def example_text() -> str:
    """Returns the commented reference, ``harkd.yaml``.

    Raises:
        SettingsError: It is neither in the package nor in the source tree.
    """
    here = Path(__file__).resolve().parent
    for path in (here / "harkd.yaml", here.parents[1] / "config" / "harkd.yaml"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise SettingsError(f"{here / 'harkd.yaml'} is missing", "Install harkd again")
