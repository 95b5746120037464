"""The settings file: where it is, what stands in it and on which line.

In: the file. Out: one `Entry` for each value that was found, with its line, and one `Fault` for
everything that is wrong with the file itself. Runs once at start and for each ``harkd config``
command, on the thread that asks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

import platformdirs
import yaml

from harkd.errors import SettingsError

SYSTEM_FILE: Final = Path("/etc/harkd/harkd.yaml")
"""The settings file of the service."""
MAX_FILE_BYTES: Final = 256 * 1024
"""A settings file has some 10 kB; what is larger is something else."""

INPUTS: Final = "inputs"
"""The one section of sections: several microphones, each by its name."""

Keys = tuple[str, ...]
"""A path in the settings: ``("mqtt", "port")`` is written ``mqtt.port``."""

Kind = Literal["text", "choice", "whole number", "number", "true or false"]
"""What an option holds."""

_TAG: Final = "tag:yaml.org,2002:"
_CONSTRUCTED: Final = frozenset(_TAG + name for name in ("null", "bool", "int", "float"))


class Shape(Enum):
    """What stands where a single value could stand."""

    SECTION = ("a section", "write the value on the same line")
    LIST = ("a list", "write one value, without dashes and brackets")
    TAGGED = ("a tag", 'put text that begins with "!" in quotes')


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Where an entry stands. Sorts in the order in which a reader would look."""

    source: str
    """The file's path, or `ENVIRONMENT`."""
    line: int = 0
    """Line in the file, from 1; 0 where there is none."""
    column: int = 0
    """Column in the line, from 1; 0 where it would not help."""

    def __str__(self) -> str:
        return ":".join([self.source, *(str(n) for n in (self.line, self.column) if n)])


ENVIRONMENT: Final = Place(source="environment")
"""The place of every ``HARKD_…`` variable."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One value as it was found."""

    place: Place
    """Where it was found."""
    name: str
    """What its writer calls it: ``mqtt.port`` or ``HARKD_MQTT__PORT``."""
    value: object
    """None, bool, int, float or str as YAML reads it, or a `Shape`."""
    raw: str = ""
    """The text that `value` was read from."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong, in words for whoever wrote it."""

    place: Place
    """Where it stands."""
    name: str = ""
    """Path of the setting; empty where the fault is the file's."""
    text: str
    """What is wrong, what is allowed and how to mend it, on one line."""

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.name, self.text) if part)


def find_file(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Returns the settings file to load; None means that there is none, and defaults apply.

    The order: `explicit` (``--config``), ``$HARKD_CONFIG``, the user's file, the system's file.

    Raises:
        SettingsError: A file that was asked for by name does not exist.
    """
    for path, by in (
        (explicit, "--config"),
        (environ.get("HARKD_CONFIG") or None, "$HARKD_CONFIG"),
    ):
        if path is not None:
            wanted = expand(str(path))
            if not _exists(wanted):
                raise SettingsError(
                    f"{wanted}: there is no such file",
                    f"Correct the path in {by}, or leave {by} out to use {user_file()} or "
                    f"{SYSTEM_FILE}",
                )
            return wanted
    return next((path for path in (user_file(), SYSTEM_FILE) if _exists(path)), None)


def user_file() -> Path:
    """Returns where the settings file of the current user belongs."""
    return platformdirs.user_config_path("harkd", appauthor=False) / "harkd.yaml"


def expand(path: str) -> Path:
    """Returns the path with a leading ``~`` replaced, where there is a home to replace it with."""
    # Path.expanduser() raises for an account without a home; this leaves the ~ where it is.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def read_small(path: Path) -> str:
    """Returns the text of a file that a person wrote.

    Raises:
        SettingsError: It cannot be read, is too large or is not UTF-8; starts with the path.
    """
    data = read_bytes(path, MAX_FILE_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise SettingsError(
            f"{path}:{line}: is not UTF-8 text (byte 0x{data[exc.start]:02x}); save the file as "
            "UTF-8"
        ) from exc


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Returns what is in a file.

    Raises:
        SettingsError: It cannot be read, or is larger; starts with the path.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError as exc:
        raise SettingsError(f"{path}: there is no such file; correct the path") from exc
    except IsADirectoryError as exc:
        raise SettingsError(
            f"{path}: is a folder, not a file (Docker makes one where a mounted file is missing); "
            "remove it and put the file in its place"
        ) from exc
    except PermissionError as exc:
        raise SettingsError(
            f"{path}: must not be read by this user (uid {os.geteuid()}); run as the user that "
            "owns it, or allow reading with chmod or chgrp"
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SettingsError(f"{str(path)!r}: cannot be read ({reason}); correct the path") from exc
    if len(data) > most_bytes:
        raise SettingsError(
            f"{path}: is larger than {most_bytes // 1024} KiB; name another file, this one "
            "holds something else"
        )
    return data


def read_file(path: Path, faults: list[Fault]) -> dict[Keys, Entry]:
    """Reads sections and values, two levels deep, in `INPUTS` three.

    What cannot be read is added to `faults`.

    Raises:
        SettingsError: As `read_small`.
    """
    root = compose(path, read_small(path), faults)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        words = 'settings are lines of "name: value" under sections; see `harkd config example`'
        faults.append(Fault(place=_place(path, root.start_mark), text=words))
        return {}
    entries: dict[Keys, Entry] = {}
    _read_section(path, root, (), entries, faults)
    return entries


def compose(path: Path, text: str, faults: list[Fault]) -> yaml.Node | None:
    """Returns the nodes of a file, with their marks; None where it is empty, or is no YAML.

    What is wrong is added to `faults`.
    """
    # Not the C loader: it has no depth limit of its own and would overflow the C stack.
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        words = f"character U+{ord(text[exc.position]):04X} is not allowed in YAML; delete it"
        faults.append(Fault(place=Place(source=str(path), line=line), text=words))
        return None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = _place(path, mark, column=True) if mark else Place(source=str(path))
        faults.append(Fault(place=place, text=_syntax_words(exc)))
        return None
    except RecursionError:
        words = "is nested too deeply; settings have two levels, a section and its options"
        faults.append(Fault(place=Place(source=str(path)), text=words))
        return None
    except (ValueError, OverflowError):  # PyYAML lets chr() raise: "\UFFFFFFFF"
        place = Place(source=str(path), line=loader.line + 1)
        words = "is not YAML; look for a wrong escape after a backslash, or use single quotes"
        faults.append(Fault(place=place, text=words))
        return None
    finally:
        loader.dispose()
    if isinstance(root, yaml.ScalarNode) and root.tag == _TAG + "null":
        return None
    return root


def plain(text: str) -> object:
    """Returns what YAML makes of an unquoted value: None, bool, int, float, or the text itself."""
    tag = _resolver.resolve(yaml.ScalarNode, text, (True, False))
    if tag in _CONSTRUCTED:
        try:
            value: object = _resolver.construct_object(yaml.ScalarNode(tag, text))
        except (ValueError, OverflowError):  # "0x_", or more digits than int() takes
            return text
        return value
    return text


def quoted(text: str) -> str:
    """Returns the text in double quotes, short and on one line, to show it in a message."""
    short = text if len(text) <= 40 else text[:39] + "…"
    return (
        '"'
        + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
        + '"'
    )


_resolver: Final[Any] = yaml.SafeLoader("")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a folder on the way that this user may not enter; a NUL
        return False


def _place(path: Path, mark: yaml.Mark, *, column: bool = False) -> Place:
    return Place(source=str(path), line=mark.line + 1, column=mark.column + 1 if column else 0)


def _read_section(
    path: Path,
    section: yaml.MappingNode,
    above: Keys,
    entries: dict[Keys, Entry],
    faults: list[Fault],
) -> None:
    for key, node in section.value:
        place = _place(path, key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            words = "a list or a section stands where a name belongs; put brackets in quotes"
            faults.append(Fault(place=place, name=".".join(above), text=words))
            continue
        keys = (*above, key.value)
        name = ".".join((*above, key.value if key.value.isprintable() else quoted(key.value)))
        if keys in entries:
            words = f"is set twice, first in line {entries[keys].place.line}; delete one of them"
            faults.append(Fault(place=place, name=name, text=words))
            continue
        value, raw = _read_value(node)
        entries[keys] = Entry(place=place, name=name, value=value, raw=raw)
        if isinstance(node, yaml.MappingNode) and (not above or above == (INPUTS,)):
            _read_section(path, node, keys, entries, faults)


def _read_value(node: yaml.Node) -> tuple[object, str]:
    if not isinstance(node, yaml.ScalarNode):
        return (Shape.LIST if isinstance(node, yaml.SequenceNode) else Shape.SECTION), ""
    text: str = node.value
    if node.tag == _TAG + "str":
        return text, text
    if node.style is None and node.tag == _resolver.resolve(yaml.ScalarNode, text, (True, False)):
        return plain(text), text
    return Shape.TAGGED, text


_SYNTAX: Final = (
    (r"'\\t'|\btabs?\b", "a tab; indent with spaces"),
    (
        r"mapping values are not allowed",
        'a second ":" in one line, or a wrong indentation; put a value that holds ": " in quotes, '
        "and line options up",
    ),
    (r"could not find expected ':'", 'this line or the one above has no ":" after its name'),
    (
        r"expected <block end>|did not find expected",
        "this line does not fit those above; line the options of a section up, and put a value "
        "that holds quotes in quotes",
    ),
    (r"unexpected end of stream|document separator", "a quote is opened and never closed"),
    (r"undefined alias|alphabetic or numeric", 'a value that begins with "*" or "&" needs quotes'),
    (r"character '.' that cannot start", "a value that begins with @, ` or % needs quotes"),
    (r"expected a single document", 'a second document begins ("---"); a settings file has one'),
    (r"escape|hexadecimal", "a wrong escape after a backslash; use single quotes around the value"),
    (
        r"duplicate anchor|expected ',' or",
        "a bracket is never closed, a comma is missing, or brackets within brackets need quotes",
    ),
)
"""PyYAML's problems, and words for someone who has never read the YAML specification."""


def _syntax_words(exc: yaml.MarkedYAMLError) -> str:
    problem = f"{exc.context or ''} {exc.problem or ''}"
    for pattern, words in _SYNTAX:
        if re.search(pattern, problem):
            return f"is not YAML: {words}"
    # PyYAML's own words can quote the file, and what it quotes can be a password.
    return "is not YAML; look for a missing quote, colon or space here and in the line above"
