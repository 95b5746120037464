"""The phrases of a daemon: its files, read and compiled, and kept on the disk where that took long.

In: the section ``phrases`` of the settings, the settings file, what came over MQTT. Out:
`PhraseSet`. It never changes: what is loaded anew is another one, so the old one stays in force
where the new one has faults. Any thread; waits for the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import weakref
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from harkd import __version__
from harkd.errors import PhrasesError, SettingsError
from harkd.phrases.builder import Action, SlotValue
from harkd.phrases.compiling import compile_phrases, faulty
from harkd.phrases.file import FileReader
from harkd.phrases.graph import PhraseGraph
from harkd.phrases.sent import Sent, placed
from harkd.phrases.source import AnyList, text_list
from harkd.phrases.tables import Phrase, Tables
from harkd.settings_file import expand, quoted, read_bytes
from harkd.whole_file import write_whole

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""2,000 templates have some 200 kB."""
SLOW_S: Final = 1.0
"""Seconds from which on the graph is kept on the disk."""
MOST_KEPT: Final = 4
"""Graphs on the disk; older ones are removed."""
_FORMAT: Final = f"1 {__version__}"

_one_at_a_time: Final = threading.Lock()
_in_use: Final = weakref.WeakValueDictionary[str, PhraseGraph]()
"""Graphs by the hash of what they were made of."""

Given = Sequence[SlotValue | Mapping[str, Any]]
"""A list's values, as they came: texts, or ``{"in": …, "out": …}``."""


class PhraseOptions(Protocol):
    """Of the settings, what tells where phrases are."""

    @property
    def file(self) -> str:
        """A file, a folder of them, or a pattern with ``*``; several with commas."""


@dataclass(frozen=True, kw_only=True)
class PhraseSet:
    """What can be said now."""

    graph: PhraseGraph
    """All of it."""
    files: tuple[Path, ...] = ()
    """Where it was read from."""
    lists: Mapping[str, Given] = field(default_factory=dict)
    """Lists that came from elsewhere, in place of those of the files."""
    compiled_s: float = 0.0
    """Seconds that it took."""
    kept: bool = False
    """Whether it was on the disk already."""


def load(
    options: PhraseOptions,
    settings_file: Path | None,
    *,
    lists: Mapping[str, Given] | None = None,
    sent: Sent | None = None,
    keep_in: Path | None = None,
) -> PhraseSet | None:
    """Return the phrases of the settings; None where there are none.

    `lists` stand in place of those with their names, and what was sent over MQTT in place of these,
    or of everything. What took longer than `SLOW_S` is kept in the folder `keep_in`, by the hash of
    all that it was made of.

    Raises:
        PhrasesError: They have faults; `message` has all of them, one a line, with their places.
    """
    if sent and sent.scope == "all":
        return load_files([], sent=sent, keep_in=keep_in)
    inline = settings_file if settings_file and settings_file.exists() else None
    files = phrase_files(options.file, settings_file.parent if settings_file else Path())
    return load_files(files, inline=inline, lists=lists, sent=sent, keep_in=keep_in)


def phrase_files(named: str, folder: Path) -> list[Path]:
    """Return the files that `phrases.file` names; what is relative is so to `folder`.

    Raises:
        PhrasesError: A name stands for no file.
    """
    found: list[Path] = []
    for name in filter(None, map(str.strip, named.split(","))):
        path = folder / expand(name)
        if path.is_dir():
            more = sorted(path.glob("*.yaml"))
        elif "*" in path.name:
            more = sorted(path.parent.glob(path.name))
        else:
            more = [path]
        if not more:
            raise PhrasesError(f"{path}: there is no such file; correct phrases.file")
        found.extend(more)
    return found


def load_files(
    files: Sequence[Path],
    *,
    inline: Path | None = None,
    lists: Mapping[str, Given] | None = None,
    sent: Sent | None = None,
    keep_in: Path | None = None,
) -> PhraseSet | None:
    """As `load`, of these files, and what the settings file `inline` has.

    One set at a time, and what is in use already is not made again: several microphones share it.
    """
    with _one_at_a_time:
        return _load_files(files, inline, lists or {}, sent, keep_in)


def _load_files(
    files: Sequence[Path],
    inline: Path | None,
    lists: Mapping[str, Given],
    sent: Sent | None,
    keep_in: Path | None,
) -> PhraseSet | None:
    begun = time.monotonic()
    if sent and sent.scope == "nothing":
        sent = None
    texts = {path: _read(path) for path in ([inline] if inline else []) + list(files)}
    digest = _digest(texts, lists, sent)
    kept = keep_in and keep_in / f"{digest}.phrases"
    recalled = False
    graph = _in_use.get(digest)
    if graph is None and kept:
        graph = _recalled(kept)
        recalled = graph is not None
    if graph is None:
        graph = _compiled(texts, inline, lists, sent)
        took_s = time.monotonic() - begun
        if kept and took_s > SLOW_S:
            _keep(kept, graph)
    _in_use[digest] = graph
    if not graph.phrases:
        return None
    return PhraseSet(
        graph=graph,
        files=tuple(texts),
        lists=dict(lists),
        compiled_s=time.monotonic() - begun,
        kept=recalled,
    )


def _read(path: Path) -> str:
    try:
        data = read_bytes(path, MAX_FILE_BYTES)
        return data.decode("utf-8-sig")
    except SettingsError as exc:
        raise PhrasesError(exc.message) from exc
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise PhrasesError(
            f"{path}:{line}: is not UTF-8 text (byte 0x{data[exc.start]:02x}); save it as UTF-8"
        ) from exc


def _compiled(
    texts: Mapping[Path, str],
    inline: Path | None,
    lists: Mapping[str, Given],
    sent: Sent | None,
) -> PhraseGraph:
    reader = FileReader()
    for path, text in texts.items():
        reader.read(path, text, inline=path == inline)
    source = reader.source()
    given: dict[str, AnyList] = {}
    wrong: list[str] = []
    for name, values in lists.items():
        if name not in source.scope.lists and not _in_a_block(source.templates, name):
            known = ", ".join(sorted(source.scope.lists)) or "none"
            wrong.append(f"there is no list {quoted(name)} (known: {known}); correct its name")
            continue
        try:
            given[name] = text_list(name, values)
        except ValueError as exc:
            wrong.append(f"{exc}; correct it")
    source = source.with_lists(given)
    if sent:
        read_sent = sent.read(reader.faults)
        source = read_sent.source() if sent.scope == "all" else placed(read_sent, source)
    try:
        graph = compile_phrases(source)
    except PhrasesError as exc:
        read = [str(faulty(reader.faults))] if reader.faults else []
        raise PhrasesError("\n".join([*read, str(exc), *wrong])) from exc
    if reader.faults or wrong:
        read = [str(faulty(reader.faults))] if reader.faults else []
        raise PhrasesError("\n".join([*read, *wrong]))
    return graph


def _in_a_block(templates: Sequence[Any], name: str) -> bool:
    return any(name in template.own.lists for template in templates)


class _Kept(msgspec.Struct):
    """A graph on the disk."""

    phrases: list[tuple[str, str, dict[str, str | int | float], dict[str, str | int | float]]]
    words: list[str]
    actions: list[tuple[str, str, str | int | float]]
    start: int
    arrays: list[bytes]
    ends: bytes


def _digest(texts: Mapping[Path, str], lists: Mapping[str, Given], sent: Sent | None) -> str:
    parts = [_FORMAT, *(f"{path}\0{text}" for path, text in texts.items())]
    hashed = hashlib.sha256(msgspec.json.encode(parts))
    hashed.update(msgspec.json.encode(sorted(lists.items())))
    if sent:
        hashed.update(msgspec.json.encode([sent.scope, sent.text]))
    return hashed.hexdigest()[:32]


def _keep(path: Path, graph: PhraseGraph) -> None:
    tables = graph.tables
    kept = _Kept(
        phrases=[
            (each.intent, each.template, dict(each.slots), dict(each.metadata))
            for each in tables.phrases
        ],
        words=list(tables.words),
        actions=[(each.kind, each.slot, each.value) for each in tables.actions],
        start=tables.start,
        arrays=[each.tobytes() for each in (tables.first, tables.word, tables.action, tables.to)],
        ends=tables.ends,
    )
    with contextlib.suppress(OSError):  # it is compiled again then
        write_whole(path, msgspec.msgpack.encode(kept))
        others = sorted(path.parent.glob("*.phrases"), key=lambda other: other.stat().st_mtime)
        for old in others[:-MOST_KEPT]:
            old.unlink()


def _recalled(path: Path) -> PhraseGraph | None:
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
        first, word, action, to = (array("I", part) for part in kept.arrays)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return PhraseGraph(
        Tables(
            phrases=tuple(
                Phrase(intent=intent, template=template, slots=slots, metadata=metadata)
                for intent, template, slots, metadata in kept.phrases
            ),
            words=tuple(kept.words),
            actions=tuple(Action(*each) for each in kept.actions),  # type: ignore[arg-type]
            start=kept.start,
            first=first,
            word=word,
            action=action,
            to=to,
            ends=kept.ends,
        )
    )
