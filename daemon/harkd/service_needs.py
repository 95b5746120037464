"""What the service of the system will miss when it starts: settings, password, model.

In: the files of this machine, as root sees them. Out: `Lack`s, each with its mend. Changes nothing.
Runs on the main thread.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harkd.bundled_models import BUNDLED
from harkd.errors import ModelError, ModelMissingError, SettingsError
from harkd.model_store import ModelStore
from harkd.service_files import HOMES, TEMPORARY, USER, is_below
from harkd.settings import SYSTEM_MODELS_DIR, Settings, load
from harkd.settings_file import SYSTEM_FILE, expand

PASSWORD_FILE: Final = Path("/etc/harkd/mqtt-password")
"""What ``LoadCredential=`` in the unit names."""
PATHS: Final = (
    ("models", "dir"),
    ("state", "dir"),
    ("mqtt", "password_file"),
    ("mqtt", "tls_ca_file"),
    ("mqtt", "tls_cert_file"),
    ("mqtt", "tls_key_file"),
)
"""Options that name something that the service must be able to reach."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is missing."""

    what: str
    """In a sentence without a full stop."""
    mend: str
    """What to do, as a command where one does it."""
    fatal: bool = True
    """Whether the service cannot start without it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where things lie; another one in tests."""

    settings_file: Path = SYSTEM_FILE
    models: Path = SYSTEM_MODELS_DIR
    password: Path = PASSWORD_FILE
    asker_home: Path | None = None
    """The home of who called sudo."""


def this_machine(environ: Mapping[str, str]) -> Machine:
    """Return where things lie on this machine."""
    name = environ.get("SUDO_USER", "")
    try:
        home = Path(pwd.getpwnam(name).pw_dir) if name and name != "root" else None
    except KeyError:
        home = None
    return Machine(asker_home=home)


def service_settings(machine: Machine) -> Settings:
    """Return the settings that the service will have. Raises SettingsError."""
    there = machine.settings_file.exists()
    return load(machine.settings_file if there else None, {})


def service_models(settings: Settings, machine: Machine) -> ModelStore:
    """Return the store in which the service will look for its model."""
    return ModelStore(expand(settings.models.dir) if settings.models.dir else machine.models)


def lacks(machine: Machine, program: Path) -> Iterator[Lack]:
    """Yield all that is missing; `program` is the command `harkd` for the mends."""
    try:
        settings = service_settings(machine)
    except SettingsError as error:
        yield Lack(str(error), f"sudo {program} config check {machine.settings_file}")
        return
    yield from _settings_lacks(settings, machine, program)
    yield from _reach_lacks(settings, machine)
    yield from _password_lacks(settings, machine)
    yield from _model_lacks(settings, machine, program)


def _settings_lacks(settings: Settings, machine: Machine, program: Path) -> Iterator[Lack]:
    if not machine.settings_file.exists():
        own = machine.asker_home / ".config/harkd/harkd.yaml" if machine.asker_home else None
        if own and own.exists():
            what = f"{own} is yours alone: the service reads {machine.settings_file}, which is not"
            mend = f"sudo install -m 640 -g {USER} {own} {machine.settings_file}"
            yield Lack(f"{what} there", mend, fatal=False)
        else:
            yield Lack(
                f"there is no {machine.settings_file}: the defaults apply, with a broker of "
                "harkd's own that only this machine reaches",
                f"write one; `{program} config example` prints all options",
                fatal=False,
            )
    if not settings.mqtt.host and importlib.util.find_spec("amqtt") is None:
        yield Lack(
            "mqtt.host is not set, and the embedded broker is not installed",
            f"name your broker in {machine.settings_file}, or "
            f"sudo {program.with_name('pip')} install 'harkd[broker]'",
        )


def _reach_lacks(settings: Settings, machine: Machine) -> Iterator[Lack]:
    named = [("", machine.settings_file)]
    for section, option in PATHS:
        if value := getattr(getattr(settings, section), option):
            named.append((f"{section}.{option}", expand(value)))
    for name, path in named:
        if is_below(path, (*HOMES, *TEMPORARY)):
            yield Lack(
                f"{name} is {path}, and the service sees no home and no /tmp",
                f"sudo install -D -m 640 -g {USER} {path} /etc/harkd/{path.name}, and name that"
                if not name.endswith("dir")
                else f"move it to /var/lib/harkd, and delete {name}",
            )
        elif path.is_file() and not may_read(path):
            what = f"{path}{f' ({name})' if name else ''} must not be read by the user {USER}"
            yield Lack(what, f"sudo chgrp {USER} {path} && sudo chmod 640 {path}")


def _password_lacks(settings: Settings, machine: Machine) -> Iterator[Lack]:
    mqtt = settings.mqtt
    if not mqtt.username or mqtt.password or mqtt.password_file:
        return
    try:
        there = bool(machine.password.read_bytes().strip())
    except FileNotFoundError:
        there = False
    except OSError:  # not root: a dry run
        return
    if not there:
        yield Lack(
            f"mqtt.username is set, and there is no password in {machine.password}",
            f"sudo install -m 600 /dev/stdin {machine.password}, then type it, Enter and Ctrl-D",
            fatal=False,
        )


def _model_lacks(settings: Settings, machine: Machine, program: Path) -> Iterator[Lack]:
    store, name = service_models(settings, machine), settings.recognizer.model
    try:
        store.locate(name)
    except ModelMissingError as error:
        folder = (
            machine.asker_home / ".local/share/harkd/models" / name if machine.asker_home else None
        )
        if folder and folder.is_dir():
            what = f"the model {name} lies in {folder}, where the service does not see it"
            mend = f"sudo {program} models --models-dir {store.root} import {folder}"
        elif name in BUNDLED:
            what, mend = error.message, error.mend
        else:
            what = f"the model {name} is not in {store.root}"
            mend = f"sudo {program} models --models-dir {store.root} pull {name}"
        yield Lack(what, mend)
    except ModelError as error:
        yield Lack(error.message, error.mend)


def may_read(path: Path, user: str = USER) -> bool:
    """Tell whether the service's user may read a file, by its mode alone.

    True where this user is not there yet, or the file cannot be looked at.
    """
    try:
        who, facts = pwd.getpwnam(user), path.stat()
        groups = os.getgrouplist(user, who.pw_gid)
    except (KeyError, OSError):
        return True
    if facts.st_uid == who.pw_uid:
        return bool(facts.st_mode & 0o400)
    if facts.st_gid in groups:
        return bool(facts.st_mode & 0o040)
    return bool(facts.st_mode & 0o004)
